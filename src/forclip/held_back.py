"""Choices without peeking: what helps classes that a training did not see, measured on base classes held back.

Novel classes are what the choice is for, so they can't make it. Some of the base classes are left out of a trial
training instead; how they fare says how novel ones will.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from forclip.evaluation.metrics import average_precision_at
from forclip.types import Bools, Floats, Ints

_K = 50


def class_folds(num_classes: int, num_folds: int, seed: int) -> list[Ints]:
    """Classes held back in each trial, by number: every class in exactly one. Returns no fold for too few classes."""
    if num_folds < 2 or num_classes < 2 * num_folds:
        return []
    order = np.random.default_rng([seed, 7]).permutation(num_classes)
    return [np.sort(order[k::num_folds]) for k in range(num_folds)]


def class_precisions(scores: NDArray[np.floating], labels: Bools, verified: Bools) -> Floats:
    """AP@50 of each class over the images verified for it, in percent. [I, C] each; returns [C].

    NaN for a class that no image shows, or all.
    """
    found = np.full(scores.shape[1], np.nan, np.float32)
    for c in range(scores.shape[1]):
        rows = verified[:, c]
        if labels[rows, c].any() and not labels[rows, c].all():
            found[c] = 100 * average_precision_at(scores[rows, c], labels[rows, c], _K)
    return found


def sure_gain(precisions: Floats, reference: Floats) -> tuple[float, float]:
    """Mean gain over classes, and that less one standard error: what chance is unlikely to have given.

    precisions, reference: [C], the same classes. Without two classes to compare, both are 0.
    """
    gains = precisions - reference
    gains = gains[~np.isnan(gains)]
    if len(gains) < 2:
        return 0.0, 0.0
    mean = float(gains.mean())
    return mean, mean - float(gains.std(ddof=1)) / len(gains) ** 0.5


def best_share(curves: Sequence[Floats], shares: Sequence[float]) -> float:
    """The share with the largest sure gain over the first, which is the start; the first where none gains.

    curves: for each share, the held-back classes' AP [C].
    """
    sure = [sure_gain(curve, curves[0])[1] for curve in curves]
    return shares[int(np.argmax(sure))]
