"""Whether probabilities mean what they say: reliability, expected calibration error, Brier score. NumPy only.

A pair is an image and a class that it was asked for. Most pairs are easy negatives with a probability near 0, so an
error over all of them is small whatever the probabilities are worth. What a reader of a ranked list meets is its top:
`top 50` is the pairs of each class's 50 best images, `above 0.05` those whose probability is above that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forclip.evaluation.metrics import column_rankings
from forclip.types import Bools, Doubles

Pairs = Literal["top 50", "above 0.05", "all"]
PAIRS: tuple[Pairs, ...] = ("top 50", "above 0.05", "all")
NUM_BINS = 10
_TOP_RANKS, _LIKELY = 50, 0.05


@dataclass(frozen=True)
class Reliability:
    """Pairs in bins of equal width by their probability: [NUM_BINS] each.

    counts: pairs in a bin; predicted: the sum of their probabilities; observed: how many are right. Sums, so that
    those of several seeds add up.
    """

    counts: tuple[int, ...]
    predicted: tuple[float, ...]
    observed: tuple[int, ...]

    @property
    def pairs(self) -> int:
        return sum(self.counts)

    @property
    def error(self) -> float | None:
        """ECE, the expected calibration error (arXiv 1706.04599): how far the share of right pairs is from their mean
        probability, a mean over bins weighted by pairs. A fraction; None without a pair."""
        if not self.pairs:
            return None
        return float(np.abs(np.subtract(self.predicted, self.observed)).sum()) / self.pairs

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(
            tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            tuple(a + b for a, b in zip(self.predicted, other.predicted, strict=True)),
            tuple(a + b for a, b in zip(self.observed, other.observed, strict=True)),
        )

    def to_json(self) -> dict[str, Any]:
        return {"counts": list(self.counts), "predicted": list(self.predicted), "observed": list(self.observed)}


def reliability(probabilities: Doubles, relevant: Bools) -> Reliability:
    """[pairs] each. A bin holds its lower edge; the last holds 1 as well."""
    bins = np.minimum((probabilities * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    predicted = np.bincount(bins, probabilities, NUM_BINS)
    observed = np.bincount(bins[relevant], minlength=NUM_BINS)
    return Reliability(tuple(counts.tolist()), tuple(predicted.tolist()), tuple(observed.tolist()))


def brier(probabilities: Doubles, relevant: Bools) -> float:
    """The mean squared distance of probabilities from 0 or 1 (Brier 1950). [pairs] each; NaN without a pair."""
    return float(np.mean((probabilities - relevant) ** 2)) if len(relevant) else float("nan")


@dataclass(frozen=True)
class PairsResult:
    """One kind of pairs. brier_of_rate: the Brier score of saying the pairs' own share of right ones every time, which
    is the best that one number can do; both None without a pair."""

    reliability: Reliability
    brier: float | None
    brier_of_rate: float | None


def evaluate_probabilities(
    probabilities: Doubles, scores: NDArray[np.floating], relevant: Bools, verified: Bools | None = None
) -> dict[Pairs, PairsResult]:
    """[I, C] each, rows in the order that breaks ties; the columns are classes. Unverified pairs don't count, and take
    no place among a class's best."""
    known = np.ones_like(relevant) if verified is None else verified
    top = np.zeros_like(relevant)
    for column, order in column_rankings(scores, range(scores.shape[1])):
        top[order[known[order, column]][:_TOP_RANKS], column] = True
    chosen: Mapping[Pairs, Bools] = {"top 50": top, "above 0.05": known & (probabilities > _LIKELY), "all": known}
    return {pairs: _result(probabilities[where], relevant[where]) for pairs, where in chosen.items()}


def _result(probabilities: Doubles, relevant: Bools) -> PairsResult:
    if not len(relevant):
        return PairsResult(reliability(probabilities, relevant), None, None)
    rate = np.full(len(relevant), relevant.mean())
    return PairsResult(reliability(probabilities, relevant), brier(probabilities, relevant), brier(rate, relevant))
