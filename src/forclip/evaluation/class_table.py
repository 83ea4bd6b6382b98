"""The report's table of classes, which sorts without scripts: each row knows its place under every column."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from forclip.evaluation.methods import FOR, best_training_free, display_name, number
from forclip.evaluation.metrics_file import Metrics

Key = Callable[["ClassRow"], Any]


@dataclass(frozen=True)
class ClassRow:
    """group: base, novel, or both where seeds differ in it.

    values: average precision by method, percent, None where it was not measured; gain: FOR's, percentage points."""

    name: str
    group: str
    num_relevant: float
    values: tuple[float | None, ...]
    gain: float | None


@dataclass(frozen=True)
class ClassTable:
    """columns: their headings; cells: the text of each row; places: [rows][columns], where a row stands when sorted."""

    columns: tuple[str, ...]
    rows: tuple[ClassRow, ...]
    cells: tuple[tuple[str, ...], ...]
    places: tuple[tuple[int, ...], ...]
    sorted_by: int
    baseline: str | None


def class_table(metrics: Metrics) -> ClassTable | None:
    """None where the file has no values by class. baseline: what FOR's gain is over, None where there is none."""
    if not metrics.get("classes"):
        return None
    methods = list(metrics["methods"])
    best = best_training_free(metrics, "all")
    baseline = best if FOR in methods else None
    rows = tuple(_row(name, entry, methods, baseline) for name, entry in metrics["classes"].items())
    keys: list[Key] = [lambda r: r.name, lambda r: (r.group, r.name), lambda r: -r.num_relevant]
    keys += [_by_value(k) for k in range(len(methods))]
    columns = ["class", "group", "R", *map(display_name, methods)]
    if baseline is not None:
        keys.append(lambda r: _falling(r.gain))
        columns.append("gain")
    # By gain where there is one, else by name.
    return ClassTable(
        tuple(columns),
        rows,
        tuple(_cells(row, baseline is not None) for row in rows),
        _places(rows, keys),
        len(columns) - 1 if baseline is not None else 0,
        None if baseline is None else display_name(baseline),
    )


def class_gains(table: ClassTable) -> list[tuple[str, str, float]]:
    """name, group and gain of the classes that have one."""
    return [(row.name, row.group, row.gain) for row in table.rows if row.gain is not None]


def _row(name: str, entry: dict[str, Any], methods: Sequence[str], baseline: str | None) -> ClassRow:
    found = {method: entry["methods"].get(method, {}).get("average_precision") for method in methods}
    ours, theirs = found.get(FOR), None if baseline is None else found[baseline]
    relevant = max((of_method["num_relevant"] for of_method in entry["methods"].values()), default=0)
    gain = None if ours is None or theirs is None else ours - theirs
    group = "both" if "by_group" in entry else entry["group"]
    return ClassRow(name, group, relevant, tuple(found.values()), gain)


def _cells(row: ClassRow, with_gain: bool) -> tuple[str, ...]:
    gain = "\N{EN DASH}" if row.gain is None else f"{row.gain:+.1f}"
    return (row.name, row.group, f"{row.num_relevant:g}", *map(number, row.values), *([gain] if with_gain else []))


def _by_value(method: int) -> Key:
    return lambda row: _falling(row.values[method])


def _falling(value: float | None) -> float:
    """High values first, missing ones last."""
    return float("inf") if value is None else -value


def _places(rows: Sequence[ClassRow], keys: Sequence[Key]) -> tuple[tuple[int, ...], ...]:
    """Equals stay in the order of rows."""
    places = [[0] * len(keys) for _ in rows]
    for column, key in enumerate(keys):
        values = [key(row) for row in rows]
        for place, row in enumerate(sorted(range(len(rows)), key=values.__getitem__)):
            places[row][column] = place
    return tuple(map(tuple, places))
