"""Runs side by side as tables: for a terminal, and as compare.json and compare.md."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forclip.atomic_write import write_text_atomically
from forclip.evaluation.bootstrap import Interval
from forclip.evaluation.compare_runs import Comparison, Difference, Run, Side, group_interval
from forclip.evaluation.methods import display_name, metric_label, number, span
from forclip.evaluation.result import GROUPS

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
        interval = span(group_interval(run.metrics, method, group))
        value = number(run.metrics["methods"][method][group])
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
