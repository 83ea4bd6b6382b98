"""Search requests: their rules, stated once, and their answers, for the command line, the service and Python."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from forclip.calibration.model import WANTED_PRECISION, Confidence
from forclip.data.images.decode import read_image
from forclip.evaluation.protocol import ClassGroup
from forclip.index import TOP_K
from forclip.index.duplicates import collapse_duplicates
from forclip.index.ranking import Ranking
from forclip.location import as_location
from forclip.search.combined import CombinedQuery
from forclip.search.labels import Relevance, StoreLabels, rank_in_whole_list
from forclip.search.searcher import AnySearcher, ListOptions, RankedText
from forclip.search.text_notes import text_notes
from forclip.text.vocabulary import did_you_mean
from forclip.types import Floats, SearchResult

_LONG_LIST = 1_000  # images; longer lists stay in columns, which take less memory than results
_COLLAPSED_DEPTH = 5  # times as many results are made if near duplicates among them are left out


class SearchError(ValueError):
    """A request that cannot be answered. The message is for the user."""


@dataclass(frozen=True)
class Cutoff:
    """Where a list ends: at a lowest cosine, or where its expected precision (0..1) falls below the value."""

    kind: Literal["score", "precision"]
    value: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchRequest:
    """What to search for, and which part of the ranked list to return.

    Args:
        text, any_of: alternatives; an image needs to match one of them.
        like: a picture instead of `text`: a file, or a query vector [dim] or picture vectors [N, dim] of unit length.
        all_of: texts that an image must match, too.
        none_of: texts whose images are left out (see forclip.search.combined).
        k, offset: return at most k images, after the first `offset` ones.
        where: an SQL expression over the store's columns.
        exact: compare every vector instead of using the approximate index.
        collapse: leave out results that are near duplicates of a better one: their lowest similarity, such as 0.95, as
            in forclip.index.duplicates. Ranks stay those of the whole list.
        min_score: lowest cosine of a result; for one text or picture.
        cutoff: where to end the list; for one text, or by score also for a picture. Implies `confidence`.
        confidence: also estimate how likely each result is right; for one text.
        right, wrong: image ids with the user's verdicts, which refine the query (see forclip.search.feedback); the
            wrong ones are left out of the list.
        exclude: image ids to leave out; for a picture.
        only: for one text that names a labelled class: return only false positives (`wrong`), or only the images of
            the class that rank below 50 (`missed`).

    Raises:
        SearchError: for options that do not go together, naming the offending value where there is one.
    """

    text: str | None = None
    like: Path | str | Floats | None = None
    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    k: int = TOP_K
    offset: int = 0
    where: str | None = None
    exact: bool = False
    collapse: float | None = None
    min_score: float = -1.0
    cutoff: Cutoff | None = None
    confidence: bool = False
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    only: Literal["wrong", "missed"] | None = None

    def __post_init__(self) -> None:
        if self.collapse is not None and not 0 < self.collapse <= 1:
            raise SearchError(f"collapse must be a similarity above 0 and at most 1, not {self.collapse}")
        if self.text is not None and self.like is not None:
            raise SearchError(f"give a text or a picture, not both: {self.text!r} and {self._like_label}")
        if not self.wanted:
            raise SearchError("nothing to search for: give a text, a picture, or texts for any_of or all_of")
        if self.is_combined and (self.cutoff is not None or self.min_score > -1):
            raise SearchError("a cut-off or a lowest score applies to one text, not to any_of, all_of or none_of")
        if self.is_combined and self.is_refined:
            raise SearchError("verdicts (right, wrong) apply to one text, not to any_of, all_of or none_of")
        if both := set(self.right) & set(self.wrong):
            raise SearchError(f"image {min(both)!r} is marked as right and as wrong")
        if self.lowest_precision is not None and self.no_confidence_reason:
            raise SearchError(f"the cut-off must be a cosine: {self.no_confidence_reason}")
        if self.only is not None and (not self.is_one_text or self.cutoff is not None):
            raise SearchError(f"only={self.only!r} applies to the whole list of one text, without cut-off or verdicts")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The wanted texts and pictures for display, alternatives first."""
        first = self.text if self.like is None else self._like_label
        return tuple(part for part in (first, *self.any_of, *self.all_of) if part is not None)

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts, also those whose images are left out."""
        return (*([] if self.text is None else [self.text]), *self.any_of, *self.all_of, *self.none_of)

    @property
    def is_combined(self) -> bool:
        """Whether the request needs more than one query vector."""
        return bool(len(self.wanted) > 1 or self.none_of)

    @property
    def is_refined(self) -> bool:
        """Whether verdicts refine the query."""
        return bool(self.right or self.wrong)

    @property
    def is_one_text(self) -> bool:
        """Whether one text alone decides the ranking. Only then confidence and labels apply."""
        return not self.no_confidence_reason

    @property
    def no_confidence_reason(self) -> str:
        """Why no calibration applies to this request; empty where one may."""
        if self.like is not None:
            return "confidence is estimated for a text, not for a picture"
        if self.is_refined:
            return "confidence is estimated for a text without verdicts"
        return "confidence is estimated for one text" if self.is_combined else ""

    @property
    def label(self) -> str:
        """The request in one line, such as "cat or dog not car"."""
        alternatives = " or ".join(self.wanted[: len(self.wanted) - len(self.all_of)])
        wanted = " and ".join(part for part in (alternatives, *self.all_of) if part)
        return wanted + "".join(f" not {text}" for text in self.none_of)

    @property
    def options(self) -> ListOptions:
        """How to make the list; deep enough that `k` images remain after those that are left out."""
        depth = (self.offset + self.k) * (1 if self.collapse is None else _COLLAPSED_DEPTH)
        depth += len(self.wrong) + len(self.exclude)
        precision = self.lowest_precision
        if precision is None and (self.confidence or self.cutoff is not None):
            precision = WANTED_PRECISION
        return ListOptions(self.where, self.exact, depth, precision)

    @property
    def lowest_precision(self) -> float | None:
        """The expected precision, 0..1, at which the cut-off ends the list; None without such a cut-off."""
        return self.cutoff.value if self.cutoff is not None and self.cutoff.kind == "precision" else None

    @property
    def _like_label(self) -> str:
        return f"like {Path(self.like).name}" if isinstance(self.like, str | Path) else "like a picture"


def parse_cutoff(text: str) -> Cutoff:
    """Parse a cut-off: `auto` (expected precision 50 %), `80%` (expected precision) or `0.31` (cosine).

    Raises:
        ValueError: for any other text, naming it.
    """
    if text == "auto":
        return Cutoff("precision", WANTED_PRECISION)
    if match := re.fullmatch(r"(-?\d*\.?\d+)(%?)", text.strip()):
        value = float(match[1])
        if match[2] and 0 <= value <= 100:
            return Cutoff("precision", value / 100)
        if not match[2] and -1 <= value <= 1:
            return Cutoff("score", value)
    raise ValueError(
        f"the cut-off must be auto, a cosine such as 0.31, or an expected precision such as 80%, not {text!r}"
    )


@dataclass(frozen=True)
class LabelledList:
    """What labels say about a list.

    relevant: for each result whether it shows the class, None where that was not checked. training_images: how many
    labelled images of the store trained its model, None if that is not known.
    """

    class_name: str
    group: ClassGroup | None
    relevance: Relevance
    relevant: tuple[bool | None, ...]
    training_images: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return everything but `relevant` as plain values; `images` is the number of images that show the class."""
        known = {"class_name": self.class_name, "group": self.group, "training_images": self.training_images}
        return {**known, **vars(self.relevance)}


@dataclass(frozen=True)
class SearchAnswer:
    """The answer to a request.

    results: the requested part of the list, best first; for a combined request they are CombinedResult.
    confidence: of the whole list, or None; no_confidence_reason: why it was requested and is None.
    num_searched: images that were searched, where confidence was requested. labels: None where labels do not apply.
    best: the first of the whole list, whatever the cut-off; None if nothing was searched. notes: sentences about texts
    that the model does not understand as a whole.
    """

    request: SearchRequest
    results: Sequence[SearchResult]
    confidence: Confidence | None = None
    no_confidence_reason: str = ""
    num_searched: int = 0
    labels: LabelledList | None = None
    best: SearchResult | None = None
    notes: tuple[str, ...] = ()

    def probability(self, result: SearchResult) -> float | None:
        """The probability that a result shows what was searched for; None where it cannot be estimated."""
        if self.confidence is None or result.rank > len(self.confidence.probabilities):
            return None
        return float(self.confidence.probabilities[result.rank - 1])


def run_search(searcher: AnySearcher, request: SearchRequest, labels: StoreLabels | None = None) -> SearchAnswer:
    """Answer one request.

    Args:
        labels: labels of the store's images, which then judge a list whose one text names a class.

    Raises:
        SearchError: for a cut-off by precision without a calibration, a picture that cannot be read, or `only` without
            labels of the text's class.
        ValueError: for a filter that is not valid SQL, or verdicts on images that the store does not have.
    """
    return run_searches(searcher, [request], labels)[0]


def run_searches(
    searcher: AnySearcher, requests: Sequence[SearchRequest], labels: StoreLabels | None = None
) -> list[SearchAnswer]:
    """Answer several requests, as `run_search` answers each. Single texts with equal options are searched together."""
    for request in requests:
        if request.lowest_precision is not None and searcher.model.calibration is None:
            name = searcher.model.name
            needed = "the cut-off must be a score, such as 0.3"
            raise SearchError(f"{name}: this model gives scores but no probabilities, so {needed}")
        depth, most = request.options.depth, searcher.index.most_results
        if most is not None and depth > most and not request.is_combined and len(searcher.index) > most:
            wanted = f"k {request.k}" + (f" after the first {request.offset}" if request.offset else "")
            raise SearchError(f"{wanted} needs a list of {depth} images, and {searcher.index.name} has at most {most}")
    ranked: dict[int, RankedText] = {}
    single = [n for n, request in enumerate(requests) if request.is_one_text]
    for options in dict.fromkeys(requests[n].options for n in single):
        group = [n for n in single if requests[n].options == options]
        lists = searcher.rank_texts([requests[n].wanted[0] for n in group], options)
        ranked |= zip(group, lists, strict=True)
    answers = [
        _answer_text(searcher, request, ranked[n], labels) if n in ranked else _answer_other(searcher, request)
        for n, request in enumerate(requests)
    ]
    return [replace(answer, notes=text_notes(searcher, answer.request.texts)) for answer in answers]


def labelled_class(request: SearchRequest, labels: StoreLabels) -> int:
    """The column of the class that a request's one text names.

    Raises:
        SearchError: where the request is not for one text, or its text names no class.
    """
    if not request.is_one_text:
        raise SearchError(f"labels apply to the list of one text, not to {request.label!r} or to verdicts")
    if (column := labels.class_of(request.wanted[0])) is None:
        suggestion = did_you_mean(request.label, labels.images.class_names)
        raise SearchError(f"{request.label!r} is no class of the labels{suggestion}")
    return column


def _answer_text(
    searcher: AnySearcher, request: SearchRequest, ranked: RankedText, labels: StoreLabels | None
) -> SearchAnswer:
    results: Sequence[SearchResult] = ranked.results
    confidence, options, reason = ranked.confidence, request.options, ""
    best = next(iter(ranked.results), None)
    if request.lowest_precision is not None and confidence is not None:
        results = results[: confidence.cutoff]
    num_searched = searcher.index.count(request.where) if options.precision is not None else 0
    if num_searched and confidence is None:
        reason = f"{num_searched} images are too few, or score too much alike, to estimate it"
        reason = "this model has no calibration" if searcher.model.calibration is None else reason
    column = None if labels is None else labels.class_of(request.wanted[0])
    if labels is None or column is None:
        if request.only is not None:
            raise SearchError(f"{request.label!r} names no class of the labels: no image is known to be {request.only}")
        return SearchAnswer(request, _page(searcher, request, results), confidence, reason, num_searched, best=best)
    vector = searcher.encode_text(request.wanted[0])
    relevance = searcher.evaluate_list(labels, column, vector, options)
    if request.only is not None:
        confidence = None
        ids = relevance.missed if request.only == "missed" else labels.checked(column, shows=False)
        k = None if request.only == "missed" else options.depth
        results = rank_in_whole_list(searcher.index, ids, vector, k, request.where)
    page = _page(searcher, request, results)
    name = labels.images.class_names[column]
    relevant = tuple(labels.shows(r.image_id, column) for r in page)
    labelled = LabelledList(name, labels.groups.get(name), relevance, relevant, labels.num_training)
    return SearchAnswer(request, page, confidence, reason, num_searched, labelled, best)


def _answer_other(searcher: AnySearcher, request: SearchRequest) -> SearchAnswer:
    """Answer a request for a picture, for several texts, or with verdicts."""
    results: Sequence[SearchResult]
    options = request.options
    if request.is_combined:
        results = searcher.rank_combined(combined_query(searcher, request), options)
    else:
        query = searcher.encode_text(request.wanted[0]) if request.like is None else _picture_vectors(searcher, request)
        if request.is_refined:
            start = most_distinct_vector(query) if query.ndim > 1 else query
            query = searcher.refine(start, request.right, request.wrong, request.where)
        results = searcher.rank(query, options)
        left_out = {*request.wrong, *request.exclude}
        if left_out:
            kept = (r for r in results if r.image_id not in left_out)
            results = [replace(r, rank=rank) for rank, r in enumerate(kept, start=1)]
    page, best = _page(searcher, request, results), next(iter(results), None)
    if options.precision is None:
        return SearchAnswer(request, page, best=best)
    num_searched = searcher.index.count(request.where)
    return SearchAnswer(request, page, None, request.no_confidence_reason, num_searched, best=best)


def most_distinct_vector(vectors: Floats) -> Floats:
    """Return the vector [dim] that is least similar to the mean of an image's unit vectors [N, dim].

    It represents the image where only one vector can be searched with.
    """
    vector: Floats = vectors[np.argmin(vectors @ vectors.mean(0))]
    return vector


def combined_query(searcher: AnySearcher, request: SearchRequest) -> CombinedQuery:
    """The vectors of a combined request. A picture counts as one alternative, by its most distinct vector."""
    vectors: list[Floats] = []
    if request.like is not None:
        vectors.append(most_distinct_vector(np.atleast_2d(_picture_vectors(searcher, request)))[None])
    if texts := [*request.wanted[len(vectors) :], *request.none_of]:
        vectors.append(searcher.encode_texts(texts))
    num_wanted = len(request.wanted)
    parts = np.split(np.concatenate(vectors), [num_wanted - len(request.all_of), num_wanted])
    return CombinedQuery(*parts)


def _picture_vectors(searcher: AnySearcher, request: SearchRequest) -> Floats:
    """Vectors of the request's picture: [N, dim], or [dim] where a region's vector was given."""
    if isinstance(request.like, str | Path):
        return searcher.encode_image(read_image(as_location(request.like)))
    assert request.like is not None
    return request.like


def _page(searcher: AnySearcher, request: SearchRequest, results: Sequence[SearchResult]) -> Sequence[SearchResult]:
    lowest = request.min_score
    if request.cutoff is not None and request.cutoff.kind == "score":
        lowest = max(lowest, request.cutoff.value)
    end = request.offset + request.k
    if request.collapse is not None:
        results = collapse_duplicates(searcher.index, results, request.collapse, end)
    part = results[request.offset : end]
    if isinstance(part, Ranking) and len(part) > _LONG_LIST:
        return part[: int(np.count_nonzero(part.scores >= lowest))]
    return [result for result in part if result.score >= lowest]
