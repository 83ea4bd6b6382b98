"""Which training images are labelled when only a fraction is: nested, seeded, and covering the classes first."""

import math

import numpy as np

from forclip.types import Bools, Ints


def labelled_rows(labels: Bools, fraction: float, seed: int) -> Ints:
    """labels: [I, C]. Returns ceil(fraction x I) sorted rows, at least one.

    A smaller fraction's rows are among a larger one's, with the same seed. Raises ValueError unless 0 < fraction <= 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"labelled_fraction must be above 0 and at most 1, not {fraction}")
    return np.sort(_order(labels, seed)[: math.ceil(fraction * len(labels))])


def _order(labels: Bools, seed: int) -> Ints:
    """All rows: each next one shows the most classes not shown yet, ties in random order; then the rest at random."""
    remaining = np.random.default_rng(seed).permutation(len(labels))
    uncovered, chosen = labels.any(0), []
    while uncovered.any():
        best = int(labels[remaining][:, uncovered].sum(1).argmax())
        chosen.append(remaining[best])
        uncovered = uncovered & ~labels[remaining[best]]
        remaining = np.delete(remaining, best)
    return np.concatenate([np.array(chosen, np.int64), remaining])
