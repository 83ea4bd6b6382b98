"""Learns a calibration from base classes: maximum likelihood over pairs of an image and a class.

How rich the model may be is chosen, and its error told, on base classes that a fit had not seen.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from forclip.calibration.model import BEND, FEW, MIN_SAMPLE, Calibration, Scores, estimate_confidence
from forclip.evaluation.bootstrap import gain_with_bound
from forclip.evaluation.reliability import evaluate_probabilities
from forclip.types import Bools, Doubles, Ints

MIN_CLASSES = 5
FALSE_ALARMS = 0.05  # the share of base classes that may be called absent though they are there
_FOLDS = 5
_RIDGE = 1e-3  # on slopes of standardised features: keeps them finite where classes are perfectly told apart
_FAMILIAR = 50  # held-back pairs that must have been as probable as the ceiling

# Columns: min(z, BEND), max(z - BEND, 0), score. Each candidate is how they are summed up to its own features.
_PLAIN = np.array([[1.0], [1.0], [0.0]])
_BENT = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
_BENT_RAW = np.eye(3)
_CANDIDATES = (_PLAIN, _BENT, _BENT_RAW)  # the simplest first


def fit_calibration(scores: Scores, labels: Bools, verified: Bools, seed: int) -> Calibration | None:
    """scores: [I, C], of images for classes that they were not trained with; labels, verified: [I, C].

    Classes count alike, however many of their pairs are verified. Returns None for fewer than MIN_SAMPLE images or
    MIN_CLASSES classes with right and wrong images: that is too little to learn from.
    """
    known = verified & (scores.std(0) > 0)
    usable = np.flatnonzero((labels & known).any(0) & (~labels & known).any(0))
    if len(scores) < MIN_SAMPLE or len(usable) < MIN_CLASSES:
        return None
    taken = scores[:, usable].astype(np.float64)
    pairs = _Pairs(_columns(taken), labels[:, usable], known[:, usable])
    folds = np.array_split(np.random.default_rng([seed, 11]).permutation(len(usable)), min(_FOLDS, len(usable)))
    chosen, unseen = _choose(pairs, folds)
    intercept, slopes = _fit(pairs, np.arange(len(usable)), chosen)
    errors = evaluate_probabilities(unseen, taken, pairs.labels, pairs.verified_mask)
    fitted = expit(intercept + pairs.columns @ slopes)[pairs.verified_mask]
    below, above, raw = slopes.tolist()
    calibration = Calibration(
        intercept=intercept,
        below=below,
        above=above,
        raw=raw,
        ceiling=float(np.sort(fitted)[-min(_FAMILIAR, len(fitted))]),
        absent_below=0.0,
        rate=float((pairs.labels * pairs.weights).sum() / len(usable)),
        classes=len(usable),
        images=len(scores),
        held_out_errors={str(kind): result.reliability.error for kind, result in errors.items()},
    )
    return _with_alarm(calibration, taken)


class _Pairs:
    """columns: [I, C, 3]; labels, known: [I, C]; weights: [I, C], each class's sum to 1."""

    def __init__(self, columns: Doubles, labels: Bools, known: Bools) -> None:
        self.columns, self.labels, self.verified_mask = columns, labels, known
        self.weights = known / known.sum(0)


def _columns(scores: Doubles) -> Doubles:
    z = (scores - scores.mean(0)) / scores.std(0)
    return np.stack([np.minimum(z, BEND), np.maximum(z - BEND, 0), scores], axis=2)


def _choose(pairs: _Pairs, folds: Sequence[Ints]) -> tuple[Doubles, Doubles]:
    """The candidate, and its probabilities [I, C] for classes that each fit had not seen. A richer one must surely
    gain: its mean over classes, less a standard error."""
    best: tuple[Doubles, Doubles] | None = None
    likelihood = np.zeros(0, np.float32)
    for candidate in _CANDIDATES:
        unseen = np.zeros(pairs.labels.shape)
        for fold in folds:
            intercept, slopes = _fit(pairs, np.setdiff1d(np.arange(pairs.labels.shape[1]), fold), candidate)
            unseen[:, fold] = expit(intercept + pairs.columns[:, fold] @ slopes)
        right = np.clip(np.where(pairs.labels, unseen, 1 - unseen), 1e-12, 1)
        found = (np.log(right) * pairs.weights).sum(0).astype(np.float32)
        if best is None or gain_with_bound(found, likelihood)[1] > 0:
            best, likelihood = (candidate, unseen), found
    assert best is not None
    return best


def _fit(pairs: _Pairs, classes: Ints, candidate: Doubles) -> tuple[float, Doubles]:
    """Intercept, and slopes of the three columns [3], none of them negative."""
    known = pairs.verified_mask[:, classes]
    features = pairs.columns[:, classes][known] @ candidate
    labels, weights = pairs.labels[:, classes][known], pairs.weights[:, classes][known] / len(classes)
    intercept, slopes = logistic_regression(features, labels, weights)
    return intercept, candidate @ slopes


def logistic_regression(features: Doubles, labels: Bools, weights: Doubles) -> tuple[float, Doubles]:
    """Maximum likelihood with slopes of at least 0 and a small ridge on them, the features standardised.

    features: [P, F]; labels: [P], both kinds among them; weights: [P], their sum 1. Returns intercept and slopes [F]
    for the features as they are given.
    """
    spread = np.maximum(features.std(0), 1e-12)
    scaled = (features - features.mean(0)) / spread
    rate = float((weights * labels).sum())

    def loss(found: Doubles) -> tuple[float, Doubles]:
        logits = found[0] + scaled @ found[1:]
        error = weights * (expit(logits) - labels)
        value = (weights * (np.logaddexp(0, logits) - labels * logits)).sum() + _RIDGE / 2 * found[1:] @ found[1:]
        return float(value), np.concatenate([[error.sum()], scaled.T @ error + _RIDGE * found[1:]])

    start: Doubles = np.concatenate([[np.log(rate / (1 - rate))], np.zeros(features.shape[1])])
    bounds = [(None, None), *[(0.0, None)] * features.shape[1]]
    # Tolerances far below what is of interest, so that the same data give the same model on any machine.
    found: Doubles = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-7},
    ).x
    slopes = found[1:] / spread
    return float(found[0] - slopes @ features.mean(0)), slopes


def _with_alarm(calibration: Calibration, scores: Doubles) -> Calibration:
    """absent_below such that FALSE_ALARMS of these classes, which are all there, would be called absent."""
    best = -np.sort(-scores, axis=0)[:FEW]
    judged = [estimate_confidence(calibration, best[:, c], scores[:, c], len(scores)) for c in range(scores.shape[1])]
    evidence = [j.expected_precision[-1] for j in judged if j is not None]
    return replace(calibration, absent_below=float(np.quantile(evidence, FALSE_ALARMS)))
