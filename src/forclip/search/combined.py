"""Several texts in one search: any of them, all of them, and none of others.

Scores of different texts can't be compared as they are: one text's 0.3 is a find, another's is what every image gets.
So each score is first turned into a normalised score. With a calibration it is the logit of the probability that the
image shows the text (not cut at its ceiling). Without one it is the distance of the score from its text's mean over
the gallery, in standard deviations. NumPy only.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forclip.calibration.model import MIN_SAMPLE, Calibration, logits
from forclip.index.image_index import Index
from forclip.types import Doubles, Floats, SearchResult

SAMPLE = 2000  # images by which a text's scores are placed
SHOWN_LOGIT = 0.0  # an excluded text is taken to be shown from a probability of one half on,
SHOWN_DEVIATIONS = 2.0  # or without a calibration from so many standard deviations above its mean
_FIRST_FETCH, _WIDER = 2, 4


def in_words(any_of: Sequence[str], all_of: Sequence[str], none_of: Sequence[str]) -> str:
    """What is looked for, in one line."""
    wanted = " and ".join(part for part in (" or ".join(any_of), *all_of) if part)
    return wanted + "".join(f" not {text}" for text in none_of)


@dataclass(frozen=True)
class CombinedQuery:
    """What is wanted, as unit vectors [n, dim]; n may be 0, but one text must be wanted.

    An image's normalised score is min(max over any_of, min over all_of), a part without texts left out. The image is
    left out where the normalised score of an excluded text reaches SHOWN_LOGIT or SHOWN_DEVIATIONS, or that of what is
    wanted.
    """

    any_of: Floats
    all_of: Floats
    none_of: Floats

    def __post_init__(self) -> None:
        if not len(self.any_of) and not len(self.all_of):
            raise ValueError("nothing is wanted: give a text to look for beside those to leave out")

    @property
    def wanted(self) -> Floats:
        """any_of, then all_of: [W, dim]."""
        return np.concatenate([v for v in (self.any_of, self.all_of) if len(v)])


@dataclass(frozen=True)
class CombinedResult(SearchResult):
    """score, box: of the text that decided, the one with that number among the wanted, the first of equals.
    normalised_score: what the list is ordered by."""

    normalised_score: float
    decided_by: int


@dataclass(frozen=True)
class Scale:
    """What makes one text's scores comparable. sample: [m], its scores over the gallery; calibration: or None."""

    sample: Doubles
    calibration: Calibration | None

    def normalised_score(self, scores: Doubles) -> Doubles:
        """[n] to [n]; a higher score never has a lower normalised_score."""
        spread = float(self.sample.std()) or 1.0
        if self.calibration is not None:
            return logits(self.calibration, scores, self.sample)
        deviations: Doubles = (scores - self.sample.mean()) / spread
        return deviations

    @property
    def shown(self) -> float:
        """The normalised_score from which an excluded text counts as shown."""
        return SHOWN_DEVIATIONS if self.calibration is None else SHOWN_LOGIT


def search_combined(
    index: Index,
    query: CombinedQuery,
    k: int = 50,
    where: str | None = None,
    exact: bool = False,
    calibration: Calibration | None = None,
) -> list[CombinedResult]:
    """The best k images by their normalised_score, best first, ties by id.

    Each text's best images are fetched, and all texts' exact scores of them, until k are certain: no image outside
    every list can stand as high. Large segments' lists come from their index unless `exact`, as in Index.search, which
    says as well what raises ValueError.
    """
    scales = text_scales(index, np.concatenate([query.wanted, query.none_of]), where, calibration)
    if not scales:
        return []
    depth, total = _FIRST_FETCH * k, len(index)
    while True:
        lists = [index.search(text, depth, where, exact) for text in query.wanted]
        found = _normalised_scores(index, query, scales, sorted({r.image_id for results in lists for r in results}))
        found.sort(key=lambda r: (-r.normalised_score, r.image_id))
        if depth >= total or _certain(query, scales, lists, depth, found, k):
            return [_ranked(result, rank) for rank, result in enumerate(found[:k], start=1)]
        depth *= _WIDER


def text_scales(index: Index, texts: Floats, where: str | None, calibration: Calibration | None) -> list[Scale]:
    """One for each text [n, dim], from images drawn from those that are searched; none where there is no image.

    In a gallery too small for a calibration to say anything, or where a text scores all images alike, all texts do
    without it.
    """
    samples = [index.scores(text, SAMPLE, where=where).astype(np.float64) for text in texts]
    if any(not len(sample) for sample in samples):
        return []
    usable = all(len(sample) >= MIN_SAMPLE and sample.std() > 0 for sample in samples)
    return [Scale(sample, calibration if usable else None) for sample in samples]


def combine(query: CombinedQuery, normalised_scores: Doubles) -> tuple[Doubles, list[int]]:
    """normalised_scores: [wanted, n]. Returns [n], and by image the number of the text that decided."""
    either = len(query.any_of)
    joined = np.full(normalised_scores.shape[1], np.inf)
    decided = np.zeros(normalised_scores.shape[1], np.int64)
    if either:
        joined, decided = normalised_scores[:either].max(0), normalised_scores[:either].argmax(0)
    if either < len(normalised_scores):
        every = normalised_scores[either:]
        lower = every.min(0) < joined
        joined, decided = np.minimum(joined, every.min(0)), np.where(lower, either + every.argmin(0), decided)
    return joined, decided.tolist()


def _normalised_scores(
    index: Index, query: CombinedQuery, scales: Sequence[Scale], image_ids: Sequence[str]
) -> list[CombinedResult]:
    """Of these images, without those that show an excluded text, in no order; one deleted meanwhile is left out."""
    texts = [*query.wanted, *query.none_of]
    by_text = [{r.image_id: r for r in index.search_among(image_ids, text)} for text in texts]
    there = [i for i in image_ids if all(i in results for results in by_text)]
    scores = np.array([[results[i].score for i in there] for results in by_text]).reshape(len(texts), len(there))
    normalised_scores = np.stack([scale.normalised_score(row) for scale, row in zip(scales, scores, strict=True)])
    wanted = len(query.wanted)
    joined, decided = combine(query, normalised_scores[:wanted])
    limit = np.minimum(scales[0].shown, joined)
    kept = np.flatnonzero((normalised_scores[wanted:] < limit).all(0))
    return [
        CombinedResult(**vars(by_text[decided[n]][there[n]]), normalised_score=float(joined[n]), decided_by=decided[n])
        for n in kept
    ]


def _certain(
    query: CombinedQuery,
    scales: Sequence[Scale],
    lists: Sequence[Sequence[SearchResult]],
    depth: int,
    found: Sequence[CombinedResult],
    k: int,
) -> bool:
    """Whether no image outside the lists can be among the best k: it stands no higher than each list's end."""
    if any(len(results) < depth for results in lists):
        return True  # a list of all that is searched
    ends = [scale.normalised_score(np.array([r[-1].score])) for scale, r in zip(scales, lists, strict=False)]
    bound, _ = combine(query, np.stack(ends))
    return len(found) >= k and found[k - 1].normalised_score > bound[0]


def _ranked(result: CombinedResult, rank: int) -> CombinedResult:
    return CombinedResult(**{**vars(result), "rank": rank})
