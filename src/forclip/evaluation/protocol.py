"""Evaluate one method's scores on the base and the novel classes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from forclip.evaluation.metrics import (
    DENOMINATORS,
    Denominator,
    RankCurves,
    column_rankings,
    rank_curves,
    ranked_average_precision,
    ranked_precision,
    ranked_recall,
)
from forclip.text.vocabulary import did_you_mean
from forclip.types import Bools, ClassSplit

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


def evaluate_scores(
    scores: NDArray[np.floating],
    labels: Bools,
    class_names: Sequence[str],
    split: ClassSplit,
    min_relevant: int = 1,
    k: int = 50,
    verified: Bools | None = None,
    distractors: bool = True,
) -> RetrievalReport:
    """Ranks the images by each class's scores and averages over the classes of each group.

    scores, labels: [I, C], rows in the order of image ids, which breaks ties; class_names: [C]. verified: [I, C], which
    labels someone has checked: a class is ranked over its verified images only (federated, LVIS, arXiv 1908.03195), and
    beside it, the same classes over all images, where an unverified label counts as not relevant. None: all are.
    distractors: images that show no class of the split stay to be searched; else they are taken out before.
    Left out, and listed: classes with fewer than min_relevant relevant images, with no irrelevant one, or in no group.
    Raises ValueError for a NaN score, a class of the split that has no column, and min_relevant or k below 1.
    """
    assert scores.shape == labels.shape
    assert scores.shape[1] == len(class_names)
    assert verified is None or verified.shape == labels.shape
    for name, value in (("min_relevant", min_relevant), ("k", k)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    for name in (*split.base, *split.novel):
        if name not in class_names:
            raise ValueError(f"class {name!r} of the split has no scores{did_you_mean(name, class_names)}")
    _refuse_nan(scores, class_names)
    searched = _searched(scores, labels, verified, class_names, split, distractors)
    left_out = _left_out(searched, class_names, split, min_relevant)
    without = {c.name for c in left_out}
    kept = {column: name for column, name in enumerate(class_names) if name not in without}
    over_all, over_verified = _ranked(searched, kept)
    ranked = over_all if searched.verified is None else over_verified
    group_of = _groups(split)
    members: dict[str, list[str]] = {g: [n for n in ranked if g in ("all", group_of[n])] for g in GROUPS}
    other: dict[Protocol, dict[Group, float | None]] = {}
    if searched.verified is not None:
        other["all images"] = {g: _mean_percent(over_all, members[g], k) for g in GROUPS}
    return RetrievalReport(
        k=k,
        protocol="all images" if searched.verified is None else "verified images",
        images=len(searched.scores),
        distractors=searched.distractors,
        distractors_kept=distractors,
        means={d: {g: _mean_percent(ranked, members[g], k, d) for g in GROUPS} for d in DENOMINATORS},
        other_protocols=other,
        curves=rank_curves(ranked, members, len(searched.scores)),
        classes=tuple(_class_result(name, group_of[name], of_class, k) for name, of_class in ranked.items()),
        left_out=left_out,
        empty_groups=tuple(LeftOut(g, _why_empty(g, split, min_relevant)) for g in GROUPS if not members[g]),
    )


@dataclass(frozen=True)
class _Searched:
    """What is ranked. scores, relevant: [I, C]; verified: likewise, or None; distractors: how many, in or out."""

    scores: NDArray[np.floating]
    relevant: Bools
    verified: Bools | None
    distractors: int


def _searched(
    scores: NDArray[np.floating],
    labels: Bools,
    verified: Bools | None,
    class_names: Sequence[str],
    split: ClassSplit,
    distractors: bool,
) -> _Searched:
    if verified is not None and verified.all():
        verified = None
    relevant = labels if verified is None else labels & verified
    group_of = _groups(split)
    shows_some = relevant[:, [name in group_of for name in class_names]].any(axis=1)
    found = _Searched(scores, relevant, verified, int((~shows_some).sum()))
    if distractors:
        return found
    of_rest = None if verified is None else verified[shows_some]
    return replace(found, scores=scores[shows_some], relevant=relevant[shows_some], verified=of_rest)


def _groups(split: ClassSplit) -> dict[str, Literal["base", "novel"]]:
    base, novel = dict.fromkeys(split.base, "base"), dict.fromkeys(split.novel, "novel")
    return cast(dict[str, Literal["base", "novel"]], {**base, **novel})


def _ranked(searched: _Searched, kept: Mapping[int, str]) -> tuple[dict[str, Bools], dict[str, Bools]]:
    """By class, whether the image at each rank is relevant: over all images, and over the verified ones if given.

    One sorting serves both: the ranking of some images is the ranking of all without the others.
    """
    over_all: dict[str, Bools] = {}
    over_verified: dict[str, Bools] = {}
    for column, order in column_rankings(searched.scores, list(kept)):
        hits = searched.relevant[:, column][order]
        over_all[kept[column]] = hits
        if searched.verified is not None:
            over_verified[kept[column]] = hits[searched.verified[:, column][order]]
    return over_all, over_verified


def _mean_percent(
    ranked: Mapping[str, Bools], names: list[str], k: int, denominator: Denominator = "min(k,R)"
) -> float | None:
    if not names:
        return None
    return 100 * float(np.mean([ranked_average_precision(ranked[name], k, denominator) for name in names]))


def _class_result(name: str, group: Literal["base", "novel"], ranked: Bools, k: int) -> ClassResult:
    return ClassResult(
        name=name,
        group=group,
        num_images=len(ranked),
        num_relevant=int(ranked.sum()),
        average_precision=100 * ranked_average_precision(ranked, k),
        precision_at_10=100 * ranked_precision(ranked, 10),
        recall_at_50=100 * ranked_recall(ranked, 50),
    )


def _left_out(
    searched: _Searched, class_names: Sequence[str], split: ClassSplit, min_relevant: int
) -> tuple[LeftOut, ...]:
    evaluated = _groups(split)
    relevant, verified = searched.relevant, searched.verified
    among = np.full(len(class_names), len(relevant)) if verified is None else verified.sum(axis=0)
    images = "images" if verified is None else "verified images"
    found = []
    for name, count, total in zip(class_names, relevant.sum(axis=0), among, strict=True):
        if name not in evaluated:
            found.append(LeftOut(name, "neither base nor novel"))
        elif count < min_relevant:
            found.append(LeftOut(name, f"{count} relevant images, fewer than {min_relevant}"))
        elif count == total:
            found.append(LeftOut(name, f"all {total} {images} show it, so that any ranking of them is perfect"))
    return tuple(found)


def _why_empty(group: Group, split: ClassSplit, min_relevant: int) -> str:
    if group == "novel" and not split.novel:
        return "the split has no novel class"
    of_group = "" if group == "all" else f"{group} "
    return f"no {of_group}class has {min_relevant} or more relevant images and an irrelevant one"


def _refuse_nan(scores: NDArray[np.floating], class_names: Sequence[str]) -> None:
    bad = np.argwhere(np.isnan(scores))
    if len(bad):
        row, column = bad[0]
        raise ValueError(f"the score of row {row} for class {class_names[column]!r} is NaN")
