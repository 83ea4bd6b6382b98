"""Choose which images of a list a person reviews, and in which order.

The least certain images come first, because their verdicts teach the most. Every second image is drawn at random, so
that the precision of the list can be estimated (forclip.evaluation.review_precision).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forclip.evaluation.review_precision import Reviewed
from forclip.types import Ints


@dataclass(frozen=True)
class QueuedImage:
    """An image to review.

    position: in the list. is_drawn: whether it was drawn at random. chosen_from: the number of reviewed images from
    which on it counts as chosen. One that was drawn counts as chosen once the least certain images reach it, too.
    """

    position: int
    is_drawn: bool
    chosen_from: int


def plan_queue(uncertain: Sequence[int], drawn: Sequence[int], length: int) -> list[QueuedImage]:
    """Take the first of each order in turns, each image once, until the queue is long enough or has all images.

    After any number of reviewed images, those that count as drawn are a random sample of all images but the chosen
    ones: which ones are chosen depends on where these are in the random order, and not on the order of the others.

    Args:
        uncertain: positions in the list, the least certain first.
        drawn: the same positions in random order.
    """
    planned: dict[int, int] = {}  # position in the queue by position in the list
    is_drawn: list[bool] = []
    chosen_from: list[int] = []
    least_certain, at_random = iter(uncertain), iter(drawn)
    while len(planned) < min(length, len(uncertain)):
        if len(planned) % 2:
            image = next(image for image in at_random if image not in planned)
            chosen_from.append(length + 1)
        else:
            for image in least_certain:
                if image not in planned:
                    break
                chosen_from[planned[image]] = len(planned) + 1
            chosen_from.append(len(planned) + 1)
        is_drawn.append(bool(len(planned) % 2))
        planned[image] = len(planned)
    return [QueuedImage(*queued) for queued in zip(planned, is_drawn, chosen_from, strict=True)]


def least_certain(values: NDArray[np.floating], reference: float) -> Ints:
    """Return the positions of values, those nearest to a reference first, equal ones in their order."""
    return np.argsort(np.abs(values - reference), kind="stable")


def count_reviewed(chosen_from: Sequence[int], verdicts: Sequence[bool | None]) -> tuple[Reviewed, Reviewed]:
    """Count the reviewed images of a queue: those that count as chosen, and those that count as drawn.

    Args:
        chosen_from: of each reviewed image, in the order of the queue.
        verdicts: on the same images: right, wrong, or None for one that was skipped.
    """
    is_chosen = [start <= len(chosen_from) for start in chosen_from]

    def of(wanted: bool) -> Reviewed:
        found = [verdict for chosen, verdict in zip(is_chosen, verdicts, strict=True) if chosen == wanted]
        return Reviewed(found.count(True), found.count(False), found.count(None))

    return of(True), of(False)
