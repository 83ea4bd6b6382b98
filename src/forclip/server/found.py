"""From a request to the ranked list that answers it, and what is believed of that list."""

from collections.abc import Sequence
from dataclasses import dataclass

from forclip.calibration.model import Confidence
from forclip.index.ranking import exclude_images
from forclip.search.labels import Relevance
from forclip.server.errors import Refused
from forclip.server.gallery import Gallery
from forclip.server.judged_lists import KEPT_DEPTH, Asked
from forclip.server.list_labels import LabelledLists
from forclip.server.ranker import Ranker
from forclip.server.schemas import JudgedRequest, ListRequest, SearchRequest
from forclip.types import Floats, SearchResult


@dataclass(frozen=True)
class Found:
    """best: from the first image on, at least as deep as requested. confidence: of all of them, or None. by_labels:
    what labels say of the text's whole list, or None."""

    best: Sequence[SearchResult]
    confidence: Confidence | None = None
    by_labels: Relevance | None = None

    def page(self, request: ListRequest) -> list[SearchResult]:
        """The part that was asked for."""
        part = self.best[request.offset : request.offset + request.k]
        return [r for r in part if r.score >= request.min_score]

    def probability(self, found: SearchResult) -> float | None:
        """That one of `best` shows what was asked for, where that can be said."""
        sure = self.confidence.probabilities if self.confidence is not None else ()
        return float(sure[found.rank - 1]) if found.rank <= len(sure) else None


def find(ranker: Ranker, gallery: Gallery, labelled: LabelledLists, request: SearchRequest) -> Found:
    """By one text, by several, or by one and the images judged; labels say nothing of the last, which lacks images.

    Raises Refused as Ranker and LabelledLists do, and 400 for a cut-off where none can be recommended.
    """
    asked = how_asked(request)
    if request.is_combined:
        query = ranker.query(request.alternatives, request.all_of, request.none_of)
        return Found(ranker.combined(query, asked))
    (text,) = request.texts
    vector = ranker.text_vector(text)
    if request.is_refined:
        return find_judged(ranker, gallery, request, vector)
    judged = ranker.judged(text, asked)
    best, confidence = judged.best, judged.confidence
    if request.cutoff == "auto":
        if confidence is None:
            raise Refused(400, "there is no recommended cut-off: the model or the store is not fit for one")
        best = best[: confidence.cutoff]
    by_labels = labelled.judged(text, vector, asked)
    if request.only is not None:
        return Found(labelled.mistakes(request.only, by_labels, vector, asked), None, by_labels)
    return Found(best, confidence, by_labels)


def is_quick(request: SearchRequest, labelled: LabelledLists) -> bool:
    """Whether it takes no more than a list that is kept, or is found through the index: some milliseconds."""
    plain = not (request.is_combined or request.is_refined or request.exact or request.where is not None)
    return plain and how_asked(request).depth <= KEPT_DEPTH and not any(map(labelled.know, request.texts))


def find_judged(ranker: Ranker, gallery: Gallery, request: JudgedRequest, query: Floats, *left_out: str) -> Found:
    """query: as Ranker.ranked takes it, asked anew by what was judged, where anything was. Without these ids and those
    that are wrong. Raises Refused, 404, for an image that is gone."""
    right, wrong = gallery.ids_of_keys(request.right), gallery.ids_of_keys(request.wrong)
    if request.is_refined:
        query = ranker.refined(query, right, wrong, request.where)
    gone = {*left_out, *wrong}
    return Found(exclude_images(ranker.ranked(query, how_asked(request, more=len(gone))), gone))


def how_asked(request: ListRequest, more: int = 0) -> Asked:
    """more: how many images of the list may be left out afterwards."""
    return Asked(request.where, request.exact, request.offset + request.k + more)
