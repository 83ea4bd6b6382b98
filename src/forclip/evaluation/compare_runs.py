"""Compare the metrics.json files of several runs class by class, as tables, JSON and Markdown.

Differences are paired by class, so that easy and hard classes cancel out; intervals are bootstrapped over classes.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forclip.atomic_write import write_text_atomically
from forclip.evaluation.bootstrap import DESCRIPTION, Interval, mean_interval
from forclip.evaluation.methods import (
    FOR,
    best_training_free,
    display_name,
    format_interval,
    format_value,
    metric_label,
)
from forclip.evaluation.metrics_file import Metrics, read_metrics
from forclip.evaluation.protocol import GROUPS, Group

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


_DIFFERENCE_COLUMNS = ("difference", "classes", "points", "95 % interval", "excludes 0", "better / worse")
_CAUTION = (
    "Intervals are over classes, for one comparison each: of twenty that compare like with like, one excludes 0 by "
    "chance. They say nothing of other training seeds or other images."
)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """A table of methods by groups, then the paired differences; bold, and starred, where an interval excludes 0."""
    table = _table(_title(comparison), ("run", "method", *GROUPS), num_left=2)
    for run in comparison.runs:
        for method in run.metrics["methods"]:
            table.add_row(Text(run.name), Text(display_name(method)), *_values(run, method, "\n"))
    console.print(table)
    for title, differences in _parts(comparison):
        console.print(_difference_table(title, differences))
        for line in _equals(differences):
            console.print(Text(line, style="dim"), soft_wrap=True)
    console.print(Text("* the interval excludes 0; +a/-b: better on a classes and worse on b", style="dim"))
    console.print(Text(_CAUTION, style="dim"))


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """compare.json and compare.md."""
    content = json.dumps(comparison.to_json(), indent=1, allow_nan=False)
    write_text_atomically(folder / "compare.json", content + "\n")
    write_text_atomically(folder / "compare.md", markdown(comparison))


def markdown(comparison: Comparison) -> str:
    rows = [
        [run.name, display_name(method), *_values(run, method, " ")]
        for run in comparison.runs
        for method in run.metrics["methods"]
    ]
    parts = [f"# {_title(comparison)}", _markdown_table(("run", "method", *GROUPS), rows)]
    for title, differences in _parts(comparison):
        told = [list(_cells(d)) for d in _told(differences)]
        parts += [f"## {title}", *([_markdown_table(_DIFFERENCE_COLUMNS, told)] if told else []), *_equals(differences)]
    return "\n\n".join([*parts, _CAUTION]) + "\n"


def _title(comparison: Comparison) -> str:
    metrics = comparison.runs[0].metrics
    over = ", each class over its verified images" if metrics.get("protocol") == "verified images" else ""
    return f"{metrics['dataset']}: {metric_label(metrics)} in percent{over}, with 95 % intervals over classes"


def _parts(comparison: Comparison) -> list[tuple[str, Sequence[Difference]]]:
    first = comparison.runs[0].name
    parts = [
        (f"Against {first}, class by class", comparison.between),
        ("FOR against the best training-free method of its run, class by class", comparison.within),
    ]
    return [(title, differences) for title, differences in parts if differences]


def _difference_table(title: str, differences: Sequence[Difference]) -> Table:
    """A row for each pair, a column for each group."""
    table = _table(title, ("difference", *GROUPS), num_left=1)
    told = _told(differences)
    for of, over in dict.fromkeys((d.of, d.over) for d in told):
        by_group = {d.group: d for d in told if (d.of, d.over) == (of, over)}
        cells = [_difference_cell(by_group[group]) if group in by_group else Text("") for group in GROUPS]
        table.add_row(Text(_pair(of, over)), *cells)
    return table


def _difference_cell(difference: Difference) -> Text:
    sure = difference.excludes_zero
    cell = Text(f"{difference.mean:+.1f}{'*' if sure else ' '}", style="bold" if sure else "")
    cell.append(f"\n{_signed(difference.interval)}", style="not bold")
    return cell.append(f"\n+{difference.better}/-{difference.worse} of {difference.num_classes}", style="dim not bold")


def _told(differences: Sequence[Difference]) -> list[Difference]:
    return [d for d in differences if d.better or d.worse]


def _equals(differences: Sequence[Difference]) -> list[str]:
    """Methods that are the same in both, in every group: rows of zeros would hide the others."""
    told = {(d.of, d.over) for d in _told(differences)}
    same = dict.fromkeys((d.of, d.over) for d in differences if (d.of, d.over) not in told)
    by_run: dict[str, list[str]] = {}
    for of, over in same:
        if of.run == over.run:
            groups = ", ".join(d.group for d in differences if (d.of, d.over) == (of, over))
            names = f"{display_name(of.method)} and {display_name(over.method)}, on {groups}"
            by_run.setdefault(of.run, []).append(names)
        else:
            by_run.setdefault(f"{of.run} and {over.run}", []).append(display_name(of.method))
    return [f"The same in {runs}: {', '.join(names)}." for runs, names in by_run.items()]


def _values(run: Run, method: str, between: str) -> list[str]:
    """A cell for each group: the mean and its interval."""
    cells = []
    for group in GROUPS:
        interval = format_interval(group_interval(run.metrics, method, group))
        value = format_value(run.metrics["methods"][method][group])
        cells.append(f"{value}{between}({interval})" if interval else value)
    return cells


def _pair(of: Side, over: Side) -> str:
    if of.method == over.method:
        return f"{display_name(of.method)}: {of.run} - {over.run}"
    return f"{of.run}: {display_name(of.method)} - {display_name(over.method)}"


def _cells(difference: Difference) -> tuple[str, ...]:
    return (
        f"{_pair(difference.of, difference.over)}, {difference.group}",
        str(difference.num_classes),
        f"{difference.mean:+.1f}",
        _signed(difference.interval),
        "yes" if difference.excludes_zero else "no",
        f"{difference.better} / {difference.worse}",
    )


def _signed(interval: Interval | None) -> str:
    return "\N{EN DASH}" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}"


def _table(title: str, columns: Sequence[str], num_left: int) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k < num_left else "right", no_wrap=k >= num_left)
    return table


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
