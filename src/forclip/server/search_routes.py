"""Search by text, by an image of the store, and by an uploaded picture."""

import time
from typing import Annotated

import numpy as np
from fastapi import APIRouter, File, Form, UploadFile

from forclip.combined_queries import CombinedQuery
from forclip.confidence import Judgement
from forclip.index.ranking import without
from forclip.server import limits
from forclip.server.gallery import Described, Gallery
from forclip.server.list_labels import LabelledLists
from forclip.server.pictures import decoded, picture_bytes
from forclip.server.ranker import Asked, Ranker
from forclip.server.refusals import Refused
from forclip.server.schemas import (
    Box,
    JudgedRequest,
    JudgementOut,
    ListRequest,
    Problem,
    Result,
    SearchAnswer,
    SearchRequest,
    SimilarRequest,
)
from forclip.types import Floats, SearchResult


def search_routes(ranker: Ranker, gallery: Gallery, labelled: LabelledLists) -> APIRouter:
    """Under /api."""
    routes = APIRouter(prefix="/api", tags=["search"])

    @routes.post("/search", responses={404: {"model": Problem}})
    def search(request: SearchRequest) -> SearchAnswer:
        """The images that best match a text or several, the place in each, and how far down the list to trust."""
        started = time.perf_counter()
        asked = _asked(request)
        if request.is_combined:
            return _answer(gallery, request, ranker.combined(_combined(ranker, request), asked), None, started)
        (text,) = [*request.alternatives, *request.all_of]
        vector = ranker.text_vector(text)
        if request.is_refined:
            return _answer(gallery, request, _refined(ranker, gallery, request, vector), None, started)
        kept, judgement = ranker.judged(vector, asked)
        if request.cutoff == "auto":
            if judgement is None:
                raise Refused(400, "there is no recommended cut-off: the model or the store is not fit for one")
            kept = kept[: judgement.cutoff]
        by_labels = labelled.judged(text, vector, asked)
        if request.only is not None:
            kept, judgement = labelled.mistakes(request.only, by_labels, vector, asked), None
        return labelled.told(_answer(gallery, request, kept, judgement, started), kept, by_labels)

    @routes.post("/similar", responses={404: {"model": Problem}, 409: {"model": Problem}, 415: {"model": Problem}})
    def similar(request: SimilarRequest) -> SearchAnswer:
        """More images like one of the store, or like a place in it. The image itself is left out."""
        started = time.perf_counter()
        image = gallery.one(request.key)
        vector = gallery.vector(image.number) if request.box is None else _place_vector(ranker, image, request.box)
        (itself,) = gallery.ids_of_keys([request.key])
        best = _refined(ranker, gallery, request, vector, itself)
        return _answer(gallery, request, best, None, started)

    @routes.post("/similar/upload")
    def similar_to_upload(
        picture: Annotated[UploadFile, File(description="A picture of at most 20 MB.")],
        k: Annotated[int, Form(ge=1, le=limits.K)] = 50,
        offset: Annotated[int, Form(ge=0, le=limits.OFFSET)] = 0,
    ) -> SearchAnswer:
        """Images like an uploaded picture, which is not kept."""
        started = time.perf_counter()
        content = picture.file.read(limits.UPLOAD_BYTES + 1)
        if len(content) > limits.UPLOAD_BYTES:
            raise Refused(413, f"a picture may have at most {limits.UPLOAD_BYTES} bytes")
        vector = ranker.picture_vector(decoded(content, 400, "the uploaded file"))
        request = ListRequest(k=k, offset=offset, where=None, min_score=-1.0, exact=False)
        return _answer(gallery, request, ranker.ranked(vector, _asked(request)), None, started)

    return routes


def _asked(request: ListRequest, more: int = 0) -> Asked:
    return Asked(request.where, request.exact, request.offset + request.k + more)


def _combined(ranker: Ranker, request: SearchRequest) -> CombinedQuery:
    none = np.zeros((0, ranker.searcher.model.dim), np.float32)
    parts = (request.alternatives, request.all_of, request.none_of)
    any_of, all_of, none_of = (np.stack([ranker.text_vector(t) for t in texts]) if texts else none for texts in parts)
    return CombinedQuery(any_of, all_of, none_of)


def _place_vector(ranker: Ranker, image: Described, box: Box) -> Floats:
    """Of a crop, at least a pixel wide and high."""
    picture = decoded(picture_bytes(image.file), 415, "the picture")
    width, height = picture.size
    left, top = int(box.x0 * width), int(box.y0 * height)
    right, bottom = max(left + 1, round(box.x1 * width)), max(top + 1, round(box.y1 * height))
    return ranker.picture_vector(picture.crop((left, top, right, bottom)))


def _refined(
    ranker: Ranker, gallery: Gallery, request: JudgedRequest, vector: Floats, *left_out: str
) -> list[SearchResult]:
    """Asked anew by what was judged, where anything was; without these ids and those that are wrong."""
    right, wrong = gallery.ids_of_keys(request.right), gallery.ids_of_keys(request.wrong)
    if request.is_refined:
        vector = ranker.refined(vector, right, wrong, request.where)
    gone = {*left_out, *wrong}
    return without(ranker.ranked(vector, _asked(request, more=len(gone))), gone)


def _answer(
    gallery: Gallery, request: ListRequest, best: list[SearchResult], judgement: Judgement | None, started: float
) -> SearchAnswer:
    page = [r for r in best[request.offset : request.offset + request.k] if r.score >= request.min_score]
    described = gallery.described_page([r.image_id for r in page])
    # One that was deleted since the list was made is left out.
    there = [(r, described[r.image_id]) for r in page if r.image_id in described]
    return SearchAnswer(
        results=[_result(r, image, judgement) for r, image in there],
        judgement=None if judgement is None else _told(judgement),
        images=len(gallery.index),
        milliseconds=(time.perf_counter() - started) * 1000,
    )


def _result(found: SearchResult, image: Described, judgement: Judgement | None) -> Result:
    sure = judgement.probabilities if judgement is not None else ()
    return Result(
        key=str(image.number),
        rank=found.rank,
        score=found.score,
        probability=float(sure[found.rank - 1]) if found.rank <= len(sure) else None,
        box=_box(found.box),
        name=image.name,
        width=image.file.width,
        height=image.file.height,
        metadata=image.own,
    )


def _box(edges: tuple[float, float, float, float] | None) -> Box | None:
    if edges is None or edges[0] >= edges[2] or edges[1] >= edges[3]:
        return None
    x0, y0, x1, y1 = (min(1.0, max(0.0, edge)) for edge in edges)
    return Box(x0=x0, y0=y0, x1=x1, y1=y1)


def _told(judgement: Judgement) -> JudgementOut:
    return JudgementOut(
        cutoff=judgement.cutoff, expected_images=judgement.expected_images, nothing_here=judgement.nothing_here
    )
