"""A calibration finds back what made the data, equals scikit-learn's, and depends on nothing that it must not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from forclip.calibration.fit import fit_calibration, logistic_regression
from forclip.calibration.model import Calibration, estimate_confidence, probabilities
from forclip.evaluation.reliability import reliability


def world(classes: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Classes whose texts have scales of their own, and a probability that is a bent line in z."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(images, classes)) + random.exponential(0.5, size=(images, classes))
    z = (scores - scores.mean(0)) / scores.std(0)
    sure = expit(-3.5 + 0.6 * np.minimum(z, 1) + 1.5 * np.maximum(z - 1, 0))
    labels = random.random((images, classes)) < sure
    return scores * random.uniform(0.02, 0.1, classes) + random.uniform(-0.2, 0.6, classes), labels


def fitted(scores: np.ndarray, labels: np.ndarray, verified: np.ndarray | None = None, seed: int = 0) -> Calibration:
    found = fit_calibration(scores, labels, np.ones_like(labels) if verified is None else verified, seed)
    assert found is not None
    return found


def test_what_made_the_data_is_found_back() -> None:
    calibration = fitted(*world(60, 1500, 0))
    assert calibration.intercept == pytest.approx(-3.5, abs=0.1)
    assert calibration.below == pytest.approx(0.6, abs=0.1)
    assert calibration.above == pytest.approx(1.5, abs=0.1)
    assert calibration.raw == 0  # a score by itself says nothing here, and is not believed to
    assert calibration.held_out_errors["top 50"] == pytest.approx(0, abs=0.03)
    assert (calibration.classes, calibration.images) == (60, 1500)
    assert calibration.rate == pytest.approx(world(60, 1500, 0)[1].mean())


def test_it_carries_over_to_other_texts_and_another_gallery() -> None:
    calibration = fitted(*world(60, 1500, 0))
    scores, labels = world(40, 700, 1)
    sure = np.stack([probabilities(calibration, s, s) for s in scores.T], 1)
    error = reliability(sure.ravel(), labels.ravel()).error
    assert error is not None
    assert error < 0.01
    order = np.argsort(-scores, 0)[:50]
    top = reliability(np.take_along_axis(sure, order, 0).ravel(), np.take_along_axis(labels, order, 0).ravel()).error
    assert top is not None
    assert top < 0.04


def test_a_raw_score_is_used_where_it_means_the_same_for_all_texts() -> None:
    random = np.random.default_rng(3)
    scores = random.normal(random.uniform(0, 2, 60), 1, (800, 60))
    labels = random.random(scores.shape) < expit(-4 + 1.2 * scores)
    calibration = fitted(scores, labels)
    assert calibration.raw == pytest.approx(1.2, abs=0.2)
    assert calibration.below == pytest.approx(0, abs=0.2)


def test_scores_that_mislead_are_worth_nothing() -> None:
    scores, labels = world(20, 400, 0)
    calibration = fitted(-scores, labels)
    assert calibration.below == pytest.approx(0, abs=0.02)
    assert calibration.raw == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_logistic_regression_is_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    features = random.normal(3, 2, (4000, 2))
    labels = random.random(4000) < expit(-2 + features @ [0.4, 0.2])
    weights = random.uniform(0.5, 2, 4000)
    intercept, slopes = logistic_regression(features, labels, weights / weights.sum())
    peer = LogisticRegression(C=np.inf, tol=1e-8).fit(features, labels, weights)
    np.testing.assert_allclose(slopes, peer.coef_[0], rtol=0.03)  # ours has a small ridge
    assert intercept == pytest.approx(peer.intercept_[0], rel=0.03)


def test_what_is_not_verified_makes_no_difference() -> None:
    scores, labels = world(20, 400, 0)
    verified = np.random.default_rng(1).random(labels.shape) < 0.6
    assert fitted(scores, labels, verified) == fitted(scores, np.where(verified, labels, ~labels), verified)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_images_makes_no_difference(seed: int) -> None:
    scores, labels = world(12, 200, 0)
    order = np.random.default_rng(seed).permutation(200)
    one, other = fitted(scores, labels), fitted(scores[order], labels[order])
    assert one.below == pytest.approx(other.below, abs=1e-4)
    assert one.above == pytest.approx(other.above, abs=1e-4)


def test_one_class_in_twenty_is_called_absent_though_it_is_there() -> None:
    scores, labels = world(100, 500, 2)
    calibration = fitted(scores, labels)
    best = -np.sort(-scores, 0)
    judged = [estimate_confidence(calibration, best[:50, c], scores[:, c], 500) for c in range(100)]
    assert sum(j is not None and j.nothing_here for j in judged) == 5
    nowhere = -np.sort(-np.random.default_rng(0).uniform(0, 1, 500))
    absent = estimate_confidence(calibration, nowhere[:50], nowhere, 500)
    assert absent is not None
    assert absent.nothing_here  # a flat list, without any image that stands out


def test_no_more_is_said_than_was_seen() -> None:
    scores, labels = world(30, 400, 0)
    calibration = fitted(scores, labels)
    far = np.concatenate([[100.0], np.random.default_rng(0).normal(size=400)])
    assert probabilities(calibration, far, far)[0] == calibration.ceiling < 1


@pytest.mark.parametrize(("classes", "images"), [(4, 300), (20, 49)])
def test_too_little_to_learn_from(classes: int, images: int) -> None:
    scores, labels = world(classes, images, 0)
    labels[0], labels[1] = True, False
    assert fit_calibration(scores, labels, np.ones_like(labels), 0) is None


def test_a_class_without_right_images_does_not_count() -> None:
    scores, labels = world(21, 300, 0)
    labels[:, 20] = False
    assert fitted(scores, labels).classes == 20
