"""Search by text, by an image of the store or a region of it, and by an uploaded picture."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Form, Request, Response

from forclip.embedding.regions import overlaps
from forclip.index.threads import cores, one_core
from forclip.index.view import NotIndexed
from forclip.one_line import one_line
from forclip.search.labels import StoreLabels
from forclip.search.request import SearchAnswer, SearchError, SearchRequest, run_search, run_searches
from forclip.search.several_images import common_vector
from forclip.server import limits
from forclip.server.answers import STREAMED, Answers, wants_lines
from forclip.server.batches import Batches
from forclip.server.cached_searcher import KEPT_DEPTH, CachedSearcher
from forclip.server.errors import Refused
from forclip.server.gallery import NO_IMAGES, Gallery, StoredImage
from forclip.server.pictures import decode, picture_bytes
from forclip.server.schemas import Box, Problem, SearchBody, SearchOut, SimilarBody, UploadBody
from forclip.types import Floats, SearchResult

_MAX_SEARCH_THREADS = 4  # half of a search is Python code, which runs in one thread at a time
_SAME_REGION = 0.3  # intersection over union


class SearchService:
    """Runs requests on one store, with labels if there are any."""

    def __init__(self, searcher: CachedSearcher, gallery: Gallery, labels: StoreLabels | None) -> None:
        self.searcher, self.gallery, self.labels = searcher, gallery, labels
        self.answers = Answers(gallery)

    def answer(self, request: SearchRequest) -> SearchAnswer:
        """Answer a request. Raises Refused (400) for what is wrong with it."""
        with self.public_errors(request):
            answer = run_search(self.searcher, request, self.labels)
        if request.cutoff is not None and answer.confidence is None:
            raise Refused(400, f"there is no recommended cut-off: {answer.no_confidence_reason}")
        return answer

    @contextmanager
    def public_errors(self, request: SearchRequest) -> Iterator[None]:
        """Turn an error that a client or the store's owner can mend into one for the client. Other errors are ours."""
        try:
            yield
        except ValueError as error:
            if request.where is None and not isinstance(error, SearchError | NotIndexed):
                raise
            folder, status = self.searcher.index.name, 503 if isinstance(error, NotIndexed) else 400
            message = one_line(error).replace(f"{folder}: ", "").replace(folder, "the store")
            raise Refused(status, message) from None

    def is_quick(self, request: SearchRequest) -> bool:
        """Whether the request takes some milliseconds: a list that is kept or comes from the approximate index."""
        if not request.is_one_text or request.exact or request.where is not None or request.cutoff is not None:
            return False
        if request.collapse is not None:
            return False
        labelled = self.labels is not None and self.labels.class_of(request.wanted[0]) is not None
        return not labelled and request.only is None and request.options.depth <= KEPT_DEPTH

    def request(self, body: SearchBody | SimilarBody) -> SearchRequest:
        """The request of a search for texts, or for images like one of the store."""
        if isinstance(body, SimilarBody):
            return self.similar_request(body)
        return body.to_request(self.gallery.ids_of_keys)

    def above(self, answer: SearchAnswer, min_probability: float | None) -> list[SearchResult]:
        """The results with at least a probability; all for None. Raises Refused (400) for a list without any."""
        if min_probability is None:
            return list(answer.results)
        if answer.confidence is None:
            raise Refused(400, f"this list has no probabilities: {answer.no_confidence_reason}")
        return [r for r in answer.results if (answer.probability(r) or 0.0) >= min_probability]

    def similar_request(self, body: SimilarBody) -> SearchRequest:
        """The request for more images like those that a body names, which are left out.

        Raises:
            Refused: 404 for an image that was deleted, and as `query_vectors`.
        """
        liked = self.gallery.ids_of_keys(body.liked)
        others: dict[str, Any] = {"exclude": tuple(liked)}
        if len(liked) == 1:
            vectors = self.query_vectors(self.gallery.one(body.liked[0]), body.box)
        else:
            stored = self.searcher.index.image_vectors(liked)
            if len(stored) < len(liked):
                raise Refused(404, NO_IMAGES)
            vectors = common_vector(self.searcher.index, [stored[image_id] for image_id in liked])
            if body.right or body.wrong:  # verdicts then refine a query for images that are known to be right
                wrong = set(self.gallery.ids_of_keys(body.wrong))
                right = [*self.gallery.ids_of_keys(body.right), *(i for i in liked if i not in wrong)]
                others["right"] = tuple(dict.fromkeys(right))
        return body.to_request(self.gallery.ids_of_keys, like=vectors, **others)

    def upload_request(self, body: UploadBody) -> SearchRequest:
        """The request for images like an uploaded picture.

        Raises:
            Refused: 413 for a file that is too large, 400 for one that is no picture.
        """
        content = body.picture.file.read(limits.UPLOAD_BYTES + 1)
        if len(content) > limits.UPLOAD_BYTES:
            raise Refused(413, f"a picture may have at most {limits.UPLOAD_BYTES} bytes")
        return body.to_request(like=self.searcher.encode_image(decode(content, 400, "the uploaded file")))

    def query_vectors(self, image: StoredImage, box: Box | None) -> Floats:
        """The vectors to search for images like this one with: all of its vectors, [N, dim].

        For a region the stored vector [dim] that looks there; where none does, all vectors of the crop, [N, dim]. The
        stored vector comes first because a model that was trained on whole pictures finds less with small crops.

        Raises:
            Refused: 404 for an image that was deleted, 409 or 415 where its picture changed or cannot be read.
        """
        vectors, regions = self.gallery.vectors(image.key)
        if box is None:
            return vectors
        shared = overlaps(np.array([box.x0, box.y0, box.x1, box.y1], np.float32), regions)
        nearest = int(np.argmax(shared))
        if shared[nearest] >= _SAME_REGION:
            region_vector: Floats = vectors[nearest]
            return region_vector
        picture = decode(picture_bytes(image.file), 415, "the picture")
        width, height = picture.size
        left, top = int(box.x0 * width), int(box.y0 * height)
        right, bottom = max(left + 1, round(box.x1 * width)), max(top + 1, round(box.y1 * height))
        return self.searcher.encode_image(picture.crop((left, top, right, bottom)))


def search_routes(service: SearchService) -> APIRouter:
    """Routes below /api. No search runs on the event loop."""
    routes, gallery = APIRouter(prefix="/api", tags=["search"]), service.gallery
    # Others wait in order of arrival: many threads would compete for Python's lock.
    limiter = CapacityLimiter(min(cores(), _MAX_SEARCH_THREADS))

    def run_quick(batch: Sequence[tuple[SearchRequest, float]]) -> list[Response]:
        with one_core():
            answers = run_searches(service.searcher, [request for request, _ in batch], service.labels)
            return [service.answers.render(a, started) for a, (_, started) in zip(answers, batch, strict=True)]

    # Requests are compared by identity, so that each gets an answer of its own.
    batches: Batches[tuple[SearchRequest, float], Response] = Batches(run_quick, "searches", most=32)

    def answer(make_request: Callable[[], SearchRequest], lines: bool, started: float) -> Response:
        with one_core():
            return service.answers.render(service.answer(make_request()), started, lines)

    async def run(make_request: Callable[[], SearchRequest], http: Request) -> Response:
        return await to_thread.run_sync(answer, make_request, wants_lines(http), time.perf_counter(), limiter=limiter)

    streamed: dict[int | str, dict[str, Any]] = {200: STREAMED}

    @routes.post("/search", response_model=SearchOut, responses=streamed | {404: {"model": Problem}})
    async def search(body: SearchBody, http: Request) -> Response:
        """The images that best match a text or several, the region in each, and how far down the list to trust.

        With `Accept: application/x-ndjson` the answer has a line of JSON for each result, and nothing else.
        """
        request = body.to_request()
        if service.is_quick(request) and not wants_lines(http):
            with service.public_errors(request):
                return await batches.get((request, time.perf_counter()))
        return await run(lambda: body.to_request(gallery.ids_of_keys), http)

    errors: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (404, 409, 415)}

    @routes.post("/similar", response_model=SearchOut, responses=streamed | errors)
    async def similar(body: SimilarBody, http: Request) -> Response:
        """More images like one of the store, like a region of it, or like several. These images are left out."""
        return await run(lambda: service.similar_request(body), http)

    @routes.post("/similar/upload", response_model=SearchOut, responses=streamed)
    async def similar_to_upload(
        body: Annotated[UploadBody, Form(media_type="multipart/form-data")], http: Request
    ) -> Response:
        """Images like an uploaded picture, which is not kept."""
        return await run(lambda: service.upload_request(body), http)

    return routes
