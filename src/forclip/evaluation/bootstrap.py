"""Percentile bootstrap intervals of a mean over classes (Efron, 1979). NumPy only.

The classes of a group are drawn again with replacement, as many as there are; the interval is that of the new means.
"""

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
    """The interval that holds the mean in 95 % of the resamples; None for fewer than two classes.

    values: [S, C], a row per training seed and a column per class, NaN if a seed lacks the class. A resample draws the
    same classes for every seed. The mean is over seeds, of each seed's mean over its classes.
    """
    assert values.ndim == 2
    if values.shape[1] < 2:
        return None
    means = np.nanmean(resampled_means(values, resamples, seed), axis=1)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def resampled_means(values: Doubles, resamples: int = RESAMPLES, seed: int = SEED) -> Doubles:
    """[S, C] values to [resamples, S]: each seed's mean over the drawn classes, NaN if the seed has none of them."""
    present = np.isfinite(values)
    filled = np.where(present, values, 0.0)
    num_classes = values.shape[1]
    rng = np.random.default_rng(seed)
    size = max(1, _BLOCK_DRAWS // num_classes)
    blocks = []
    for start in range(0, resamples, size):
        rows = min(size, resamples - start)
        drawn = rng.integers(0, num_classes, (rows, num_classes))
        drawn += num_classes * np.arange(rows)[:, None]  # so that one count serves all rows
        counts = np.bincount(drawn.ravel(), minlength=rows * num_classes).reshape(rows, num_classes).astype(np.float64)
        with np.errstate(invalid="ignore"):  # a seed without any of the drawn classes
            blocks.append((counts @ filled.T) / (counts @ present.T.astype(np.float64)))
    return np.concatenate(blocks)


def gain_with_bound(precisions: Floats, reference: Floats) -> tuple[float, float]:
    """The mean gain over classes, and the same less one standard error, which chance is unlikely to give.

    precisions, reference: [C], the same classes. Both results are 0 for fewer than two comparable classes.
    """
    gains = precisions - reference
    gains = gains[~np.isnan(gains)]
    if len(gains) < 2:
        return 0.0, 0.0
    mean = float(gains.mean())
    return mean, mean - float(gains.std(ddof=1)) / len(gains) ** 0.5
