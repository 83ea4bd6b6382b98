"""Several runs' metrics.json side by side, and what of their differences is more than the choice of classes.

Paired: the same class in both, so that easy and hard classes cancel out; intervals by the bootstrap over classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from forclip.evaluation.bootstrap import DESCRIPTION, Interval, mean_interval
from forclip.evaluation.methods import FOR, best_training_free
from forclip.evaluation.metrics_file import Metrics, read_metrics
from forclip.evaluation.result import GROUPS, Group

_OLDER: dict[str, Any] = {"protocol": "all images", "distractors_kept": True}  # what files without these keys mean


@dataclass(frozen=True)
class Run:
    """name: for people, unlike the others' names."""

    name: str
    file: Path
    metrics: Metrics


@dataclass(frozen=True)
class Side:
    """One method of one run."""

    run: str
    method: str


@dataclass(frozen=True)
class Difference:
    """`of` minus `over`, over the classes that both have in the group.

    mean: percentage points; interval: 95 % over classes, None for fewer than two; better, worse: on how many classes.
    """

    of: Side
    over: Side
    group: Group
    num_classes: int
    mean: float
    interval: Interval | None
    better: int
    worse: int

    @property
    def excludes_zero(self) -> bool:
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclass(frozen=True)
class Comparison:
    """between: each run against the first, the same method in both; within: FOR against each run's best baseline."""

    runs: tuple[Run, ...]
    between: tuple[Difference, ...]
    within: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dump."""
        first = self.runs[0].metrics
        return {
            "dataset": first["dataset"],
            "metric": first["metric"],
            "protocol": first.get("protocol", _OLDER["protocol"]),
            "interval": DESCRIPTION,
            "runs": [_run_json(run) for run in self.runs],
            "between_runs": [_difference_json(d) for d in self.between],
            "within_runs": [_difference_json(d) for d in self.within],
        }


def compare_runs(places: Sequence[Path]) -> Comparison:
    """places: folders with a metrics.json, or such files; the first is what the others are compared with.

    Raises ValueError, naming the file, where one is no metrics.json, comes twice, is not of the first one's dataset,
    metric, protocol and gallery, or has no values by class for another to be paired with.
    """
    runs = read_runs(places)
    for run in runs[1:]:
        _refuse_unlike(run, runs[0])
    if len(runs) > 1:
        for run in runs:
            if not run.metrics.get("classes"):
                raise ValueError(f"{run.file}: has no values by class, so that nothing can be paired with it")
    between = [d for run in runs[1:] for d in _between(run, runs[0])]
    within = [d for run in runs for d in _within(run)]
    return Comparison(tuple(runs), tuple(between), tuple(within))


def read_runs(places: Sequence[Path]) -> list[Run]:
    """Named by their folders, or by their paths where two folders share a name."""
    files = [place / "metrics.json" if place.is_dir() else place for place in places]
    for k, file in enumerate(files):
        if not file.is_file():
            raise ValueError(f"{file}: no such file; a run is a folder with a metrics.json, or such a file")
        if file.resolve() in [other.resolve() for other in files[:k]]:
            raise ValueError(f"{file}: was given twice")
    short = [file.resolve().parent.name if file.name == "metrics.json" else file.stem for file in files]
    names = [name if short.count(name) == 1 else str(file) for name, file in zip(short, files, strict=True)]
    return [Run(name, file, read_metrics(file)) for name, file in zip(names, files, strict=True)]


def class_precisions(metrics: Metrics, method: str, group: Group) -> dict[str, float]:
    """Average precision by class name, percent, of the group's classes that the method was measured on."""
    found = {}
    for name, entry in metrics.get("classes", {}).items():
        if group != "all" and "by_group" in entry:  # seeds put the class in several groups
            value = entry["by_group"].get(group, {}).get(method)
        elif group in ("all", entry["group"]):
            value = entry["methods"].get(method, {}).get("average_precision")
        else:
            continue
        if value is not None:
            found[name] = float(value)
    return found


def group_interval(metrics: Metrics, method: str, group: Group) -> Interval | None:
    """As the file has it; of an older file, from its values by class."""
    of_method = metrics["methods"][method]
    if "intervals" in of_method:
        stored = of_method["intervals"][group]
        return None if stored is None else (stored[0], stored[1])
    return mean_interval(np.array([list(class_precisions(metrics, method, group).values())], np.float64))


def paired_difference(of: tuple[Run, str], over: tuple[Run, str], group: Group) -> Difference | None:
    """of, over: a run and its method. None where no class of the group is common to both."""
    left, right = (class_precisions(run.metrics, method, group) for run, method in (of, over))
    gains = np.array([left[name] - right[name] for name in left if name in right], np.float64)
    if not len(gains):
        return None
    return Difference(
        Side(of[0].name, of[1]),
        Side(over[0].name, over[1]),
        group,
        len(gains),
        float(gains.mean()),
        mean_interval(gains[None]),
        int((gains > 0).sum()),
        int((gains < 0).sum()),
    )


def _between(run: Run, first: Run) -> Iterator[Difference]:
    for method in run.metrics["methods"]:
        if method in first.metrics["methods"]:
            for group in GROUPS:
                if (found := paired_difference((run, method), (first, method), group)) is not None:
                    yield found


def _within(run: Run) -> Iterator[Difference]:
    if FOR not in run.metrics["methods"]:
        return
    for group in GROUPS:
        best = best_training_free(run.metrics, group)
        if best is not None and (found := paired_difference((run, FOR), (run, best), group)) is not None:
            yield found


def _refuse_unlike(run: Run, first: Run) -> None:
    for key in ("dataset", "metric", "protocol", "distractors_kept", "images", "gallery"):
        mine, theirs = (r.metrics.get(key, _OLDER.get(key)) for r in (run, first))
        # Older files don't say how many images there were.
        if mine != theirs and None not in (mine, theirs):
            if key == "gallery":  # a digest, which says nothing to people
                raise ValueError(
                    f"{run.file}: its gallery has other images, classes or labels than that of {first.file}"
                )
            raise ValueError(f"{run.file}: its {key} is {mine!r}, but that of {first.file} is {theirs!r}")


def _run_json(run: Run) -> dict[str, Any]:
    methods = {
        method: {
            **{str(group): values[group] for group in GROUPS},
            "intervals": {str(group): group_interval(run.metrics, method, group) for group in GROUPS},
        }
        for method, values in run.metrics["methods"].items()
    }
    return {"name": run.name, "file": str(run.file), "seeds": run.metrics["seeds"], "methods": methods}


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {
        "of": vars(difference.of),
        "over": vars(difference.over),
        "group": difference.group,
        "classes": difference.num_classes,
        "mean": difference.mean,
        "interval": difference.interval,
        "excludes_zero": difference.excludes_zero,
        "better": difference.better,
        "worse": difference.worse,
    }
