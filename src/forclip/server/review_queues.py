"""Review queues: the images of a list that a person reviews one after the other, and their routes.

The latest queue of each reviewer and search is kept with the reviewer's verdicts, so that a reviewer can go on after a
restart. It lists its images and how they were chosen: the estimate of the list's precision needs no search.
"""

import secrets
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from anyio import CapacityLimiter
from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel

from forclip.calibration.model import WANTED_PRECISION
from forclip.evaluation.review_precision import Reviewed, estimate_precision
from forclip.evaluation.sample_size import is_too_wide
from forclip.search.review_queue import count_reviewed, least_certain, plan_queue
from forclip.server import limits
from forclip.server.answers import image_fields
from forclip.server.errors import Refused
from forclip.server.queue_schemas import (
    Order,
    PrecisionOut,
    QueueAnswer,
    QueueBody,
    QueueEntry,
    QueueOut,
    QueuePosition,
    QueueState,
    Verdict,
)
from forclip.server.reviews import ReviewerName, Reviews, set_verdicts
from forclip.server.schemas import Problem, Result, box_fields
from forclip.server.search_routes import SearchService
from forclip.server.threads import in_threads

_MAKING = 2  # queues at a time; each has a whole list in memory
_WORDS: dict[bool | None, Verdict | None] = {True: "right", False: "wrong", None: None}


Short = Annotated[float, AfterValidator(lambda value: round(value, 5))]  # so that a queue's file stays small


class Entry(BaseModel):
    """An image of a queue. The fields are those of SearchResult and QueuedImage."""

    image_id: str
    rank: int
    score: Short
    probability: Short | None
    box: tuple[Short, Short, Short, Short] | None
    is_drawn: bool
    chosen_from: int


class Queue(BaseModel):
    """A queue of one reviewer for one search.

    request: the list that it is of, as the client sent it. images: how many the list has above the cut-off;
    known_right, known_wrong: how many of these had a verdict before. before: for each reviewed image the verdict that
    it had, to undo. id: differs from that of every other queue, "" in stores of earlier versions.
    """

    id: str = ""
    request: dict[str, Any]
    order: Order
    images: int
    known_right: int
    known_wrong: int
    entries: list[Entry]
    before: list[bool | None] = []

    def state(self, search: str, verdicts: Mapping[str, bool]) -> QueueState:
        """How far it is reviewed. verdicts: of the reviewer for this search, by image id."""
        reviewed = self.entries[: len(self.before)]
        given = [verdicts.get(entry.image_id) for entry in reviewed]
        chosen, drawn = count_reviewed([entry.chosen_from for entry in reviewed], given)
        estimate = estimate_precision(self.images, chosen + Reviewed(self.known_right, self.known_wrong), drawn)
        enough = estimate.precision is not None and not is_too_wide(100 * estimate.low, 100 * estimate.high)
        precision = PrecisionOut(images=self.images, drawn=drawn.judged, enough_data=enough, **vars(estimate))
        counts = {"right": given.count(True), "wrong": given.count(False)}
        return QueueState(
            search=search, position=len(reviewed), length=len(self.entries), precision=precision, **counts
        )


def queues_of(review: Mapping[str, Any]) -> dict[str, Queue]:
    """A reviewer's queues by search."""
    return {search: Queue.model_validate(stored) for search, stored in review.get("queues", {}).items()}


class Queues:
    """The queues of all reviewers of one store."""

    def __init__(self, reviews: Reviews) -> None:
        self._reviews = reviews

    def keep(self, name: str, search: str, queue: Queue) -> None:
        """Keep a queue in place of an earlier one for the same search. The oldest of too many queues goes."""
        with self._reviews.changing(name) as review:
            queues = review.setdefault("queues", {})
            queues.pop(search, None)
            queues[search] = queue.model_dump()
            for oldest in list(queues)[: -limits.QUEUES]:
                del queues[oldest]

    def answer(self, name: str, body: QueueAnswer) -> QueueState:
        """Take an answer on the next image. Raises Refused: 404 without a queue, 409 for another position."""
        verdict = {"right": True, "wrong": False}.get(body.answer)
        with self._reviews.changing(name) as review:
            queue = _queue_at(review, body)
            if body.position == len(queue.entries):
                raise Refused(409, "all images of this queue are reviewed")
            image_id = queue.entries[body.position].image_id
            queue.before.append(review["verdicts"].get(body.search, {}).get(image_id))
            if verdict is not None:
                set_verdicts(review, body.search, {image_id: verdict})
            return _kept(review, body.search, queue)

    def undo(self, name: str, body: QueuePosition) -> QueueState:
        """Go back to the image before, with the verdict that it had. Raises Refused as `answer` does."""
        with self._reviews.changing(name) as review:
            queue = _queue_at(review, body)
            if body.position == 0:
                raise Refused(409, "no image of this queue is reviewed")
            image_id = queue.entries[body.position - 1].image_id
            set_verdicts(review, body.search, {image_id: queue.before.pop()})
            return _kept(review, body.search, queue)


def _queue_at(review: Mapping[str, Any], body: QueuePosition) -> Queue:
    stored = review.get("queues", {}).get(body.search)
    if stored is None:
        raise Refused(404, "there is no queue for this search")
    queue = Queue.model_validate(stored)
    if body.queue not in (None, queue.id):
        raise Refused(409, "this review was started again elsewhere, with other images; the last answer was not kept")
    if body.position != len(queue.before):
        reviewed = f"{len(queue.before)} images are reviewed, not {body.position}"
        raise Refused(409, f"this review went on elsewhere: {reviewed}; the last answer was not kept")
    return queue


def _kept(review: dict[str, Any], search: str, queue: Queue) -> QueueState:
    review["queues"][search] = queue.model_dump()
    return queue.state(search, review["verdicts"].get(search, {}))


def make_queue(service: SearchService, body: QueueBody, verdicts: Mapping[str, bool]) -> Queue:
    """Choose the images to review. verdicts: on images of this search, which are not reviewed again, by id.

    Raises Refused: 404 where no image is above the cut-off, and as the search does.
    """
    most = service.gallery.index.most_results
    answer = service.answer(service.request(body.list_body(2 * limits.K if most is None else most)))
    results = service.above(answer, body.min_probability)
    if not results:
        raise Refused(404, "no image is above the cut-off")
    rest = [result for result in results if result.image_id not in verdicts]
    known = [verdicts[result.image_id] for result in results if result.image_id in verdicts]
    probabilities = [answer.probability(result) for result in rest]
    scores = np.array([result.score for result in rest])
    order: Order
    if answer.confidence is not None:
        order, values, nearest_to = "probability", np.array(probabilities, np.float64), WANTED_PRECISION
    elif body.k is not None or body.min_score > -1:
        order, values, nearest_to = "cutoff", scores, results[-1].score
    else:
        order, values, nearest_to = "median", scores, float(np.median([result.score for result in results]))
    at_random = np.random.default_rng().permutation(len(rest))
    entries = [
        Entry(
            image_id=rest[queued.position].image_id,
            rank=rest[queued.position].rank,
            score=rest[queued.position].score,
            probability=probabilities[queued.position],
            box=rest[queued.position].box,
            is_drawn=queued.is_drawn,
            chosen_from=queued.chosen_from,
        )
        for queued in plan_queue(least_certain(values, nearest_to).tolist(), at_random.tolist(), body.length)
    ]
    return Queue(
        id=secrets.token_hex(8),
        request=_identity(body),
        order=order,
        images=len(results),
        known_right=known.count(True),
        known_wrong=known.count(False),
        entries=entries,
    )


def _identity(body: QueueBody) -> dict[str, Any]:
    return body.model_dump(mode="json", exclude={"search", "length", "again"})


def queue_routes(service: SearchService, reviews: Reviews) -> APIRouter:
    """Routes below /api/reviewers."""
    routes = APIRouter(prefix="/api/reviewers", tags=["reviews"], responses={s: {"model": Problem} for s in (404, 409)})
    queues, gallery, making = Queues(reviews), service.gallery, in_threads(CapacityLimiter(_MAKING))

    def render(search: str, queue: Queue, verdicts: Mapping[str, bool]) -> QueueOut:
        images = gallery.by_id([entry.image_id for entry in queue.entries])

        def result(entry: Entry) -> Result | None:
            if (image := images.get(entry.image_id)) is None:
                return None
            found = {"rank": entry.rank, "score": entry.score, "probability": entry.probability}
            return Result.model_validate({**image_fields(image), **found, "box": box_fields(entry.box)})

        entries = [
            QueueEntry(image=result(entry), drawn=entry.is_drawn, verdict=_WORDS[verdicts.get(entry.image_id)])
            for entry in queue.entries
        ]
        return QueueOut(**vars(queue.state(search, verdicts)), queue=queue.id, order=queue.order, entries=entries)

    @routes.get("/{name}/queues")
    def list_queues(name: ReviewerName) -> list[QueueState]:
        """How far the reviewer's latest queue for each search is, and the precision of its list."""
        review = reviews.one(name)
        return [queue.state(search, review["verdicts"].get(search, {})) for search, queue in queues_of(review).items()]

    @routes.post("/{name}/queue", responses={415: {"model": Problem}})
    @making
    def open_queue(name: ReviewerName, body: QueueBody) -> QueueOut:
        """Images above a cut-off to review: the least certain first, every second one drawn at random.

        A queue for the same list is continued. With `again` a new one starts, without the images that have a verdict.
        """
        review = reviews.one(name)
        verdicts = review["verdicts"].get(body.search, {})
        queue = queues_of(review).get(body.search)
        if queue is None or body.again or queue.request != _identity(body):
            queue = make_queue(service, body, verdicts)
            queues.keep(name, body.search, queue)
        return render(body.search, queue, verdicts)

    @routes.post("/{name}/queue/answer")
    def answer(name: ReviewerName, body: QueueAnswer) -> QueueState:
        """Answer for the next image of a queue. A verdict joins the reviewer's others for the search."""
        return queues.answer(name, body)

    @routes.post("/{name}/queue/undo")
    def undo(name: ReviewerName, body: QueuePosition) -> QueueState:
        """Take back the last answer."""
        return queues.undo(name, body)

    return routes
