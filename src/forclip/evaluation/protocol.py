"""Base and novel classes, and the evaluation of one method's scores on both."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forclip.evaluation.metrics import (
    DENOMINATORS,
    Denominator,
    ranked_average_precision,
    ranked_precision,
    ranked_recall,
    ranking,
)
from forclip.evaluation.result import GROUPS, ClassResult, Group, LeftOut, RetrievalReport
from forclip.types import Bools


@dataclass(frozen=True)
class ClassSplit:
    """Class names. base: labelled in finetuning; novel: never labelled, never named in training, may be none.

    Raises ValueError for a class in both or twice in one, and where there is no base class.
    """

    base: tuple[str, ...]
    novel: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.base:
            raise ValueError("a split needs at least one base class")
        both = [name for name in self.base if name in set(self.novel)]
        if both:
            raise ValueError(f"class {both[0]!r} is both base and novel")
        for names in (self.base, self.novel):
            repeated = [name for k, name in enumerate(names) if name in names[:k]]
            if repeated:
                raise ValueError(f"class {repeated[0]!r} is in the split twice")


def split_classes(class_names: Sequence[str], novel_names: Sequence[str]) -> ClassSplit:
    """Everything not novel is base, both in the order of class_names. Raises ValueError for an unknown novel name."""
    for name in novel_names:
        if name not in class_names:
            raise ValueError(f"no class is named {name!r}, to be novel{_did_you_mean(name, class_names)}")
    novel = set(novel_names)
    return ClassSplit(
        base=tuple(name for name in class_names if name not in novel),
        novel=tuple(name for name in class_names if name in novel),
    )


def evaluate_scores(
    scores: NDArray[np.floating],
    labels: Bools,
    class_names: Sequence[str],
    split: ClassSplit,
    min_relevant: int = 1,
    k: int = 50,
) -> RetrievalReport:
    """Ranks the images by each class's scores and averages over the classes of each group.

    scores, labels: [I, C], rows in the order of image ids, which breaks ties; class_names: [C].
    Classes with fewer than min_relevant relevant images, or in neither group, are left out, and listed.
    Raises ValueError for a NaN score, a class of the split that has no column, and min_relevant or k below 1.
    """
    assert scores.shape == labels.shape
    assert scores.shape[1] == len(class_names)
    for name, value in (("min_relevant", min_relevant), ("k", k)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    columns = {name: column for column, name in enumerate(class_names)}
    for name in (*split.base, *split.novel):
        if name not in columns:
            raise ValueError(f"class {name!r} of the split has no scores{_did_you_mean(name, class_names)}")
    _refuse_nan(scores, class_names)
    left_out = _left_out(labels, class_names, split, min_relevant)
    without = {c.name for c in left_out}
    kept = [name for name in class_names if name not in without]
    ranked = {name: labels[ranking(scores[:, columns[name]]), columns[name]] for name in kept}
    novel = set(split.novel)
    members: dict[Group, list[str]] = {
        "base": [name for name in kept if name not in novel],
        "novel": [name for name in kept if name in novel],
        "all": kept,
    }
    return RetrievalReport(
        k=k,
        means={d: {g: _mean_percent(ranked, members[g], k, d) for g in GROUPS} for d in DENOMINATORS},
        classes=tuple(_class_result(name, "novel" if name in novel else "base", ranked[name], k) for name in kept),
        left_out=left_out,
        empty_groups=tuple(LeftOut(g, _why_empty(g, split, min_relevant)) for g in GROUPS if not members[g]),
    )


def _mean_percent(ranked: dict[str, Bools], names: list[str], k: int, denominator: Denominator) -> float | None:
    if not names:
        return None
    return 100 * float(np.mean([ranked_average_precision(ranked[name], k, denominator) for name in names]))


def _class_result(name: str, group: Literal["base", "novel"], ranked: Bools, k: int) -> ClassResult:
    return ClassResult(
        name=name,
        group=group,
        num_relevant=int(ranked.sum()),
        average_precision=100 * ranked_average_precision(ranked, k),
        precision_at_10=100 * ranked_precision(ranked, 10),
        recall_at_50=100 * ranked_recall(ranked, 50),
    )


def _left_out(labels: Bools, class_names: Sequence[str], split: ClassSplit, min_relevant: int) -> tuple[LeftOut, ...]:
    evaluated = {*split.base, *split.novel}
    found = []
    for name, count in zip(class_names, labels.sum(axis=0), strict=True):
        if name not in evaluated:
            found.append(LeftOut(name, "neither base nor novel"))
        elif count < min_relevant:
            found.append(LeftOut(name, f"{count} relevant images, fewer than {min_relevant}"))
    return tuple(found)


def _why_empty(group: Group, split: ClassSplit, min_relevant: int) -> str:
    if group == "novel" and not split.novel:
        return "the split has no novel class"
    of_group = "" if group == "all" else f"{group} "
    return f"no {of_group}class has {min_relevant} or more relevant images"


def _refuse_nan(scores: NDArray[np.floating], class_names: Sequence[str]) -> None:
    bad = np.argwhere(np.isnan(scores))
    if len(bad):
        row, column = bad[0]
        raise ValueError(f"the score of row {row} for class {class_names[column]!r} is NaN")


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
