"""Precision from reviewed images: intervals against exact enumeration and SciPy's binomial interval."""

from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from forclip.evaluation.review_precision import CONFIDENCE, Reviewed, count_interval, estimate_precision


def chance(right: int, population: int, count: int, drawn: int) -> float:
    """Of this many right images in a draw from a population with `count` right images."""
    return comb(count, right) * comb(population - count, drawn - right) / comb(population, drawn)


@pytest.mark.parametrize(("population", "drawn"), [(1, 1), (12, 5), (40, 17), (40, 40), (40, 0)])
def test_the_interval_covers_every_count_as_often_as_it_says(population: int, drawn: int) -> None:
    intervals = [count_interval(right, drawn, population) for right in range(drawn + 1)]
    for count in range(population + 1):
        possible = range(max(0, drawn - population + count), min(count, drawn) + 1)
        covered = sum(
            chance(right, population, count, drawn)
            for right in possible
            if intervals[right][0] <= count <= intervals[right][1]
        )
        assert covered >= CONFIDENCE - 1e-9


def test_counts_just_outside_the_interval_are_unlikely() -> None:
    """The interval is no longer than it must be."""
    right, drawn, population = 9, 12, 60
    lowest, highest = count_interval(right, drawn, population)
    above = [
        sum(chance(r, population, count, drawn) for r in range(right, drawn + 1)) for count in (lowest, lowest - 1)
    ]
    below = [sum(chance(r, population, count, drawn) for r in range(right + 1)) for count in (highest, highest + 1)]
    assert above[0] > 0.025 >= above[1]
    assert below[0] > 0.025 >= below[1]


def test_of_a_large_list_it_is_the_interval_of_a_proportion() -> None:
    exact = binomtest(41, 50).proportion_ci(CONFIDENCE, "exact")
    lowest, highest = count_interval(41, 50, 1_000_000)
    assert (lowest / 1e6, highest / 1e6) == pytest.approx((exact.low, exact.high), abs=1e-4)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 5), st.integers(0, 30), st.integers(0, 5), st.data())
def test_the_estimate_lies_in_its_interval(
    right: int, wrong: int, skipped: int, drawn_right: int, drawn_skipped: int, data: st.DataObject
) -> None:
    chosen, drawn = Reviewed(right, wrong, skipped), Reviewed(drawn_right, 3, drawn_skipped)
    images = chosen.images + drawn.images + data.draw(st.integers(0, 100))
    estimate = estimate_precision(images, chosen, drawn)
    assert estimate.precision is not None
    assert 0 <= estimate.low <= estimate.precision <= estimate.high <= 1


def test_skipped_images_count_as_wrong_and_as_right() -> None:
    all_judged = estimate_precision(100, Reviewed(10, 10), Reviewed(15, 5))
    some_skipped = estimate_precision(100, Reviewed(10, 8, 2), Reviewed(13, 5, 2))
    assert some_skipped.low < all_judged.low
    assert some_skipped.high > all_judged.high
    assert estimate_precision(20, Reviewed(10, 6, 4), Reviewed()).precision == 10 / 16
    assert vars(estimate_precision(20, Reviewed(10, 6, 4), Reviewed())) == {
        "precision": 10 / 16,
        "low": 0.5,
        "high": 0.7,
    }


def test_nothing_is_known_without_a_random_image() -> None:
    estimate = estimate_precision(100, Reviewed(0, 20), Reviewed(skipped=3))
    assert vars(estimate) == {"precision": None, "low": 0.0, "high": 0.8}
    assert estimate_precision(0, Reviewed(), Reviewed()).precision is None
