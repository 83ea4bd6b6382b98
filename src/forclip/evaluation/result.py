"""What one method's evaluation on one dataset found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from forclip.evaluation.curves import RankCurves
from forclip.evaluation.metrics import DENOMINATORS, Denominator

Protocol = Literal["all images", "verified images"]  # over which images a class is ranked
Group = Literal["base", "novel", "all"]
GROUPS: tuple[Group, ...] = ("base", "novel", "all")


@dataclass(frozen=True)
class ClassResult:
    """One class used as a text query. num_images: those that it was ranked over; num_relevant: of them, show it (R).

    The rest are percentages. average_precision: AP@k over min(k, R).
    """

    name: str
    group: Literal["base", "novel"]
    num_images: int
    num_relevant: int
    average_precision: float
    precision_at_10: float
    recall_at_50: float


@dataclass(frozen=True)
class LeftOut:
    """A class or a group without a value, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class RetrievalReport:
    """Means over classes, in percent, under three denominators.

    k: the ranks that count; protocol: whether a class was ranked over all images or over those verified for it.
    means[denominator][group], None for a group in which no class was evaluated; other_protocols[protocol][group]: the
    same classes under the protocol that was not chosen, over min(k, R); curves: recall and precision by rank.
    images: how many were searched; distractors: images that show no base and no novel class, among the images searched
    if distractors_kept, else taken out before.
    classes: those evaluated; left_out: the other classes; empty_groups: the groups whose mean is None.
    """

    k: int
    protocol: Protocol
    images: int
    distractors: int
    distractors_kept: bool
    means: Mapping[Denominator, Mapping[Group, float | None]]
    other_protocols: Mapping[Protocol, Mapping[Group, float | None]]
    curves: RankCurves
    classes: tuple[ClassResult, ...]
    left_out: tuple[LeftOut, ...]
    empty_groups: tuple[LeftOut, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dump, the denominators under their full names."""
        return {
            "metric": metric_name(self.k, "min(k,R)"),
            "protocol": self.protocol,
            "images": self.images,
            "distractors": self.distractors,
            "distractors_kept": self.distractors_kept,
            **{str(group): mean for group, mean in self.means["min(k,R)"].items()},
            "other_denominators": {metric_name(self.k, d): dict(self.means[d]) for d in DENOMINATORS[1:]},
            "other_protocols": {str(name): dict(means) for name, means in self.other_protocols.items()},
            "curves": self.curves.to_json(),
            "classes": [asdict(c) for c in self.classes],
            "left_out": [asdict(c) for c in self.left_out],
            "empty_groups": [asdict(c) for c in self.empty_groups],
        }


def metric_name(k: int, denominator: Denominator) -> str:
    """`map_at_50/min(50,R)`: a number without its variant's name means nothing."""
    return f"map_at_{k}/{denominator.replace('k', str(k))}"
