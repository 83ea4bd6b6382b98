"""Evaluate one method's scores on the base and the novel classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forclip.evaluation.metrics import (
    AP_DEPTH,
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

Protocol = Literal["all images", "verified images"]  # the images that each class is ranked over
ClassGroup = Literal["base", "novel"]
CLASS_GROUPS: tuple[ClassGroup, ...] = ("base", "novel")
Group = Literal["base", "novel", "all"]
GROUPS: tuple[Group, ...] = ("base", "novel", "all")


@dataclass(frozen=True)
class ClassResult:
    """One class as a text query.

    num_images: how many images were ranked; num_relevant: how many of them show the class (R). The metrics are in
    percent; average_precision is AP@k over min(k, R).
    """

    name: str
    group: ClassGroup
    num_images: int
    num_relevant: int
    average_precision: float
    precision_at_10: float
    recall_at_50: float


@dataclass(frozen=True)
class LeftOut:
    """A class or a group without a value, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class RetrievalReport:
    """The evaluation of one method on one dataset: means over classes, in percent.

    k: the number of ranks that count. protocol: whether classes are ranked over all images or their verified images.
    images: how many were searched. distractors: how many images show no class of the split; they are among the images
    searched if distractors_kept. means[denominator][group]: None for a group in which no class was evaluated.
    other_protocols[protocol][group]: the same classes under the other protocol, over min(k, R). classes: the evaluated
    ones; left_out: the others; empty_groups: the groups whose mean is None.
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


def metric_name(k: int, denominator: Denominator) -> str:
    """The full name of AP@k, such as `map_at_50/min(50,R)`."""
    return f"map_at_{k}/{denominator.replace('k', str(k))}"


def evaluate_scores(
    scores: NDArray[np.floating],
    labels: Bools,
    class_names: Sequence[str],
    split: ClassSplit,
    min_relevant: int = 1,
    k: int = AP_DEPTH,
    verified: Bools | None = None,
    distractors: bool = True,
) -> RetrievalReport:
    """Rank the images by each class's scores and average over the classes of each group.

    scores, labels: [I, C], rows in the order of image ids, which breaks ties; class_names: [C].
    verified: [I, C], which labels are verified, or None for all. With unverified labels (a federated dataset such as
    LVIS, arXiv 1908.03195) a class is ranked over its verified images only; other_protocols has the same classes over
    all images, where an unverified label counts as not relevant.
    distractors: whether images that show no class of the split stay among the images searched.
    Classes are left out, with the reason, if fewer than min_relevant images or all images show them, or if they are in
    no group. Raises ValueError for a NaN score, a class of the split without scores, and min_relevant or k below 1.
    """
    assert scores.shape == labels.shape
    assert scores.shape[1] == len(class_names)
    assert verified is None or verified.shape == labels.shape
    for argument, value in (("min_relevant", min_relevant), ("k", k)):
        if value < 1:
            raise ValueError(f"{argument} must be at least 1, not {value}")
    group_of: dict[str, ClassGroup] = {**dict.fromkeys(split.base, "base"), **dict.fromkeys(split.novel, "novel")}
    for name in group_of:
        if name not in class_names:
            raise ValueError(f"class {name!r} of the split has no scores{did_you_mean(name, class_names)}")
    wrong = np.argwhere(np.isnan(scores))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(f"the score of row {row} for class {class_names[column]!r} is NaN")
    if verified is not None and verified.all():
        verified = None
    relevant = labels if verified is None else labels & verified
    shows_class = relevant[:, [name in group_of for name in class_names]].any(axis=1)
    if not distractors:
        scores, relevant = scores[shows_class], relevant[shows_class]
        verified = None if verified is None else verified[shows_class]
    left_out = _left_out(relevant, verified, class_names, group_of, min_relevant)
    excluded = {c.name for c in left_out}
    kept = {column: name for column, name in enumerate(class_names) if name not in excluded}
    # By class, whether the image at each rank is relevant. One sorting serves both: the ranking of a subset is the
    # ranking of all images without the others.
    over_all: dict[str, Bools] = {}
    ranked: dict[str, Bools] = {}
    for column, order in column_rankings(scores, list(kept)):
        hits = over_all[kept[column]] = relevant[:, column][order]
        ranked[kept[column]] = hits if verified is None else hits[verified[:, column][order]]
    members: dict[str, list[str]] = {g: [n for n in ranked if g in ("all", group_of[n])] for g in GROUPS}
    other: dict[Protocol, dict[Group, float | None]] = {}
    if verified is not None:
        other["all images"] = {g: _mean_percent(over_all, members[g], k) for g in GROUPS}
    return RetrievalReport(
        k=k,
        protocol="all images" if verified is None else "verified images",
        images=len(scores),
        distractors=int((~shows_class).sum()),
        distractors_kept=distractors,
        means={d: {g: _mean_percent(ranked, members[g], k, d) for g in GROUPS} for d in DENOMINATORS},
        other_protocols=other,
        curves=rank_curves(ranked, members, len(scores)),
        classes=tuple(
            ClassResult(
                name=name,
                group=group_of[name],
                num_images=len(hits),
                num_relevant=int(hits.sum()),
                average_precision=100 * ranked_average_precision(hits, k),
                precision_at_10=100 * ranked_precision(hits, 10),
                recall_at_50=100 * ranked_recall(hits, 50),
            )
            for name, hits in ranked.items()
        ),
        left_out=left_out,
        empty_groups=tuple(LeftOut(g, _why_empty(g, split, min_relevant)) for g in GROUPS if not members[g]),
    )


def _mean_percent(
    ranked: Mapping[str, Bools], names: list[str], k: int, denominator: Denominator = "min(k,R)"
) -> float | None:
    if not names:
        return None
    return 100 * float(np.mean([ranked_average_precision(ranked[name], k, denominator) for name in names]))


def _left_out(
    relevant: Bools,
    verified: Bools | None,
    class_names: Sequence[str],
    group_of: Mapping[str, ClassGroup],
    min_relevant: int,
) -> tuple[LeftOut, ...]:
    totals = np.full(len(class_names), len(relevant)) if verified is None else verified.sum(axis=0)
    images = "images" if verified is None else "verified images"
    left_out = []
    for name, count, total in zip(class_names, relevant.sum(axis=0), totals, strict=True):
        if name not in group_of:
            left_out.append(LeftOut(name, "neither base nor novel"))
        elif count < min_relevant:
            left_out.append(LeftOut(name, f"{count} relevant images, fewer than {min_relevant}"))
        elif count == total:
            left_out.append(LeftOut(name, f"all {total} {images} show it, so that any ranking of them is perfect"))
    return tuple(left_out)


def _why_empty(group: Group, split: ClassSplit, min_relevant: int) -> str:
    if group == "novel" and not split.novel:
        return "the split has no novel class"
    kind = "" if group == "all" else f"{group} "
    return f"no {kind}class has {min_relevant} or more relevant images and an irrelevant one"
