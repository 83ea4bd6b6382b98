"""Calibration errors against numbers worked by hand, scikit-learn, and data whose probabilities are right by making."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from forclip.evaluation.confidence import NUM_BINS, brier, evaluate_probabilities, reliability

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def test_average_precision_worked_by_hand() -> None:
    """0.05 twice, one of them right: off by 0.45. 0.8 and 0.84, both right: off by 0.18. 1.0 and right: not off."""
    found = reliability(np.array([0.05, 0.05, 0.8, 0.84, 1.0]), np.array([True, False, True, True, True]))
    assert found.counts == [2, 0, 0, 0, 0, 0, 0, 0, 2, 1]
    assert found.observed == [1, 0, 0, 0, 0, 0, 0, 0, 2, 1]
    assert found.predicted[8] == pytest.approx(1.64)
    assert found.error == pytest.approx((2 * 0.45 + 2 * 0.18 + 0) / 5)
    assert brier(np.array([0.25, 1.0]), np.array([True, False])) == pytest.approx((0.5625 + 1) / 2)


def test_without_a_pair_there_is_no_error() -> None:
    empty = reliability(np.zeros(0), np.zeros(0, bool))
    assert (empty.pairs, empty.error) == (0, None)
    assert math.isnan(brier(np.zeros(0), np.zeros(0, bool)))


@given(PAIRS)
def test_bins_and_brier_are_scikit_learns(pairs: list[tuple[float, bool]]) -> None:
    # scikit-learn puts a bin's upper edge into it, we its lower one: keep off the edges.
    sure = np.clip(np.array([p for p, _ in pairs]), 0.001, 0.999)
    sure = np.where(np.isclose(sure * NUM_BINS % 1, 0, atol=1e-6) | np.isclose(sure * NUM_BINS % 1, 1), 0.05, sure)
    relevant = np.array([r for _, r in pairs])
    found = reliability(sure, relevant)
    share, mean = calibration_curve(relevant, sure, n_bins=NUM_BINS)
    filled = np.array(found.counts) > 0
    counts = np.array(found.counts)[filled]
    np.testing.assert_allclose(np.array(found.observed)[filled] / counts, share)
    np.testing.assert_allclose(np.array(found.predicted)[filled] / counts, mean)
    assert found.error == pytest.approx(float((np.abs(share - mean) * counts).sum() / len(sure)))
    assert brier(sure, relevant) == pytest.approx(brier_score_loss(relevant, sure))


@given(PAIRS, PAIRS)
def test_reliabilities_add_up(one: list[tuple[float, bool]], other: list[tuple[float, bool]]) -> None:
    def of(pairs: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
        return np.array([p for p, _ in pairs]), np.array([r for _, r in pairs])

    summed, both = reliability(*of(one)) + reliability(*of(other)), reliability(*of(one + other))
    assert (summed.counts, summed.observed) == (both.counts, both.observed)
    np.testing.assert_allclose(summed.predicted, both.predicted)


def test_right_probabilities_have_no_error_and_shifted_ones_have_the_shift() -> None:
    random = np.random.default_rng(0)
    sure = random.random(200_000) * 0.8
    relevant = random.random(200_000) < sure
    error, shifted = reliability(sure, relevant).error, reliability(sure + 0.2, relevant).error
    assert error is not None
    assert error < 0.005
    assert shifted == pytest.approx(0.2, abs=0.005)


def test_the_kinds_of_pairs() -> None:
    """60 images of one class, the first 50 of them its best; the second class is never sure and half unverified."""
    scores = np.stack([-np.arange(60.0), -np.arange(60.0)], 1)
    sure = np.stack([np.where(np.arange(60) < 55, 0.5, 0.01), np.full(60, 0.02)], 1)
    relevant = np.zeros((60, 2), bool)
    relevant[:25, 0] = True
    verified = np.ones((60, 2), bool)
    verified[:30, 1] = False
    found = evaluate_probabilities(sure, scores, relevant, verified)
    top, likely, everything = (found[kind].reliability for kind in ("top 50", "above 0.05", "all"))
    assert (top.pairs, likely.pairs, everything.pairs) == (50 + 30, 55, 60 + 30)
    assert top.error == pytest.approx(30 * 0.02 / 80)  # 25 of 50 said at 0.5 are right; 30 at 0.02 are wrong
    assert likely.error == pytest.approx(abs(25 - 27.5) / 55)
    rate = 25 / 80
    assert found["top 50"].brier_of_rate == pytest.approx(rate * (1 - rate))
    nothing = evaluate_probabilities(np.zeros((60, 1)), scores[:, :1], relevant[:, :1])["above 0.05"]
    assert (nothing.brier, nothing.brier_of_rate, nothing.reliability.error) == (None, None, None)


@given(st.integers(0, 10_000), st.integers(1, 70))
def test_the_top_is_the_best_verified_images(seed: int, images: int) -> None:
    random = np.random.default_rng(seed)
    scores, verified = random.random((images, 3)), random.random((images, 3)) < 0.7
    relevant = (random.random((images, 3)) < 0.4) & verified
    found = evaluate_probabilities(np.full((images, 3), 0.3), scores, relevant, verified)["top 50"].reliability
    naive = 0
    for c in range(3):
        rows = sorted(np.flatnonzero(verified[:, c]), key=lambda row: -scores[row, c])[:50]
        naive += int(relevant[rows, c].sum())
    assert sum(found.observed) == naive
