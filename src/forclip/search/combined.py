"""Search for several texts at once: any of them, all of them, and none of others.

Scores of different texts are not comparable: 0.3 is a match for one text and the average for another. So each score is
first turned into a normalised score. With a calibration it is the logit of the probability that the
image shows the text (not cut at its ceiling). Without one it is the distance of the score from its text's mean over
the gallery, in standard deviations. NumPy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from forclip.calibration.model import MIN_SAMPLE, SCORE_SAMPLE, Calibration, logits
from forclip.index import TOP_K
from forclip.index.protocol import SearchIndex
from forclip.types import Doubles, Floats, SearchResult

# From here on an excluded text counts as shown: a probability of one half, or without a calibration so many standard
# deviations above its mean.
SHOWN_LOGIT, SHOWN_DEVIATIONS = 0.0, 2.0
_FIRST_FETCH, _WIDER = 2, 4  # times k images are fetched at first; growth of each further fetch


@dataclass(frozen=True)
class CombinedQuery:
    """Wanted and excluded texts as unit vectors [n, dim]. n may be 0, but at least one text must be wanted.

    An image's normalised score is min(max over any_of, min over all_of), a part without texts left out. The image is
    left out where the normalised score of an excluded text reaches SHOWN_LOGIT or SHOWN_DEVIATIONS, or the image's
    normalised score for the wanted texts.
    """

    any_of: Floats
    all_of: Floats
    none_of: Floats

    def __post_init__(self) -> None:
        if not len(self.any_of) and not len(self.all_of):
            raise ValueError("no text is wanted: give one besides those to leave out")

    @property
    def wanted(self) -> Floats:
        """any_of, then all_of: [W, dim]."""
        return np.concatenate([v for v in (self.any_of, self.all_of) if len(v)])


@dataclass(frozen=True)
class CombinedResult(SearchResult):
    """A result of a combined search.

    decided_by: the position of the deciding text among the wanted ones (the first of equals); score and box are of
    that text. The list is ordered by normalised_score.
    """

    normalised_score: float
    decided_by: int


@dataclass(frozen=True)
class Scale:
    """Normalises the scores of one text. sample: [m], the text's scores on images of the gallery."""

    sample: Doubles
    calibration: Calibration | None

    def normalised_score(self, scores: Doubles) -> Doubles:
        """Map scores [n] to normalised scores [n]; a higher score never gets a lower one."""
        if self.calibration is not None:
            return logits(self.calibration, scores, self.sample)
        deviations: Doubles = (scores - self.sample.mean()) / (float(self.sample.std()) or 1.0)
        return deviations


def search_combined(
    index: SearchIndex,
    query: CombinedQuery,
    k: int = TOP_K,
    where: str | None = None,
    exact: bool = False,
    calibration: Calibration | None = None,
) -> list[CombinedResult]:
    """Return the best k images by normalised score, best first, ties by id.

    Fetches each text's best images, and all texts' exact scores of them, until k results are certain: no image outside
    every list can reach their normalised scores, or a list is as long as the index allows. Large segments use the
    approximate index unless `exact`.

    Raises:
        ValueError: as Index.search does.
    """
    scales = text_scales(index, np.concatenate([query.wanted, query.none_of]), where, calibration)
    if not scales:
        return []
    total = min(len(index), index.most_results or len(index))
    depth = min(_FIRST_FETCH * k, max(k, total))
    while True:
        lists = [index.search(text, depth, where, exact) for text in query.wanted]
        results = _score(index, query, scales, sorted({r.image_id for found in lists for r in found}))
        results.sort(key=lambda r: (-r.normalised_score, r.image_id))
        certain = depth >= total or any(len(found) < depth for found in lists)  # a list holds all searched images
        if not certain and len(results) >= k:
            # An image outside the lists scores no higher than the end of each.
            ends = [scale.normalised_score(np.array([r[-1].score])) for scale, r in zip(scales, lists, strict=False)]
            certain = results[k - 1].normalised_score > combine(query, np.stack(ends))[0][0]
        if certain:
            return [replace(result, rank=rank) for rank, result in enumerate(results[:k], start=1)]
        depth = min(_WIDER * depth, total)


def text_scales(index: SearchIndex, texts: Floats, where: str | None, calibration: Calibration | None) -> list[Scale]:
    """Return a scale for each text [n, dim], from images sampled among those searched; none where there is no image.

    No text uses the calibration where the gallery is too small for it, or where a text scores all images alike.
    """
    samples = [index.scores(text, SCORE_SAMPLE, where=where).astype(np.float64) for text in texts]
    if any(not len(sample) for sample in samples):
        return []
    usable = all(len(sample) >= MIN_SAMPLE and sample.std() > 0 for sample in samples)
    return [Scale(sample, calibration if usable else None) for sample in samples]


def combine(query: CombinedQuery, normalised_scores: Doubles) -> tuple[Doubles, list[int]]:
    """Combine normalised scores [wanted, n] into [n]; also return for each image the position of the deciding text."""
    any_of, all_of = np.split(normalised_scores, [len(query.any_of)])
    if not len(any_of):
        return all_of.min(0), all_of.argmin(0).tolist()
    required = np.stack([any_of.max(0), *all_of])
    lowest = required.argmin(0)
    decided = np.where(lowest == 0, any_of.argmax(0), lowest + len(any_of) - 1)
    return required.min(0), decided.tolist()


def _score(
    index: SearchIndex, query: CombinedQuery, scales: Sequence[Scale], image_ids: Sequence[str]
) -> list[CombinedResult]:
    """Return results for these images, unordered, without those that show an excluded text or were just deleted."""
    texts = [*query.wanted, *query.none_of]
    by_text = [{r.image_id: r for r in index.search_among(image_ids, text)} for text in texts]
    present = [i for i in image_ids if all(i in results for results in by_text)]
    cosines = np.array([[results[i].score for i in present] for results in by_text]).reshape(len(texts), len(present))
    normalised = np.stack([scale.normalised_score(row) for scale, row in zip(scales, cosines, strict=True)])
    num_wanted = len(query.wanted)
    joined, decided = combine(query, normalised[:num_wanted])
    limit = np.minimum(SHOWN_DEVIATIONS if scales[0].calibration is None else SHOWN_LOGIT, joined)
    kept = np.flatnonzero((normalised[num_wanted:] < limit).all(0))
    results = []
    for n in kept:
        result = by_text[decided[n]][present[n]]
        results.append(CombinedResult(**vars(result), normalised_score=float(joined[n]), decided_by=decided[n]))
    return results
