"""Sections of the report: the sortable table of classes, and the quality of the probabilities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from forclip.evaluation.charts import reliability_chart
from forclip.evaluation.confidence import SIDES, read_reliability
from forclip.evaluation.methods import FOR, best_training_free, display_name, format_value
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.reliability import PAIRS, Pairs

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
    return (
        row.name,
        row.group,
        f"{row.num_relevant:g}",
        *map(format_value, row.values),
        *([gain] if with_gain else []),
    )


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


_KINDS: dict[Pairs, str] = {
    "top 50": "each class's 50 best images",
    "above 0.05": "images with a probability above 0.05",
    "all": "all images, nearly all of them easy",
}
_DRAWN: Pairs = "top 50"


@dataclass(frozen=True)
class ConfidenceSection:
    """sides: those with a class; rows: a measure and its value for each side; charts: title and diagram."""

    sides: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    charts: tuple[tuple[str, Markup], ...]


def confidence_section(metrics: Metrics) -> ConfidenceSection | None:
    """Of FOR, which alone has probabilities; None where it has none."""
    found = metrics["methods"].get(FOR, {}).get("confidence")
    if found is None:
        return None
    sides = tuple(side for side in SIDES if side in found)
    rows = tuple((label, tuple(cell(found[side]) for side in sides)) for label, cell in _measures(found))
    charts = tuple(
        (f"{side} classes", reliability_chart(side, read_reliability(found[side]["pairs"][_DRAWN]["reliability"])))
        for side in sides
    )
    return ConfidenceSection(sides, rows, charts)


def confidence_line(metrics: Metrics) -> str | None:
    """The errors in one line, for a terminal."""
    found = metrics["methods"].get(FOR, {}).get("confidence")
    if found is None:
        return None
    parts = [
        f"{' / '.join(_error(found[side]['pairs'][kind]) for side in SIDES if side in found)} over {_KINDS[kind]}"
        for kind in PAIRS[:2]
    ]
    sides = " / ".join(side for side in SIDES if side in found)
    return f"FOR's probabilities are off (ECE, {sides}) by {', '.join(parts)}"


def _measures(found: dict[str, Any]) -> list[tuple[str, Callable[[dict[str, Any]], str]]]:
    """What each row says, and how it is read off a side."""
    wanted, said = _percent(found["wanted_precision"]), "(in brackets: of their share of right ones, said every time)"
    return [
        *((f"ECE, {_KINDS[kind]}", lambda side, kind=kind: _error(side["pairs"][kind])) for kind in PAIRS),
        *(
            (f"Brier score, {_KINDS[kind]} {said}", lambda side, kind=kind: _brier(side["pairs"][kind]))
            for kind in PAIRS[:2]
        ),
        (f"classes with a list of at least {wanted} expected precision", lambda side: _percent(side["kept_classes"])),
        ("of the images in these lists, right", lambda side: _percent(side["kept_precision"])),
        ("of all right images, in these lists", lambda side: _percent(side["kept_recall"])),
        ("factor by which the expected number of images is off, median (of guessing the base rate)", _factors),
        ("classes called absent that are there", lambda side: _percent(side["false_alarms"])),
        ("classes called absent once their images are taken out", lambda side: _percent(side["caught"])),
    ]


def _error(pairs: dict[str, Any]) -> str:
    if pairs["ece"] is None:
        return "\N{EN DASH}"
    return f"{pairs['ece']:.3f}" + (f" ± {pairs['ece_std']:.3f}" if pairs["ece_std"] else "")


def _brier(pairs: dict[str, Any]) -> str:
    return "\N{EN DASH}" if pairs["brier"] is None else f"{pairs['brier']:.3f} ({pairs['brier_of_rate']:.3f})"


def _percent(share: float | None) -> str:
    return "\N{EN DASH}" if share is None else f"{100 * share:.0f} %"


def _factors(side: dict[str, Any]) -> str:
    if side["count_factor"] is None:
        return "\N{EN DASH}"
    return f"{side['count_factor']:.2f} ({side['count_factor_of_rate']:.2f})"
