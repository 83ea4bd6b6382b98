"""Search by text, by an image of the store, and by an uploaded picture."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Response

from forclip.calibration.model import Confidence
from forclip.index.threads import one_core
from forclip.server import limits
from forclip.server.batches import Batches, SearchThreads
from forclip.server.errors import Refused
from forclip.server.found import Found, find, find_judged, how_asked, is_quick
from forclip.server.gallery import Described, Gallery
from forclip.server.likeness import like_image
from forclip.server.list_labels import LabelledLists
from forclip.server.pictures import decoded
from forclip.server.ranker import Ranker
from forclip.server.schemas import (
    ConfidenceOut,
    ListRequest,
    Problem,
    SearchAnswer,
    SearchRequest,
    SimilarRequest,
    UploadRequest,
    box_fields,
)
from forclip.types import SearchResult

_TOGETHER = 32


@dataclass(frozen=True, eq=False)
class _Quick:
    request: SearchRequest
    started: float


def search_routes(ranker: Ranker, gallery: Gallery, labelled: LabelledLists) -> APIRouter:
    """Under /api."""
    routes, threads = APIRouter(prefix="/api", tags=["search"]), SearchThreads()

    def searched(request: SearchRequest, started: float) -> Response:
        found = find(ranker, gallery, labelled, request)
        return _sent(labelled.told(_answer(gallery, request, found, started), found.best, found.by_labels))

    def searched_together(quick: Sequence[_Quick]) -> list[Response]:
        with one_core():
            ranker.learn_lists((q.request.texts[0], how_asked(q.request)) for q in quick)
            return [searched(q.request, q.started) for q in quick]

    batches: Batches[_Quick, Response] = Batches(searched_together, "searches", _TOGETHER)

    @routes.post("/search", response_model=SearchAnswer, responses={404: {"model": Problem}})
    async def search(request: SearchRequest) -> Response:
        """The images that best match a text or several, the place in each, and how far down the list to trust."""
        started = time.perf_counter()
        if is_quick(request, labelled):
            return await batches.awaited(_Quick(request, started))
        await ranker.learn_texts([*request.texts, *request.none_of])
        return await threads.run(lambda: searched(request, started))

    refusals: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (404, 409, 415)}

    @routes.post("/similar", response_model=SearchAnswer, responses=refusals)
    async def similar(request: SimilarRequest) -> Response:
        """More images like one of the store, or like a place in it. The image itself is left out."""
        started = time.perf_counter()

        def searched() -> Response:
            query = like_image(ranker, gallery, gallery.one(request.key), request.box)
            (itself,) = gallery.ids_of_keys([request.key])
            return _sent(_answer(gallery, request, find_judged(ranker, gallery, request, query, itself), started))

        return searched()

    @routes.post("/similar/upload", response_model=SearchAnswer)
    def similar_to_upload(request: Annotated[UploadRequest, Form(media_type="multipart/form-data")]) -> Response:
        """Images like an uploaded picture, which is not kept."""
        started = time.perf_counter()
        content = request.picture.file.read(limits.UPLOAD_BYTES + 1)
        if len(content) > limits.UPLOAD_BYTES:
            raise Refused(413, f"a picture may have at most {limits.UPLOAD_BYTES} bytes")
        query = ranker.picture_vectors(decoded(content, 400, "the uploaded file"))
        return _sent(_answer(gallery, request, Found(ranker.ranked(query, how_asked(request))), started))

    return routes


def _sent(answer: SearchAnswer) -> Response:
    """As it is: FastAPI would look through it a second time, which takes longer than many a search."""
    return Response(answer.model_dump_json(), media_type="application/json")


def _answer(gallery: Gallery, request: ListRequest, found: Found, started: float) -> SearchAnswer:
    page = found.page(request)
    described = gallery.described_page([r.key for r in page])
    # One that was deleted since the list was made is left out.
    there = [(r, described[r.key]) for r in page if r.key in described]
    # Checked as a whole: that takes a fraction of the time that all its parts would, one by one.
    return SearchAnswer.model_validate(
        {
            "results": [_result(r, image, found.probability(r)) for r, image in there],
            "confidence": None if found.confidence is None else _told(found.confidence),
            "images": len(gallery.index),
            "milliseconds": (time.perf_counter() - started) * 1000,
        }
    )


def _result(found: SearchResult, image: Described, probability: float | None) -> dict[str, Any]:
    return {
        "key": str(image.key),
        "rank": found.rank,
        "score": found.score,
        "probability": probability,
        "box": box_fields(found.box),
        "name": image.name,
        "width": image.width,
        "height": image.height,
        "metadata": image.own,
    }


def _told(confidence: Confidence) -> ConfidenceOut:
    return ConfidenceOut(
        cutoff=confidence.cutoff, expected_images=confidence.expected_images, nothing_here=confidence.nothing_here
    )
