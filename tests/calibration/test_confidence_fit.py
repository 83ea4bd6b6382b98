"""Fitting recovers known parameters, agrees with scikit-learn, and ignores what must not matter."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from forclip.calibration.fit import fit_calibration, logistic_regression
from forclip.calibration.model import Calibration, estimate_confidence, estimate_probabilities
from forclip.evaluation.confidence import reliability


def world(classes: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and labels: each class has its own scale, and the log-odds are piecewise linear in z."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(images, classes)) + random.exponential(0.5, size=(images, classes))
    z = (scores - scores.mean(0)) / scores.std(0)
    probabilities = expit(-3.5 + 0.6 * np.minimum(z, 1) + 1.5 * np.maximum(z - 1, 0))
    labels = random.random((images, classes)) < probabilities
    return scores * random.uniform(0.02, 0.1, classes) + random.uniform(-0.2, 0.6, classes), labels


def fitted(scores: np.ndarray, labels: np.ndarray, verified: np.ndarray | None = None, seed: int = 0) -> Calibration:
    calibration = fit_calibration(scores, labels, np.ones_like(labels) if verified is None else verified, seed)
    assert calibration is not None
    return calibration


def test_known_parameters_are_recovered() -> None:
    calibration = fitted(*world(60, 1500, 0))
    assert calibration.intercept == pytest.approx(-3.5, abs=0.1)
    assert calibration.below == pytest.approx(0.6, abs=0.1)
    assert calibration.above == pytest.approx(1.5, abs=0.1)
    assert calibration.raw == 0  # the score itself carries no information here
    assert calibration.held_out_errors["top 50"] == pytest.approx(0, abs=0.03)
    assert (calibration.classes, calibration.images) == (60, 1500)
    assert calibration.rate == pytest.approx(world(60, 1500, 0)[1].mean())


def test_it_transfers_to_other_texts_and_another_gallery() -> None:
    calibration = fitted(*world(60, 1500, 0))
    scores, labels = world(40, 700, 1)
    probabilities = np.stack([estimate_probabilities(calibration, s, s) for s in scores.T], 1)
    error = reliability(probabilities.ravel(), labels.ravel()).error
    assert error is not None
    assert error < 0.01
    order = np.argsort(-scores, 0)[:50]
    top = reliability(
        np.take_along_axis(probabilities, order, 0).ravel(), np.take_along_axis(labels, order, 0).ravel()
    ).error
    assert top is not None
    assert top < 0.04


def test_the_score_itself_is_used_if_it_is_comparable_across_texts() -> None:
    random = np.random.default_rng(3)
    scores = random.normal(random.uniform(0, 2, 60), 1, (800, 60))
    labels = random.random(scores.shape) < expit(-4 + 1.2 * scores)
    calibration = fitted(scores, labels)
    assert calibration.raw == pytest.approx(1.2, abs=0.2)
    assert calibration.below == pytest.approx(0, abs=0.2)


def test_misleading_scores_get_slopes_of_zero() -> None:
    scores, labels = world(20, 400, 0)
    calibration = fitted(-scores, labels)
    assert calibration.below == pytest.approx(0, abs=0.02)
    assert calibration.raw == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_logistic_regression_agrees_with_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    features = random.normal(3, 2, (4000, 2))
    labels = random.random(4000) < expit(-2 + features @ [0.4, 0.2])
    weights = random.uniform(0.5, 2, 4000)
    intercept, slopes = logistic_regression(features, labels, weights / weights.sum())
    peer = LogisticRegression(C=np.inf, tol=1e-8).fit(features, labels, weights)
    np.testing.assert_allclose(slopes, peer.coef_[0], rtol=0.03)  # ours has a small ridge
    assert intercept == pytest.approx(peer.intercept_[0], rel=0.03)


def test_unverified_labels_make_no_difference() -> None:
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


def test_one_present_class_in_twenty_is_called_absent() -> None:
    scores, labels = world(100, 500, 2)
    calibration = fitted(scores, labels)
    best = -np.sort(-scores, 0)
    confidences = [estimate_confidence(calibration, best[:50, c], scores[:, c], 500) for c in range(100)]
    assert sum(c is not None and c.nothing_here for c in confidences) == 5
    flat = -np.sort(-np.random.default_rng(0).uniform(0, 1, 500))
    absent = estimate_confidence(calibration, flat[:50], flat, 500)
    assert absent is not None
    assert absent.nothing_here  # no image stands out


def test_no_probability_exceeds_the_ceiling() -> None:
    scores, labels = world(30, 400, 0)
    calibration = fitted(scores, labels)
    far = np.concatenate([[100.0], np.random.default_rng(0).normal(size=400)])
    assert estimate_probabilities(calibration, far, far)[0] == calibration.ceiling < 1


@pytest.mark.parametrize(("classes", "images"), [(4, 300), (20, 49)])
def test_too_few_classes_or_images_give_no_calibration(classes: int, images: int) -> None:
    scores, labels = world(classes, images, 0)
    labels[0], labels[1] = True, False
    assert fit_calibration(scores, labels, np.ones_like(labels), 0) is None


def test_a_class_without_right_images_does_not_count() -> None:
    scores, labels = world(21, 300, 0)
    labels[:, 20] = False
    assert fitted(scores, labels).classes == 20
