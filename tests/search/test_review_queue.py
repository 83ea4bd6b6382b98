"""The review queue: its order, and what its images say about the precision of the whole list."""

from collections.abc import Sequence
from functools import cache
from itertools import permutations

import numpy as np
import pytest

from forclip.evaluation.review_precision import PrecisionEstimate, estimate_precision
from forclip.search.review_queue import count_reviewed, least_certain, plan_queue

estimate_once = cache(estimate_precision)  # the same counts occur in many orders


def estimates(labels: Sequence[bool], uncertain: Sequence[int], drawn: Sequence[int]) -> list[PrecisionEstimate]:
    """The estimate after each reviewed image of a queue of the whole list."""
    queue = plan_queue(uncertain, drawn, len(labels))
    chosen_from, verdicts = [image.chosen_from for image in queue], [bool(labels[image.position]) for image in queue]
    return [
        estimate_once(len(labels), *count_reviewed(chosen_from[:reviewed], verdicts[:reviewed]))
        for reviewed in range(1, len(labels) + 1)
    ]


def test_the_queue_takes_the_least_certain_and_random_images_in_turns() -> None:
    queue = plan_queue([4, 2, 0, 1, 3, 5], [2, 5, 4, 0, 3, 1], 5)
    assert [(image.position, image.is_drawn) for image in queue] == [
        (4, False),
        (2, True),
        (0, False),
        (5, True),
        (1, False),
    ]
    # Image 2 was drawn, and the least certain images pass it with the third image of the queue.
    assert [image.chosen_from for image in queue] == [1, 3, 3, 6, 5]
    assert len(plan_queue([0, 1], [1, 0], 9)) == 2
    assert plan_queue([], [], 9) == []


def test_the_least_certain_are_nearest_to_the_reference() -> None:
    assert least_certain(np.array([0.9, 0.45, 0.55, 0.1, 0.5]), 0.5).tolist() == [4, 1, 2, 0, 3]


@pytest.mark.parametrize(
    "labels", [(0, 0, 1, 1, 1, 1), (1, 1, 1, 0, 0, 0), (0, 1, 0, 1, 0, 1), (0, 0, 0, 0, 0, 1), (1, 1, 1, 1, 1, 1)]
)
def test_the_estimate_has_no_bias(labels: tuple[int, ...]) -> None:
    """Over all random orders its mean is the precision, after any number of images, whatever was chosen."""
    precision = np.mean(labels)
    runs = [estimates([bool(label) for label in labels], range(6), drawn) for drawn in permutations(range(6))]
    assert all(run[0].precision is None for run in runs), "no image is drawn yet"
    for after in [*zip(*runs, strict=True)][1:]:
        assert np.mean([e.precision for e in after if e.precision is not None]) == pytest.approx(precision)
    assert all(last.precision == last.low == last.high == precision for last in (run[-1] for run in runs))


def test_the_interval_covers_the_precision_of_a_known_list() -> None:
    """A list with a known precision, of which the least certain images are the worst, reviewed many times."""
    rng = np.random.default_rng(0)
    probabilities = np.sort(rng.uniform(0.3, 1, 400))[::-1]
    labels = (rng.uniform(size=400) < probabilities).tolist()
    precision = float(np.mean(labels))
    order = least_certain(probabilities, 0.5)
    covered: dict[int, list[bool]] = {30: [], 60: [], 120: []}
    means: dict[int, list[float]] = {reviewed: [] for reviewed in covered}
    naive = []
    for _ in range(300):
        queue = plan_queue(order.tolist(), rng.permutation(400).tolist(), 120)
        verdicts = [labels[image.position] for image in queue]
        naive.append(np.mean(verdicts))
        for reviewed, hits in covered.items():
            chosen, drawn = count_reviewed([image.chosen_from for image in queue[:reviewed]], verdicts[:reviewed])
            estimate = estimate_once(400, chosen, drawn)
            assert estimate.precision is not None
            hits.append(estimate.low <= precision <= estimate.high)
            means[reviewed].append(estimate.precision)
    assert np.mean(naive) < precision - 0.05, "all reviewed images alone would say too little"
    for reviewed, hits in covered.items():
        error = np.std(means[reviewed]) / np.sqrt(len(hits))
        assert np.mean(means[reviewed]) == pytest.approx(precision, abs=4 * error)
        assert 0.93 <= np.mean(hits) <= 0.999
