"""Sections of the report: the sortable table of classes, and the quality of FOR's probabilities."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from forclip.evaluation.charts import reliability_chart
from forclip.evaluation.confidence import read_reliability
from forclip.evaluation.methods import FOR, best_training_free, display_name, format_value
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.protocol import CLASS_GROUPS
from forclip.evaluation.reliability import PAIRS, Pairs

_DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class ClassRow:
    """One class. group: base, novel, or both if seeds differ. gain: FOR's over the baseline, in percentage points."""

    name: str
    group: str
    gain: float | None


@dataclass(frozen=True)
class ClassTable:
    """The table of classes, which the page sorts without scripts.

    columns: the headings; cells: the text of each row; places: [rows][columns], a row's position when the table is
    sorted by the column; sorted_by: the column it starts with. baseline: the method that gains are over, or None.
    """

    columns: tuple[str, ...]
    rows: tuple[ClassRow, ...]
    cells: tuple[tuple[str, ...], ...]
    places: tuple[tuple[int, ...], ...]
    sorted_by: int
    baseline: str | None


def class_table(metrics: Metrics) -> ClassTable | None:
    """Build the table, sorted by gain if there is one, otherwise by name. None if the file has no values by class."""
    if not metrics.get("classes"):
        return None
    methods = list(metrics["methods"])
    baseline = best_training_free(metrics, "all") if FOR in methods else None
    columns = ["class", "group", "R", *map(display_name, methods), *([] if baseline is None else ["gain"])]
    rows: list[ClassRow] = []
    cells: list[tuple[str, ...]] = []
    sort_keys: list[tuple[Any, ...]] = []  # high values first, missing ones last
    for name, entry in metrics["classes"].items():
        group = "both" if "by_group" in entry else entry["group"]
        num_relevant = max((of_method["num_relevant"] for of_method in entry["methods"].values()), default=0)
        values = {method: entry["methods"].get(method, {}).get("average_precision") for method in methods}
        ours, theirs = values.get(FOR), values.get(baseline)
        gain = None if ours is None or theirs is None else ours - theirs
        gains = [] if baseline is None else [gain]
        rows.append(ClassRow(name, group, gain))
        texts = [_DASH if gain is None else f"{gain:+.1f}" for gain in gains]
        cells.append((name, group, f"{num_relevant:g}", *map(format_value, values.values()), *texts))
        numbers = (num_relevant, *values.values(), *gains)
        sort_keys.append((name, (group, name), *(float("inf") if n is None else -n for n in numbers)))
    # Equal rows keep their order.
    orders = [sorted(range(len(rows)), key=[keys[k] for keys in sort_keys].__getitem__) for k in range(len(columns))]
    places = tuple(map(tuple, np.argsort(orders, axis=1).T.tolist()))
    sorted_by = 0 if baseline is None else len(columns) - 1
    baseline_name = None if baseline is None else display_name(baseline)
    return ClassTable(tuple(columns), tuple(rows), tuple(cells), places, sorted_by, baseline_name)


_PAIRS_NAMES: dict[Pairs, str] = {
    "top 50": "each class's 50 best images",
    "above 0.05": "images with a probability above 0.05",
    "all": "all images, nearly all of them easy",
}


@dataclass(frozen=True)
class ConfidenceSection:
    """sides: the groups that have a class. rows: a measure and its value for each side. charts: titles and diagrams."""

    sides: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    charts: tuple[tuple[str, Markup], ...]


def confidence_section(metrics: Metrics) -> ConfidenceSection | None:
    """The quality of FOR's probabilities (no other method has any); None if the file has nothing about it."""
    confidence = metrics["methods"].get(FOR, {}).get("confidence")
    if confidence is None:
        return None
    sides = tuple(group for group in CLASS_GROUPS if group in confidence)
    columns = [_confidence_cells(confidence[side], _percent(confidence["wanted_precision"])) for side in sides]
    rows = tuple((label, tuple(column[label] for column in columns)) for label in columns[0])
    curves = {side: read_reliability(confidence[side]["pairs"]["top 50"]["reliability"]) for side in sides}
    charts = tuple((f"{side} classes", reliability_chart(side, curve)) for side, curve in curves.items())
    return ConfidenceSection(sides, rows, charts)


def confidence_line(metrics: Metrics) -> str | None:
    """The calibration errors in one line, for a terminal."""
    confidence = metrics["methods"].get(FOR, {}).get("confidence")
    if confidence is None:
        return None
    sides = [group for group in CLASS_GROUPS if group in confidence]
    errors = [
        f"{' / '.join(_error(confidence[side]['pairs'][kind]) for side in sides)} over {_PAIRS_NAMES[kind]}"
        for kind in PAIRS[:2]
    ]
    return f"Calibration error of FOR's probabilities (ECE, {' / '.join(sides)}): {', '.join(errors)}"


def _confidence_cells(group: dict[str, Any], wanted: str) -> dict[str, str]:
    """The texts of one group's column by the label of their row. wanted: the precision that a list is cut for."""
    pairs = group["pairs"]
    return {
        **{f"ECE, {name}": _error(pairs[kind]) for kind, name in _PAIRS_NAMES.items()},
        **{
            f"Brier score, {_PAIRS_NAMES[kind]} (in brackets: of always predicting the share of right ones)": (
                _with_reference(pairs[kind]["brier"], pairs[kind]["brier_of_rate"], 3)
            )
            for kind in PAIRS[:2]
        },
        f"classes with a list of at least {wanted} expected precision": _percent(group["kept_classes"]),
        "right images, of those in these lists": _percent(group["kept_precision"]),
        "images in these lists, of all right ones": _percent(group["kept_recall"]),
        "factor by which the expected number of images is wrong, median (of guessing the base rate)": (
            _with_reference(group["count_factor"], group["count_factor_of_rate"], 2)
        ),
        "classes reported absent although images show them": _percent(group["false_alarms"]),
        "classes reported absent once their images are removed": _percent(group["caught"]),
    }


def _error(pairs: dict[str, Any]) -> str:
    if pairs["ece"] is None:
        return _DASH
    return f"{pairs['ece']:.3f}" + (f" ± {pairs['ece_std']:.3f}" if pairs["ece_std"] else "")


def _with_reference(value: float | None, reference: float, decimals: int) -> str:
    return _DASH if value is None else f"{value:.{decimals}f} ({reference:.{decimals}f})"


def _percent(share: float | None) -> str:
    return _DASH if share is None else f"{100 * share:.0f} %"
