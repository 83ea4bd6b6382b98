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

_OLD_DEFAULTS: dict[str, Any] = {"protocol": "all images", "distractors_kept": True}  # for files without these keys


@dataclass(frozen=True)
class Run:
    """One metrics.json. name: a unique name for readers."""

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
    """`of` minus `over`, over the classes of a group that both have.

    mean: percentage points. interval: 95 % over classes, None for fewer than two classes. better, worse: the number of
    classes with a positive and a negative difference.
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
        """Whether the interval excludes 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dump."""
        return {
            "of": vars(self.of),
            "over": vars(self.over),
            "group": self.group,
            "classes": self.num_classes,
            "mean": self.mean,
            "interval": self.interval,
            "excludes_zero": self.excludes_zero,
            "better": self.better,
            "worse": self.worse,
        }


@dataclass(frozen=True)
class Comparison:
    """between: each run against the first, for each common method. within: FOR against the best baseline of its run."""

    runs: tuple[Run, ...]
    between: tuple[Difference, ...]
    within: tuple[Difference, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dump."""
        first = self.runs[0].metrics
        return {
            "dataset": first["dataset"],
            "metric": first["metric"],
            "protocol": first.get("protocol", _OLD_DEFAULTS["protocol"]),
            "interval": DESCRIPTION,
            "runs": [_run_json(run) for run in self.runs],
            "between_runs": [d.to_json() for d in self.between],
            "within_runs": [d.to_json() for d in self.within],
        }


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Compare runs with the first one. paths: folders with a metrics.json, or such files.

    Raises ValueError, naming the file, for one that is no metrics.json, is given twice, differs from the first in
    dataset, metric, protocol or gallery, or has no values by class to pair.
    """
    runs = _read_runs(paths)
    for run in runs[1:]:
        _check_comparable(run, runs[0])
    if len(runs) > 1:
        for run in runs:
            if not run.metrics.get("classes"):
                raise ValueError(f"{run.file}: has no values by class, so it can't be paired with another run")
    between = [d for run in runs[1:] for d in _between(run, runs[0])]
    within = [d for run in runs for d in _within(run)]
    return Comparison(tuple(runs), tuple(between), tuple(within))


def _read_runs(paths: Sequence[Path]) -> list[Run]:
    """Runs are named by their folders, or by their paths if two folders share a name."""
    files = [path / "metrics.json" if path.is_dir() else path for path in paths]
    for k, file in enumerate(files):
        if not file.is_file():
            raise ValueError(f"{file}: no such file; a run is a folder with a metrics.json, or such a file")
        if file.resolve() in [other.resolve() for other in files[:k]]:
            raise ValueError(f"{file}: was given twice")
    short = [file.resolve().parent.name if file.name == "metrics.json" else file.stem for file in files]
    names = [name if short.count(name) == 1 else str(file) for name, file in zip(short, files, strict=True)]
    return [Run(name, file, read_metrics(file)) for name, file in zip(names, files, strict=True)]


def _check_comparable(run: Run, first: Run) -> None:
    for key in ("dataset", "metric", "protocol", "distractors_kept", "images", "gallery"):
        mine, theirs = (r.metrics.get(key, _OLD_DEFAULTS.get(key)) for r in (run, first))
        if mine == theirs or None in (mine, theirs):  # older files lack the number of images
            continue
        if key == "gallery":  # a digest, which means nothing to people
            raise ValueError(f"{run.file}: its gallery has other images, classes or labels than that of {first.file}")
        raise ValueError(f"{run.file}: its {key} is {mine!r}, but that of {first.file} is {theirs!r}")


def class_precisions(metrics: Metrics, method: str, group: Group) -> dict[str, float]:
    """The method's average precision by class name, in percent, for the classes of a group that it was measured on."""
    precisions = {}
    for name, entry in metrics.get("classes", {}).items():
        if group != "all" and "by_group" in entry:  # seeds put the class in several groups
            value = entry["by_group"].get(group, {}).get(method)
        elif group in ("all", entry["group"]):
            value = entry["methods"].get(method, {}).get("average_precision")
        else:
            continue
        if value is not None:
            precisions[name] = float(value)
    return precisions


def group_interval(metrics: Metrics, method: str, group: Group) -> Interval | None:
    """The interval in the file; for an older file, computed from its values by class."""
    of_method = metrics["methods"][method]
    if "intervals" in of_method:
        stored = of_method["intervals"][group]
        return None if stored is None else (stored[0], stored[1])
    return mean_interval(np.array([list(class_precisions(metrics, method, group).values())], np.float64))


def _between(run: Run, first: Run) -> Iterator[Difference]:
    for method in run.metrics["methods"]:
        if method in first.metrics["methods"]:
            for group in GROUPS:
                yield from _difference((run, method), (first, method), group)


def _within(run: Run) -> Iterator[Difference]:
    for group in GROUPS:
        best = best_training_free(run.metrics, group)
        if best is not None and FOR in run.metrics["methods"]:
            yield from _difference((run, FOR), (run, best), group)


def _difference(of: tuple[Run, str], over: tuple[Run, str], group: Group) -> Iterator[Difference]:
    """The paired difference of two runs' methods, if they have a class of the group in common."""
    left, right = (class_precisions(run.metrics, method, group) for run, method in (of, over))
    gains = np.array([left[name] - right[name] for name in left if name in right], np.float64)
    if len(gains):
        yield Difference(
            Side(of[0].name, of[1]),
            Side(over[0].name, over[1]),
            group,
            len(gains),
            float(gains.mean()),
            mean_interval(gains[None]),
            int((gains > 0).sum()),
            int((gains < 0).sum()),
        )


def _run_json(run: Run) -> dict[str, Any]:
    methods = {
        method: {
            **{str(group): values[group] for group in GROUPS},
            "intervals": {str(group): group_interval(run.metrics, method, group) for group in GROUPS},
        }
        for method, values in run.metrics["methods"].items()
    }
    return {"name": run.name, "file": str(run.file), "seeds": run.metrics["seeds"], "methods": methods}


_DIFFERENCE_COLUMNS = ("difference", "classes", "points", "95 % interval", "excludes 0", "better / worse")
_CAUTION = (
    "Intervals are over classes, for one comparison each: of twenty that compare equals, one excludes 0 by chance. "
    "They don't cover other training seeds or other images."
)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print a table of methods by group, then the paired differences, marked if their interval excludes 0."""
    table = _rich_table(_title(comparison), ("run", "method", *GROUPS), num_left=2)
    for run in comparison.runs:
        for method in run.metrics["methods"]:
            table.add_row(Text(run.name), Text(display_name(method)), *_values(run, method, "\n"))
    console.print(table)
    for title, differences in _sections(comparison):
        console.print(_difference_table(title, _unequal(differences)))
        for line in _describe_equals(differences):
            console.print(Text(line, style="dim"), soft_wrap=True)
    console.print(Text("* the interval excludes 0; +a/-b: better on a classes and worse on b", style="dim"))
    console.print(Text(_CAUTION, style="dim"))


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write compare.json and compare.md."""
    content = json.dumps(comparison.to_json(), indent=1, allow_nan=False)
    write_text_atomically(folder / "compare.json", content + "\n")
    write_text_atomically(folder / "compare.md", markdown(comparison))


def markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown page."""
    rows = [
        [run.name, display_name(method), *_values(run, method, " ")]
        for run in comparison.runs
        for method in run.metrics["methods"]
    ]
    parts = [f"# {_title(comparison)}", _markdown_table(("run", "method", *GROUPS), rows)]
    for title, differences in _sections(comparison):
        cells = [_difference_cells(d) for d in _unequal(differences)]
        parts.append(f"## {title}")
        parts += [_markdown_table(_DIFFERENCE_COLUMNS, cells)] if cells else []
        parts += _describe_equals(differences)
    return "\n\n".join([*parts, _CAUTION]) + "\n"


def _title(comparison: Comparison) -> str:
    metrics = comparison.runs[0].metrics
    over = ", each class over its verified images" if metrics.get("protocol") == "verified images" else ""
    return f"{metrics['dataset']}: {metric_label(metrics)} in percent{over}, with 95 % intervals over classes"


def _sections(comparison: Comparison) -> list[tuple[str, Sequence[Difference]]]:
    sections = [
        (f"Against {comparison.runs[0].name}, class by class", comparison.between),
        ("FOR against the best training-free method of its run, class by class", comparison.within),
    ]
    return [(title, differences) for title, differences in sections if differences]


def _unequal(differences: Sequence[Difference]) -> list[Difference]:
    return [d for d in differences if d.better or d.worse]


def _describe_equals(differences: Sequence[Difference]) -> list[str]:
    """Name the methods that are equal in every group, whose rows of zeros would hide the others."""
    unequal = {(d.of, d.over) for d in _unequal(differences)}
    by_run: dict[str, list[str]] = {}
    for of, over in dict.fromkeys((d.of, d.over) for d in differences if (d.of, d.over) not in unequal):
        if of.run == over.run:
            groups = ", ".join(d.group for d in differences if (d.of, d.over) == (of, over))
            names = f"{display_name(of.method)} and {display_name(over.method)}, on {groups}"
            by_run.setdefault(of.run, []).append(names)
        else:
            by_run.setdefault(f"{of.run} and {over.run}", []).append(display_name(of.method))
    return [f"Equal in {runs}: {', '.join(names)}." for runs, names in by_run.items()]


def _difference_table(title: str, differences: Sequence[Difference]) -> Table:
    """A row for each pair, a column for each group."""
    table = _rich_table(title, ("difference", *GROUPS), num_left=1)
    for of, over in dict.fromkeys((d.of, d.over) for d in differences):
        by_group = {d.group: _difference_cell(d) for d in differences if (d.of, d.over) == (of, over)}
        table.add_row(Text(_pair(of, over)), *(by_group.get(group, Text("")) for group in GROUPS))
    return table


def _difference_cell(difference: Difference) -> Text:
    mark, style = ("*", "bold") if difference.excludes_zero else (" ", "")
    cell = Text(f"{difference.mean:+.1f}{mark}", style=style)
    cell.append(f"\n{_signed(difference.interval)}", style="not bold")
    return cell.append(f"\n+{difference.better}/-{difference.worse} of {difference.num_classes}", style="dim not bold")


def _difference_cells(difference: Difference) -> list[str]:
    return [
        f"{_pair(difference.of, difference.over)}, {difference.group}",
        str(difference.num_classes),
        f"{difference.mean:+.1f}",
        _signed(difference.interval),
        "yes" if difference.excludes_zero else "no",
        f"{difference.better} / {difference.worse}",
    ]


def _values(run: Run, method: str, separator: str) -> list[str]:
    """The mean and the interval of each group."""
    cells = []
    for group in GROUPS:
        interval = format_interval(group_interval(run.metrics, method, group))
        value = format_value(run.metrics["methods"][method][group])
        cells.append(f"{value}{separator}({interval})" if interval else value)
    return cells


def _pair(of: Side, over: Side) -> str:
    if of.method == over.method:
        return f"{display_name(of.method)}: {of.run} - {over.run}"
    return f"{of.run}: {display_name(of.method)} - {display_name(over.method)}"


def _signed(interval: Interval | None) -> str:
    return "\N{EN DASH}" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}"


def _rich_table(title: str, columns: Sequence[str], num_left: int) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k < num_left else "right", no_wrap=k >= num_left)
    return table


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(_escape, line)) + " |" for line in lines)


def _escape(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
