"""How far a mean over classes would move with other classes: percentile bootstrap intervals. NumPy only.

The classes of a group are drawn again with replacement, as many as there are, and their mean taken anew (Efron, 1979).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from forclip.types import Doubles, Floats

Interval = tuple[float, float]

RESAMPLES, LEVEL, SEED = 10_000, 0.95, 0
_BLOCK_DRAWS = 1 << 20  # draws held at once: 8 MiB

DESCRIPTION: dict[str, Any] = {
    "method": "percentile bootstrap",
    "over": "classes",
    "level": LEVEL,
    "resamples": RESAMPLES,
    "seed": SEED,
}


def mean_interval(values: Doubles, resamples: int = RESAMPLES, seed: int = SEED) -> Interval | None:
    """Where the mean lies in 95 % of the resamples; None for fewer than two classes, which say nothing of others.

    values: [S, C], a row for each training seed and a column for each class, NaN where a seed has no such class; a
    resample draws the same classes for every seed. The mean is over seeds, of each seed's mean over its classes.
    """
    assert values.ndim == 2
    if values.shape[1] < 2:
        return None
    means = np.nanmean(resampled_means(values, resamples, seed), axis=1)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def resampled_means(values: Doubles, resamples: int = RESAMPLES, seed: int = SEED) -> Doubles:
    """values: [S, C]. Returns [resamples, S]: each row's mean over the classes drawn, NaN where it has none of them."""
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    blocks = []
    for counts in _drawn_counts(values.shape[1], resamples, seed):
        with np.errstate(invalid="ignore"):  # a seed without any of the classes drawn
            blocks.append((counts @ filled.T) / (counts @ present.T.astype(np.float64)))
    return np.concatenate(blocks)


def _drawn_counts(num_classes: int, resamples: int, seed: int) -> Iterator[Doubles]:
    """How often each class was drawn, [block, num_classes], block by block."""
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK_DRAWS // num_classes)
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = rng.integers(0, num_classes, (rows, num_classes))
        drawn += num_classes * np.arange(rows)[:, None]  # so that one count serves all rows
        counts = np.bincount(drawn.ravel(), minlength=rows * num_classes)
        yield counts.reshape(rows, num_classes).astype(np.float64)


def gain_with_bound(precisions: Floats, reference: Floats) -> tuple[float, float]:
    """Mean gain over classes, and that less one standard error: what chance is unlikely to have given.

    precisions, reference: [C], the same classes. Without two classes to compare, both are 0.
    """
    gains = precisions - reference
    gains = gains[~np.isnan(gains)]
    if len(gains) < 2:
        return 0.0, 0.0
    mean = float(gains.mean())
    return mean, mean - float(gains.std(ddof=1)) / len(gains) ** 0.5
