"""One search as a user asks for it, and its answer: texts or a picture, filters, a cut-off, how sure."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from forclip.calibration.model import WANTED_PRECISION, Confidence
from forclip.data.images.decode import read_image
from forclip.index.in_memory import most_distinct_vector
from forclip.index.ranking import exclude_images
from forclip.search.combined import CombinedQuery, in_words, search_combined
from forclip.search.feedback import refined_query
from forclip.search.labels import ClassGroup, Relevance, StoreLabels, judge_by_labels
from forclip.search.searcher import Searcher
from forclip.text.vocabulary import did_you_mean
from forclip.types import Floats, SearchResult


@dataclass(frozen=True)
class Cutoff:
    """Where a list ends: at a cosine, or where its expected precision falls below the wanted one, 0..1."""

    kind: Literal["score", "precision"]
    value: float


@dataclass(frozen=True)
class SearchRequest:
    """What to look for: a text or a picture like it, and more texts.

    text and any_of are alternatives of each other; all_of must be shown too; none_of leaves images out
    (forclip.search.combined). k: at most so many images; where, exact: as Index.search takes them; min_score: of one
    text, the lowest cosine; cutoff: where to end the list, and to say how sure it is, or None. right, wrong: ids of
    images that were judged, by which one text or picture is asked for anew (forclip.search.feedback); the wrong ones
    are left out.
    """

    text: str | None = None
    like: Path | None = None
    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    k: int = 50
    where: str | None = None
    exact: bool = False
    min_score: float = -1.0
    cutoff: Cutoff | None = None
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.text is not None and self.like is not None:
            raise ValueError(f"give a text or --like, not both: {self.text!r} and {self.like}")
        if not self.wanted:
            raise ValueError("nothing is wanted: give a text, --like, --any or --all")
        if self.is_combined and (self.cutoff is not None or self.min_score > -1):
            raise ValueError("a cut-off or a lowest score is of one text: without --any, --all and --not")
        if self.is_combined and self.is_refined:
            raise ValueError("picks are right or wrong for one text: without --any, --all and --not")
        if self.why_unsure and self.cutoff is not None and self.cutoff.kind == "precision":
            raise ValueError(self.why_unsure)

    @property
    def wanted(self) -> tuple[str, ...]:
        """In a reader's words, alternatives first."""
        first = self.text if self.like is None else f"like {self.like.name}"
        return (*(() if first is None else (first,)), *self.any_of, *self.all_of)

    @property
    def is_combined(self) -> bool:
        """Whether it takes more than one vector."""
        return bool(len(self.wanted) > 1 or self.none_of)

    @property
    def is_refined(self) -> bool:
        """Whether there are picks."""
        return bool(self.right or self.wrong)

    @property
    def why_unsure(self) -> str:
        """Why no calibration fits it, or nothing."""
        if self.like is not None:
            return f"how sure a list is can be said of a text, not of a picture like {self.like}"
        return "how sure a list is can be said of a text, not of one with picks" if self.is_refined else ""

    @property
    def label(self) -> str:
        """What is looked for, in one line."""
        first = self.wanted[: len(self.wanted) - len(self.all_of)]
        return in_words(first, self.all_of, self.none_of)


@dataclass(frozen=True)
class ByLabels:
    """What labels say of the list. verdicts: one for each result, None where nobody has checked it."""

    class_name: str
    group: ClassGroup | None
    relevance: Relevance
    verdicts: tuple[bool | None, ...]


@dataclass(frozen=True)
class Answer:
    """results: best first; those of a combined query are CombinedResult. asked: a confidence was asked for; confidence:
    of the best k, before the cut, None where it can't be said; why_unsure: the reason then; kept: its probabilities;
    gallery: images that were searched, where asked; by_labels: None where no labels are at hand."""

    request: SearchRequest
    results: list[SearchResult]
    confidence: Confidence | None = None
    why_unsure: str = ""
    gallery: int = 0
    by_labels: ByLabels | None = None

    @property
    def probabilities(self) -> list[float]:
        """One for each result, or none at all."""
        return [] if self.confidence is None else self.confidence.probabilities[: len(self.results)].tolist()


def parse_cutoff(text: str) -> Cutoff:
    """`auto` is an expected precision of one half; `80%` another one; `0.31` a cosine. Raises ValueError for others."""
    if text == "auto":
        return Cutoff("precision", WANTED_PRECISION)
    match = re.fullmatch(r"(-?\d*\.?\d+)(%?)", text.strip())
    value = float(match[1]) if match else np.inf
    if match and match[2] and 0 <= value <= 100:
        return Cutoff("precision", value / 100)
    if match and not match[2] and -1 <= value <= 1:
        return Cutoff("score", value)
    raise ValueError(
        f"the cut-off must be auto, a cosine such as 0.31, or an expected precision such as 80%, not {text!r}"
    )


def answer(searcher: Searcher, request: SearchRequest) -> Answer:
    """Raises ValueError as Searcher and search_combined do, for a picture that can't be read, and for a cut-off by
    precision with a model that has no calibration."""
    if request.is_combined:
        found = search_combined(
            searcher.index,
            combined_vectors(searcher, request),
            request.k,
            request.where,
            request.exact,
            searcher.model.calibration,
        )
        return Answer(request, list(found))
    cutoff = request.cutoff
    if cutoff is not None and cutoff.kind == "precision" and searcher.model.calibration is None:
        raise ValueError(
            f"{searcher.model.name}: this model has no calibration, so the cut-off must be a cosine, such as 0.3"
        )
    if request.like is not None and not request.is_refined:
        return _like_a_picture(searcher, request, request.like)
    query = _wanted_vectors(searcher, request)[0]
    if request.is_refined:
        query = refined_query(searcher.index, query, request.right, request.wrong, request.where)
    more = request.k + len(request.wrong)
    found_first = searcher.search_vector(query, more, request.min_score, request.where, request.exact)
    results = exclude_images(found_first, set(request.wrong))[: request.k]
    return Answer(request, results) if cutoff is None else _cut(searcher, request, query, results, cutoff)


def _like_a_picture(searcher: Searcher, request: SearchRequest, picture: Path) -> Answer:
    """Several vectors ask at once, so that nothing is said of how sure the list is."""
    found = searcher.search_image(read_image(picture), request.k, request.min_score, request.where, request.exact)
    cutoff = request.cutoff
    kept = found if cutoff is None else [r for r in found if r.score >= cutoff.value]
    return Answer(request, kept, why_unsure=request.why_unsure, gallery=searcher.index.count(request.where))


def _cut(
    searcher: Searcher, request: SearchRequest, query: Floats, results: list[SearchResult], cutoff: Cutoff
) -> Answer:
    """Judged, and cut where that says or at the score."""
    wanted = cutoff.value if cutoff.kind == "precision" else WANTED_PRECISION
    gallery = searcher.index.count(request.where)
    scores = np.array([r.score for r in results])
    confidence = searcher.judge(query, scores, request.where, wanted) if not request.why_unsure else None
    reason = _why_unsure(searcher, request, gallery) if confidence is None else ""
    if cutoff.kind == "score":
        results = [r for r in results if r.score >= cutoff.value]
    elif confidence is not None:
        results = results[: confidence.cutoff]
    return Answer(request, results, confidence, reason, gallery)


def _why_unsure(searcher: Searcher, request: SearchRequest, gallery: int) -> str:
    if request.why_unsure:
        return request.why_unsure
    if searcher.model.calibration is None:
        return "this model has no calibration"
    return f"{gallery} images are too few, or score too much alike, to say how sure this is"


def combined_vectors(searcher: Searcher, request: SearchRequest) -> CombinedQuery:
    """Raises ValueError for an empty text or a picture that can't be read."""
    wanted = _wanted_vectors(searcher, request)
    first = len(wanted) - len(request.all_of)
    none = np.zeros((0, searcher.model.dim), np.float32)
    excluded = [searcher.encode_text(text) for text in request.none_of]
    return CombinedQuery(wanted[:first], wanted[first:], np.stack(excluded) if excluded else none)


def _wanted_vectors(searcher: Searcher, request: SearchRequest) -> Floats:
    """[wanted, dim]."""
    like = [] if request.like is None else [most_distinct_vector(searcher.encode_image(read_image(request.like)))]
    texts = (*(() if request.text is None else (request.text,)), *request.any_of, *request.all_of)
    return np.stack([*like, *(searcher.encode_text(text) for text in texts)])


def with_labels(searcher: Searcher, found: Answer, labels: StoreLabels) -> Answer:
    """The answer with what the labels say of it. Raises ValueError for a search that is not for one text alone, and for
    a text that names no class."""
    request = found.request
    if request.text is None or request.is_combined or request.is_refined:
        raise ValueError(f"labels are compared with one text's list, not with {request.label!r} or with picks")
    names, column = labels.images.class_names, labels.class_of(request.text)
    if column is None:
        raise ValueError(f"{request.text!r} names no class of the labels{did_you_mean(request.text, names)}")
    query = searcher.encode_text(request.text)
    relevance = judge_by_labels(searcher.index, labels, column, query, request.where, request.exact)
    verdicts = tuple(labels.shows(r.image_id, column) for r in found.results)
    return replace(found, by_labels=ByLabels(names[column], labels.groups.get(names[column]), relevance, verdicts))
