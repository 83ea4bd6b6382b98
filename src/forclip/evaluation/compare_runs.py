"""Compare the metrics.json files of several runs class by class, as tables, JSON and Markdown.

Differences are paired by class, so that easy and hard classes cancel out; intervals are bootstrapped over classes.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forclip.atomic_write import write_text_atomically
from forclip.evaluation.methods import (
    FOR,
    best_training_free,
    display_name,
    format_interval,
    format_value,
    metric_label,
    passes,
)
from forclip.evaluation.metrics import DESCRIPTION, Interval, mean_interval
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
    classes: int
    mean: float
    interval: Interval | None
    excludes_zero: bool  # the interval
    better: int
    worse: int


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
            "runs": [
                {
                    "name": run.name,
                    "file": str(run.file),
                    "seeds": run.metrics["seeds"],
                    "methods": {
                        method: {
                            **{group: values[group] for group in GROUPS},
                            "passes": passes(run.metrics, method),
                            "ms_per_image": values["ms_per_image"],
                            "intervals": {group: group_interval(run.metrics, method, group) for group in GROUPS},
                        }
                        for method, values in run.metrics["methods"].items()
                    },
                }
                for run in self.runs
            ],
            "between_runs": [asdict(d) for d in self.between],
            "within_runs": [asdict(d) for d in self.within],
        }


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Compare runs with the first one. paths: folders with a metrics.json, or such files.

    Raises ValueError, naming the file, for one that is no metrics.json, is given twice, differs from the first in
    dataset, metric, protocol or gallery, or has no values by class to pair.
    """
    files = [path / "metrics.json" if path.is_dir() else path for path in paths]
    for k, file in enumerate(files):
        if not file.is_file():
            raise ValueError(f"{file}: no such file; a run is a folder with a metrics.json, or such a file")
        if file.resolve() in [other.resolve() for other in files[:k]]:
            raise ValueError(f"{file}: was given twice")
    # Runs are named by their folders, or by their paths if two folders share a name.
    short = [file.resolve().parent.name if file.name == "metrics.json" else file.stem for file in files]
    names = [name if short.count(name) == 1 else str(file) for name, file in zip(short, files, strict=True)]
    first, *others = runs = [Run(name, file, read_metrics(file)) for name, file in zip(names, files, strict=True)]
    for run in others:
        for key in ("dataset", "metric", "protocol", "distractors_kept", "images", "gallery"):
            mine, theirs = (r.metrics.get(key, _OLD_DEFAULTS.get(key)) for r in (run, first))
            if mine == theirs or None in (mine, theirs):  # older files lack the number of images
                continue
            if key == "gallery":  # a digest, which means nothing to people
                raise ValueError(
                    f"{run.file}: its gallery has other images, classes or labels than that of {first.file}"
                )
            raise ValueError(f"{run.file}: its {key} is {mine!r}, but that of {first.file} is {theirs!r}")
    for run in runs if others else ():
        if not run.metrics.get("classes"):
            raise ValueError(f"{run.file}: has no values by class, so it can't be paired with another run")
    between = [
        _difference((run, method), (first, method), group)
        for run in others
        for method in run.metrics["methods"]
        if method in first.metrics["methods"]
        for group in GROUPS
    ]
    within = [
        _difference((run, FOR), (run, best), group)
        for run in runs
        for group in GROUPS
        if (best := best_training_free(run.metrics, group)) is not None and FOR in run.metrics["methods"]
    ]
    return Comparison(tuple(runs), *(tuple(d for d in differences if d) for differences in (between, within)))


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


def _difference(of: tuple[Run, str], over: tuple[Run, str], group: Group) -> Difference | None:
    """The paired difference of two runs' methods; None if they have no class of the group in common."""
    left, right = (class_precisions(run.metrics, method, group) for run, method in (of, over))
    gains = np.array([left[name] - right[name] for name in left if name in right], np.float64)
    if not len(gains):
        return None
    interval = mean_interval(gains[None])
    excludes_zero = interval is not None and (interval[0] > 0 or interval[1] < 0)
    better, worse = int((gains > 0).sum()), int((gains < 0).sum())
    ours, theirs = (Side(run.name, method) for run, method in (of, over))
    return Difference(ours, theirs, group, len(gains), float(gains.mean()), interval, excludes_zero, better, worse)


_METHOD_COLUMNS = ("run", "method", *GROUPS, "passes", "ms")  # the last two for one image
_DIFFERENCE_COLUMNS = ("difference", "classes", "points", "95 % interval", "excludes 0", "better / worse")
_CAUTION = (
    "Intervals are over classes, for one comparison each: of twenty that compare equals, one excludes 0 by chance. "
    "They don't cover other training seeds or other images."
)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Print a table of methods by group, then the paired differences, marked if their interval excludes 0."""
    console.print(_rich_table(_title(comparison), _METHOD_COLUMNS, _method_rows(comparison), num_left=2))
    for title, differences, equals in _sections(comparison):
        rows: dict[str, dict[str, Text]] = {}
        for d in differences:
            mark, style = ("*", "bold") if d.excludes_zero else (" ", "")
            cell = Text(f"{d.mean:+.1f}{mark}", style=style).append(f"\n{_signed(d.interval)}", style="not bold")
            cell.append(f"\n+{d.better}/-{d.worse} of {d.classes}", style="dim not bold")
            rows.setdefault(_pair(d.of, d.over), {})[d.group] = cell
        cells = [[pair, *(by_group.get(group, "") for group in GROUPS)] for pair, by_group in rows.items()]
        console.print(_rich_table(title, ("difference", *GROUPS), cells, num_left=1))
        for line in equals:
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
    parts = [f"# {_title(comparison)}", _markdown_table(_METHOD_COLUMNS, _method_rows(comparison))]
    for title, differences, equals in _sections(comparison):
        rows = [
            [
                f"{_pair(d.of, d.over)}, {d.group}",
                str(d.classes),
                f"{d.mean:+.1f}",
                _signed(d.interval),
                "yes" if d.excludes_zero else "no",
                f"{d.better} / {d.worse}",
            ]
            for d in differences
        ]
        parts += [f"## {title}", *([_markdown_table(_DIFFERENCE_COLUMNS, rows)] if rows else []), *equals]
    return "\n\n".join([*parts, _CAUTION]) + "\n"


def _title(comparison: Comparison) -> str:
    metrics = comparison.runs[0].metrics
    over = ", each class over its verified images" if metrics.get("protocol") == "verified images" else ""
    return f"{metrics['dataset']}: {metric_label(metrics)} in percent{over}, with 95 % intervals over classes"


def _sections(comparison: Comparison) -> Iterator[tuple[str, list[Difference], list[str]]]:
    """The title of each part that has differences, those to list, and a line about the others, which are equal."""
    for title, differences in (
        (f"Against {comparison.runs[0].name}, class by class", comparison.between),
        ("FOR against the best training-free method of its run, class by class", comparison.within),
    ):
        if differences:
            yield title, [d for d in differences if d.better or d.worse], _describe_equals(differences)


def _describe_equals(differences: Sequence[Difference]) -> list[str]:
    """Name the methods that are equal in every group, whose rows of zeros would hide the others."""
    unequal = {(d.of, d.over) for d in differences if d.better or d.worse}
    by_run: dict[str, list[str]] = {}
    for of, over in dict.fromkeys((d.of, d.over) for d in differences if (d.of, d.over) not in unequal):
        if of.run == over.run:
            groups = ", ".join(d.group for d in differences if (d.of, d.over) == (of, over))
            names = f"{display_name(of.method)} and {display_name(over.method)}, on {groups}"
            by_run.setdefault(of.run, []).append(names)
        else:
            by_run.setdefault(f"{of.run} and {over.run}", []).append(display_name(of.method))
    return [f"Equal in {runs}: {', '.join(names)}." for runs, names in by_run.items()]


def _method_rows(comparison: Comparison) -> list[list[str]]:
    """A row for each method of each run: its name, the mean and the interval of each group, passes and milliseconds."""
    rows = []
    for run in comparison.runs:
        for method, values in run.metrics["methods"].items():
            intervals = [format_interval(group_interval(run.metrics, method, group)) for group in GROUPS]
            means = [format_value(values[group]) for group in GROUPS]
            cells = [f"{mean}\n({ends})" if ends else mean for mean, ends in zip(means, intervals, strict=True)]
            cost = f"{passes(run.metrics, method):g}", format_value(values["ms_per_image"])
            rows.append([run.name, display_name(method), *cells, *cost])
    return rows


def _pair(of: Side, over: Side) -> str:
    if of.method == over.method:
        return f"{display_name(of.method)}: {of.run} - {over.run}"
    return f"{of.run}: {display_name(of.method)} - {display_name(over.method)}"


def _signed(interval: Interval | None) -> str:
    return "\N{EN DASH}" if interval is None else f"{interval[0]:+.1f} to {interval[1]:+.1f}"


def _rich_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | Text]], num_left: int) -> Table:
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for k, column in enumerate(columns):
        table.add_column(column, justify="left" if k < num_left else "right", no_wrap=k >= num_left)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return table


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    escapes = str.maketrans({"\\": "\\\\", "|": "\\|", "\n": " "})
    lines = [columns, ["---"] * len(columns), *([cell.translate(escapes) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
