"""Evaluate probabilities and calibrations on a labelled gallery: reliability, calibration error, Brier score, cut-offs.

A pair is an image and a class that it is searched for. Most pairs are easy negatives with a probability near 0, so an
error over all pairs is always small. A user sees the top of a ranked list instead: `top 50` has the pairs of each
class's 50 best images, `above 0.05` those with a higher probability than that.

A calibration is evaluated for base classes and for novel ones, which it has never seen. Each class is searched twice:
in the whole gallery, and in the gallery without the images that show the class, where the right answer is that nothing
is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from forclip.calibration.model import WANTED_PRECISION, Calibration, Scores, estimate_confidence, estimate_probabilities
from forclip.evaluation.metrics import column_rankings, ranking
from forclip.evaluation.protocol import CLASS_GROUPS, ClassGroup
from forclip.types import Bools, ClassSplit, Doubles

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


@dataclass(frozen=True)
class GroupConfidence:
    """The evaluation of one group's classes that some image shows. Fractions.

    pairs: reliability and Brier score by kind of pairs. kept_classes: the share of classes with a cut-off above 0.
    kept_precision: the share of right images above the cut-offs, None if none is above; kept_recall: the share of all
    right images that is above them.
    count_factor: the factor by which the expected number of images is wrong, the median over classes, 1 at best;
    count_factor_of_rate: the same for guessing the calibration's rate for every class. Both are None for a federated
    gallery, in which the number is unknown.
    false_alarms: the share of classes reported absent although images show them; caught: the share of classes reported
    absent once the images that show them are removed.
    """

    classes: int
    pairs: dict[Pairs, PairsResult]
    kept_classes: float
    kept_precision: float | None
    kept_recall: float
    count_factor: float | None
    count_factor_of_rate: float | None
    false_alarms: float
    caught: float


ConfidenceReport = dict[ClassGroup, GroupConfidence]


def evaluate_confidence(
    calibration: Calibration,
    scores: Scores,
    labels: Bools,
    class_names: Sequence[str],
    split: ClassSplit,
    verified: Bools | None = None,
    distractors: bool = True,
) -> ConfidenceReport:
    """Evaluate a calibration. The arguments are those of `evaluate_scores`.

    The calibration sees the scores of all images searched; only verified pairs count. A group is missing if no image
    shows a class of it, or if the gallery is too small for a calibration.
    """
    known = np.ones_like(labels) if verified is None else verified
    relevant = labels & known
    if not distractors:
        columns = [class_names.index(name) for name in (*split.base, *split.novel)]
        shown = relevant[:, columns].any(1)
        scores, relevant, known = scores[shown], relevant[shown], known[shown]
    report: ConfidenceReport = {}
    for group, names in zip(CLASS_GROUPS, (split.base, split.novel), strict=True):
        columns = [class_names.index(name) for name in names]
        classes = {
            column: result
            for column in columns
            if (result := _evaluate_class(calibration, scores[:, column], relevant[:, column], known[:, column]))
        }
        if not classes:
            continue
        results, kept, federated = classes.values(), list(classes), not known.all()
        probabilities = np.stack([result.probabilities for result in results], 1)
        above, right_above, right = np.array([result.kept for result in results]).sum(0)
        report[group] = GroupConfidence(
            classes=len(classes),
            pairs=evaluate_probabilities(probabilities, scores[:, kept], relevant[:, kept], known[:, kept]),
            kept_classes=float(np.mean([result.kept[0] > 0 for result in results])),
            kept_precision=float(right_above / above) if above else None,
            kept_recall=float(right_above / right),
            count_factor=None if federated else float(np.median([result.factor for result in results])),
            count_factor_of_rate=None if federated else float(np.median([result.rate_factor for result in results])),
            false_alarms=float(np.mean([result.false_alarm for result in results])),
            caught=float(np.mean([result.caught for result in results])),
        )
    return report


@dataclass(frozen=True)
class _ClassResult:
    """kept: verified and right images above the cut-off, and all right images. The others are as in GroupConfidence."""

    probabilities: Doubles
    kept: tuple[int, int, int]
    factor: float
    rate_factor: float
    false_alarm: bool
    caught: bool


def _evaluate_class(calibration: Calibration, scores: Scores, relevant: Bools, known: Bools) -> _ClassResult | None:
    """Evaluate a class; None if no image shows it, or for too small a gallery. All arrays are [I]."""
    order = ranking(scores)
    confidence = estimate_confidence(calibration, scores[order], scores, len(scores)) if relevant.any() else None
    if confidence is None:
        return None
    above = order[: confidence.cutoff]
    num_right = int(relevant.sum())
    wide = scores.astype(np.float64)
    rest = order[~relevant[order]]
    without = estimate_confidence(calibration, scores[rest], scores[rest], len(rest))
    return _ClassResult(
        probabilities=estimate_probabilities(calibration, wide, wide),
        kept=(int(known[above].sum()), int(relevant[above].sum()), num_right),
        factor=_factor(confidence.expected_images, num_right),
        rate_factor=_factor(calibration.rate * len(scores), num_right),
        false_alarm=confidence.nothing_here,
        caught=without is not None and without.nothing_here,
    )


def _factor(expected: float, actual: int) -> float:
    """The ratio of two counts, at least 1; an expected count below one counts as one."""
    return float(np.exp(abs(np.log(max(expected, 1.0) / actual))))


def summarise_confidence(reports: Sequence[ConfidenceReport]) -> dict[str, Any] | None:
    """Summarise the reports of several seeds for metrics.json; None if no report has a group.

    Values are means over the seeds that have the group, with the sample standard deviation of the errors; reliability
    is summed.
    """
    summaries: dict[str, Any] = {}
    for group in CLASS_GROUPS:
        results = [report[group] for report in reports if group in report]
        if results:
            numbers = [field.name for field in fields(GroupConfidence) if field.name != "pairs"]
            summaries[group] = {name: _mean([getattr(result, name) for result in results]) for name in numbers}
            summaries[group]["pairs"] = {kind: _summarise_pairs([r.pairs[kind] for r in results]) for kind in PAIRS}
    return {"bins": NUM_BINS, "wanted_precision": WANTED_PRECISION, **summaries} if summaries else None


def _summarise_pairs(results: Sequence[PairsResult]) -> dict[str, Any]:
    errors = [result.reliability.error for result in results]
    present = [error for error in errors if error is not None]
    return {
        "ece": _mean(errors),
        "ece_std": float(np.std(present, ddof=1)) if len(present) > 1 else 0.0,
        "brier": _mean([result.brier for result in results]),
        "brier_of_rate": _mean([result.brier_of_rate for result in results]),
        "reliability": asdict(reduce(add, (result.reliability for result in results))),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
