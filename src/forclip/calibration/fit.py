"""Fit a calibration on base classes: logistic regression over pairs of an image and a class.

Cross-validation over classes chooses the features and measures the calibration error on classes that a fit did not see.
"""

from dataclasses import replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from forclip.calibration.model import ABSENCE_RANK, BEND, MIN_SAMPLE, Calibration, Scores, estimate_confidence
from forclip.evaluation.confidence import evaluate_probabilities
from forclip.evaluation.metrics import gain_with_bound
from forclip.types import Bools, Doubles, Floats, Ints

MIN_CLASSES = 5
# The end of messages about a model without probabilities.
NEEDED = (
    f"they need {MIN_CLASSES} base classes, {MIN_SAMPLE} labelled images, and trials: no fixed `train.interpolation`, "
    "`train.held_back_folds` unset or from 2 to half of the base classes, and a `train.base_weight` above 0"
)
FALSE_ALARMS = 0.05  # share of the present base classes that the threshold calls absent
_FOLDS = 5
_RIDGE = 1e-3  # on slopes of standardised features: keeps them finite for classes that scores separate perfectly
_CEILING_PAIRS = 50  # fitted pairs that must be at least as probable as the ceiling

# Each candidate maps the columns min(z, BEND), max(z - BEND, 0), score to its features: [3, F]. The simplest is first.
_CANDIDATES = (
    np.array([[1.0], [1.0], [0.0]]),  # z
    np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),  # z, with another slope above BEND
    np.eye(3),  # and the score itself
)


def fit_calibration(scores: Scores, labels: Bools, verified: Bools, seed: int) -> Calibration | None:
    """Fit a calibration; every class has the same weight, however many of its pairs are verified.

    scores: [I, C], from heads that were not trained with the class; labels, verified: [I, C]. Returns None for fewer
    than MIN_SAMPLE images, or fewer than MIN_CLASSES classes with both right and wrong images.
    """
    usable = verified & (scores.std(0) > 0)
    classes = np.flatnonzero((labels & usable).any(0) & (~labels & usable).any(0))
    if len(scores) < MIN_SAMPLE or len(classes) < MIN_CLASSES:
        return None
    kept = scores[:, classes].astype(np.float64)
    pairs = _Pairs(kept, labels[:, classes], usable[:, classes])
    folds = np.array_split(np.random.default_rng([seed, 11]).permutation(len(classes)), min(_FOLDS, len(classes)))
    candidate, held_out = _choose_candidate(pairs, folds)
    intercept, slopes = pairs.fit(np.arange(len(classes)), candidate)
    errors = evaluate_probabilities(held_out, kept, pairs.labels, pairs.verified)
    fitted = expit(intercept + pairs.columns @ slopes)[pairs.verified]
    below, above, raw = slopes.tolist()
    calibration = Calibration(
        intercept=intercept,
        below=below,
        above=above,
        raw=raw,
        ceiling=float(np.sort(fitted)[-min(_CEILING_PAIRS, len(fitted))]),
        absent_below=0.0,
        rate=float((pairs.labels * pairs.weights).sum() / len(classes)),
        classes=len(classes),
        images=len(scores),
        held_out_errors={str(kind): result.reliability.error for kind, result in errors.items()},
    )
    # Below this, FALSE_ALARMS of these classes, all of them present, are called absent.
    best = -np.sort(-kept, axis=0)[:ABSENCE_RANK]
    confidences = [
        estimate_confidence(calibration, top, column, len(column)) for top, column in zip(best.T, kept.T, strict=True)
    ]
    precisions = [c.expected_precision[-1] for c in confidences if c is not None]
    return replace(calibration, absent_below=float(np.quantile(precisions, FALSE_ALARMS)))


class _Pairs:
    """Pairs of I images and C classes. columns: [I, C, 3]; weights: [I, C], 0 unless verified, each class's sum 1."""

    def __init__(self, scores: Doubles, labels: Bools, verified: Bools) -> None:
        z = (scores - scores.mean(0)) / scores.std(0)
        self.columns = np.stack([np.minimum(z, BEND), np.maximum(z - BEND, 0), scores], axis=2)
        self.labels, self.verified = labels, verified
        self.weights = verified / verified.sum(0)

    def fit(self, classes: Ints, candidate: Doubles) -> tuple[float, Doubles]:
        """Fit to some classes. Returns the intercept and the slopes [3] of the columns, at least 0."""
        verified = self.verified[:, classes]
        features = self.columns[:, classes][verified] @ candidate
        labels, weights = self.labels[:, classes][verified], self.weights[:, classes][verified] / len(classes)
        intercept, slopes = logistic_regression(features, labels, weights)
        return intercept, candidate @ slopes


def _choose_candidate(pairs: _Pairs, folds: list[Ints]) -> tuple[Doubles, Doubles]:
    """Choose the features. Returns them and their probabilities [I, C] for classes held out of each fit.

    A richer candidate must raise the mean log-likelihood over classes by more than one standard error.
    """
    best: tuple[Floats, Doubles, Doubles] | None = None
    for candidate in _CANDIDATES:
        held_out = np.zeros(pairs.labels.shape)
        for fold in folds:
            intercept, slopes = pairs.fit(np.setdiff1d(np.arange(pairs.labels.shape[1]), fold), candidate)
            held_out[:, fold] = expit(intercept + pairs.columns[:, fold] @ slopes)
        of_label = np.clip(np.where(pairs.labels, held_out, 1 - held_out), 1e-12, 1)
        likelihood = (np.log(of_label) * pairs.weights).sum(0).astype(np.float32)
        if best is None or gain_with_bound(likelihood, best[0])[1] > 0:
            best = (likelihood, candidate, held_out)
    assert best is not None
    return best[1:]


def logistic_regression(features: Doubles, labels: Bools, weights: Doubles) -> tuple[float, Doubles]:
    """Maximise the likelihood with slopes of at least 0 and a small ridge on the slopes of standardised features.

    features: [P, F]; labels: [P], with both values; weights: [P], with sum 1. Returns the intercept and the slopes [F]
    for the features as given. scikit-learn's LogisticRegression cannot bound slopes.
    """
    spread = np.maximum(features.std(0), 1e-12)
    scaled = (features - features.mean(0)) / spread
    rate = float((weights * labels).sum())

    def loss(parameters: Doubles) -> tuple[float, Doubles]:
        intercept, slopes = parameters[0], parameters[1:]
        logits = intercept + scaled @ slopes
        error = weights * (expit(logits) - labels)
        value = (weights * (np.logaddexp(0, logits) - labels * logits)).sum() + _RIDGE / 2 * slopes @ slopes
        return float(value), np.concatenate([[error.sum()], scaled.T @ error + _RIDGE * slopes])

    start: Doubles = np.concatenate([[np.log(rate / (1 - rate))], np.zeros(features.shape[1])])
    bounds = [(None, None), *[(0.0, None)] * features.shape[1]]
    # Tight tolerances give the same model on any machine.
    parameters: Doubles = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-7}
    ).x
    slopes = parameters[1:] / spread
    return float(parameters[0] - slopes @ features.mean(0)), slopes
