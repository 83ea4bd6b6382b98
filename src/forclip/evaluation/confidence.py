"""Evaluate a calibration on a labelled gallery, for base classes and for novel ones, which it has never seen.

Each class is searched twice: in the whole gallery, and in the gallery without the images that show the class, where the
right answer is that nothing is there.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import reduce
from operator import add
from typing import Any

import numpy as np

from forclip.calibration.model import WANTED_PRECISION, Calibration, Scores, estimate_confidence, estimate_probabilities
from forclip.evaluation.metrics import ranking
from forclip.evaluation.protocol import CLASS_GROUPS, ClassGroup
from forclip.evaluation.reliability import NUM_BINS, PAIRS, Pairs, PairsResult, Reliability, evaluate_probabilities
from forclip.types import Bools, ClassSplit, Doubles


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
        classes = _Classes()
        for column in (class_names.index(name) for name in names):
            classes.add(calibration, scores[:, column], relevant[:, column], known[:, column])
        if classes.scores:
            report[group] = classes.summarise(federated=not known.all())
    return report


@dataclass
class _Classes:
    """The evaluated classes of a group, one entry each."""

    scores: list[Scores] = field(default_factory=list)
    probabilities: list[Doubles] = field(default_factory=list)
    relevant: list[Bools] = field(default_factory=list)
    known: list[Bools] = field(default_factory=list)
    kept: list[tuple[int, int, int]] = field(default_factory=list)  # verified and right above the cut-off, all right
    factors: list[float] = field(default_factory=list)
    rate_factors: list[float] = field(default_factory=list)
    false_alarms: list[bool] = field(default_factory=list)
    caught: list[bool] = field(default_factory=list)

    def add(self, calibration: Calibration, scores: Scores, relevant: Bools, known: Bools) -> None:
        """Evaluate a class, unless no image shows it. All arrays are [I]."""
        order = ranking(scores)
        confidence = estimate_confidence(calibration, scores[order], scores, len(scores)) if relevant.any() else None
        if confidence is None:
            return
        above = order[: confidence.cutoff]
        num_right = int(relevant.sum())
        self.scores.append(scores)
        wide = scores.astype(np.float64)
        self.probabilities.append(estimate_probabilities(calibration, wide, wide))
        self.relevant.append(relevant)
        self.known.append(known)
        self.kept.append((int(known[above].sum()), int(relevant[above].sum()), num_right))
        self.factors.append(_factor(confidence.expected_images, num_right))
        self.rate_factors.append(_factor(calibration.rate * len(scores), num_right))
        self.false_alarms.append(confidence.nothing_here)
        rest = order[~relevant[order]]
        without = estimate_confidence(calibration, scores[rest], scores[rest], len(rest))
        self.caught.append(without is not None and without.nothing_here)

    def summarise(self, federated: bool) -> GroupConfidence:
        above, right_above, right = np.array(self.kept).sum(0)
        pairs = evaluate_probabilities(
            np.stack(self.probabilities, 1),
            np.stack(self.scores, 1),
            np.stack(self.relevant, 1),
            np.stack(self.known, 1),
        )
        return GroupConfidence(
            classes=len(self.scores),
            pairs=pairs,
            kept_classes=float(np.mean([kept > 0 for kept, _, _ in self.kept])),
            kept_precision=float(right_above / above) if above else None,
            kept_recall=float(right_above / right),
            count_factor=None if federated else float(np.median(self.factors)),
            count_factor_of_rate=None if federated else float(np.median(self.rate_factors)),
            false_alarms=float(np.mean(self.false_alarms)),
            caught=float(np.mean(self.caught)),
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


def read_reliability(content: dict[str, Any]) -> Reliability:
    """Read the reliability that `summarise_confidence` has written."""
    return Reliability(**content)


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
