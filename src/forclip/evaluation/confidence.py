"""What a calibration is worth on a gallery with labels: for base classes, and for novel ones, which it never saw.

Each class is asked once as it is, and once of the gallery without the images that show it: then none is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from forclip.calibration.model import WANTED_PRECISION, Calibration, Scores, estimate_confidence, estimate_probabilities
from forclip.evaluation.metrics import ranking
from forclip.evaluation.reliability import (
    NUM_BINS,
    PAIRS,
    Pairs,
    PairsResult,
    Reliability,
    evaluate_probabilities,
)
from forclip.types import Bools, ClassSplit, Doubles

Side = Literal["base", "novel"]
SIDES: tuple[Side, ...] = ("base", "novel")


@dataclass(frozen=True)
class GroupConfidence:
    """Of one side's classes that some image shows. Fractions.

    pairs: reliability and Brier score by kind of pairs. kept_classes: the share of classes with a cut-off above 0;
    kept_precision, kept_recall: over the images above the cut-offs, None where there are none, and of all right ones.
    count_factor: by what factor the expected number of images is off, the median over classes, 1 at best, and
    count_factor_of_rate that of guessing the calibration's rate for every class; None for a federated gallery, in which
    nobody knows the number. false_alarms: classes called absent that are there; caught:
    classes called absent once the images that show them are taken out.
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


ConfidenceReport = dict[Side, GroupConfidence]


def evaluate_confidence(
    calibration: Calibration,
    scores: Scores,
    labels: Bools,
    class_names: Sequence[str],
    split: ClassSplit,
    verified: Bools | None = None,
    distractors: bool = True,
) -> ConfidenceReport:
    """Arguments as evaluate_scores takes them. A text is judged by its scores over all images searched; only verified
    pairs count. Without a side: no class of it is shown by an image, or the gallery is too small to say anything."""
    known = np.ones_like(labels) if verified is None else verified
    relevant = labels & known
    columns = [class_names.index(name) for name in (*split.base, *split.novel)]
    if not distractors:
        shown = relevant[:, columns].any(1)
        scores, relevant, known = scores[shown], relevant[shown], known[shown]
    found: ConfidenceReport = {}
    for side, names in zip(SIDES, (split.base, split.novel), strict=True):
        gathered = _Gathered()
        for column in (class_names.index(name) for name in names):
            gathered.add(calibration, scores[:, column], relevant[:, column], known[:, column])
        if gathered.scores:
            found[side] = gathered.result(federated=not known.all())
    return found


@dataclass
class _Gathered:
    """Of each class of a side."""

    scores: list[Scores] = field(default_factory=list)
    sure: list[Doubles] = field(default_factory=list)
    relevant: list[Bools] = field(default_factory=list)
    known: list[Bools] = field(default_factory=list)
    kept: list[tuple[int, int, int]] = field(default_factory=list)  # verified images above the cut-off, right ones, all
    factors: list[float] = field(default_factory=list)
    rate_factors: list[float] = field(default_factory=list)
    alarms: list[bool] = field(default_factory=list)
    caught: list[bool] = field(default_factory=list)

    def add(self, calibration: Calibration, scores: Scores, relevant: Bools, known: Bools) -> None:
        """[I] each. A class that no image shows is passed over."""
        order = ranking(scores)
        judged = estimate_confidence(calibration, scores[order], scores, len(scores)) if relevant.any() else None
        if judged is None:
            return
        above = order[: judged.cutoff]
        right = int(relevant.sum())
        self.scores.append(scores)
        self.sure.append(estimate_probabilities(calibration, scores.astype(np.float64), scores.astype(np.float64)))
        self.relevant.append(relevant)
        self.known.append(known)
        self.kept.append((int(known[above].sum()), int(relevant[above].sum()), right))
        self.factors.append(_factor(judged.expected_images, right))
        self.rate_factors.append(_factor(calibration.rate * len(scores), right))
        self.alarms.append(judged.nothing_here)
        rest = order[~relevant[order]]
        without = estimate_confidence(calibration, scores[rest], scores[rest], len(rest))
        self.caught.append(without is not None and without.nothing_here)

    def result(self, federated: bool) -> GroupConfidence:
        above, right, there = np.array(self.kept).sum(0)
        return GroupConfidence(
            classes=len(self.scores),
            pairs=evaluate_probabilities(
                np.stack(self.sure, 1),
                np.stack(self.scores, 1),
                np.stack(self.relevant, 1),
                np.stack(self.known, 1),
            ),
            kept_classes=float(np.mean([kept > 0 for kept, _, _ in self.kept])),
            kept_precision=float(right / above) if above else None,
            kept_recall=float(right / there),
            count_factor=None if federated else float(np.median(self.factors)),
            count_factor_of_rate=None if federated else float(np.median(self.rate_factors)),
            false_alarms=float(np.mean(self.alarms)),
            caught=float(np.mean(self.caught)),
        )


def _factor(expected: float, there: int) -> float:
    """How far apart, as a factor of at least 1; no image or less than one counts as one."""
    return float(np.exp(abs(np.log(max(expected, 1.0) / there))))


def summarise_confidence(reports: Sequence[ConfidenceReport]) -> dict[str, Any] | None:
    """For metrics.json: means over seeds, sample standard deviations of the errors beside them, reliability summed up.

    None where no run has a calibration; a seed without a side does not enter its mean.
    """
    found: dict[str, Any] = {}
    for side in SIDES:
        groups = [report[side] for report in reports if side in report]
        if groups:
            found[side] = _summarise_side(groups)
    return {"bins": NUM_BINS, "wanted_precision": WANTED_PRECISION, **found} if found else None


_FIELDS = (
    "kept_classes",
    "kept_precision",
    "kept_recall",
    "count_factor",
    "count_factor_of_rate",
    "false_alarms",
    "caught",
)


def _summarise_side(groups: Sequence[GroupConfidence]) -> dict[str, Any]:
    means = {name: _mean([getattr(group, name) for group in groups]) for name in ("classes", *_FIELDS)}
    return {**means, "pairs": {kind: _summarise_pairs([group.pairs[kind] for group in groups]) for kind in PAIRS}}


def _summarise_pairs(results: Sequence[PairsResult]) -> dict[str, Any]:
    errors = [result.reliability.error for result in results]
    there = [error for error in errors if error is not None]
    summed = results[0].reliability
    for result in results[1:]:
        summed = summed + result.reliability
    return {
        "ece": _mean(errors),
        "ece_std": float(np.std(there, ddof=1)) if len(there) > 1 else 0.0,
        "brier": _mean([result.brier for result in results]),
        "brier_of_rate": _mean([result.brier_of_rate for result in results]),
        "reliability": summed.to_json(),
    }


def read_reliability(content: dict[str, Any]) -> Reliability:
    """What summarise_confidence wrote of it."""
    return Reliability(tuple(content["counts"]), tuple(content["predicted"]), tuple(content["observed"]))


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


_KINDS: dict[Pairs, str] = {
    "top 50": "each class's 50 best images",
    "above 0.05": "images with a probability above 0.05",
    "all": "all images, nearly all of them easy",
}
_DRAWN: Pairs = "top 50"
