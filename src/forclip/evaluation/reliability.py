"""Compare probabilities with outcomes: reliability, expected calibration error, Brier score. NumPy only.

A pair is an image and a class that it is searched for. Most pairs are easy negatives with a probability near 0, so an
error over all pairs is always small. A user sees the top of a ranked list instead: `top 50` has the pairs of each
class's 50 best images, `above 0.05` those with a higher probability than that.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Literal

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
    """Pairs in NUM_BINS bins of equal width by probability.

    counts: the pairs in each bin; predicted: the sum of their probabilities; observed: how many are right. These are
    sums, so that the reliabilities of several seeds add up.
    """

    counts: list[int]
    predicted: list[float]
    observed: list[int]

    @property
    def pairs(self) -> int:
        """The number of pairs in all bins."""
        return sum(self.counts)

    @property
    def error(self) -> float | None:
        """The expected calibration error (arXiv 1706.04599), as a fraction; None without a pair.

        This is the distance between the share of right pairs and their mean probability, averaged over bins weighted by
        pairs.
        """
        if not self.pairs:
            return None
        return float(np.abs(np.subtract(self.predicted, self.observed)).sum()) / self.pairs

    def __add__(self, other: "Reliability") -> "Reliability":
        sums = (np.add(mine, theirs).tolist() for mine, theirs in zip(astuple(self), astuple(other), strict=True))
        return Reliability(*sums)


def reliability(probabilities: Doubles, relevant: Bools) -> Reliability:
    """Sort [pairs] probabilities into bins. A bin includes its lower edge; the last also includes 1."""
    bins = np.minimum((probabilities * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    predicted = np.bincount(bins, probabilities, NUM_BINS)
    observed = np.bincount(bins[relevant], minlength=NUM_BINS)
    return Reliability(counts.tolist(), predicted.tolist(), observed.tolist())


def brier(probabilities: Doubles, relevant: Bools) -> float:
    """The mean squared distance of [pairs] probabilities from 0 or 1 (Brier 1950); NaN without a pair."""
    return float(np.mean((probabilities - relevant) ** 2)) if len(relevant) else float("nan")


@dataclass(frozen=True)
class PairsResult:
    """The result for one kind of pairs.

    brier_of_rate: the Brier score of always predicting the share of right pairs, the best that a constant can do. Both
    scores are None without a pair.
    """

    reliability: Reliability
    brier: float | None
    brier_of_rate: float | None


def evaluate_probabilities(
    probabilities: Doubles, scores: NDArray[np.floating], relevant: Bools, verified: Bools | None = None
) -> dict[Pairs, PairsResult]:
    """Evaluate the probabilities of each kind of pairs.

    All arguments are [I, C], with rows in the order that breaks ties. Unverified pairs don't count and take no rank.
    """
    known = np.ones_like(relevant) if verified is None else verified
    top = np.zeros_like(relevant)
    for column, order in column_rankings(scores, range(scores.shape[1])):
        top[order[known[order, column]][:_TOP_RANKS], column] = True
    masks: Mapping[Pairs, Bools] = {"top 50": top, "above 0.05": known & (probabilities > _LIKELY), "all": known}
    results: dict[Pairs, PairsResult] = {}
    for pairs, mask in masks.items():
        p, right = probabilities[mask], relevant[mask]
        errors = (brier(p, right), brier(np.full(len(right), right.mean()), right)) if len(right) else (None, None)
        results[pairs] = PairsResult(reliability(p, right), *errors)
    return results
