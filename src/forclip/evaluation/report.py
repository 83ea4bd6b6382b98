"""report.html: one self-contained page with a summary, charts, tables and result grids of a run."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from forclip.atomic_write import write_text_atomically
from forclip.data.training_images import describe_training_images
from forclip.evaluation.charts import Curve, gain_chart, ladder_chart, line_chart, reliability_chart
from forclip.evaluation.confidence import PAIRS, Reliability
from forclip.evaluation.methods import (
    DASH,
    FOR,
    PAIRS_NAMES,
    best_cells,
    best_training_free,
    display_name,
    format_error,
    format_interval,
    format_value,
    gains_over_baseline,
    method_note,
    metric_label,
    passes,
)
from forclip.evaluation.metrics import mean_interval
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.protocol import CLASS_GROUPS, GROUPS
from forclip.evaluation.result_grid import EmbeddedThumbnails, QueryGrid
from forclip.evaluation.sample_size import describe_small_sample, small_samples

_NUM_LINE_COLOURS = 7
_BAR_ROOM = 88.0  # percent of the width for the longest bar; the rest is for its number


@dataclass(frozen=True)
class ReportPage:
    """The content of the page.

    metrics: as in metrics.json. details: configuration, seed and versions, as text. best, worst: the results of one
    method (FOR, or else the best one) for the classes that it ranks best and worst.
    """

    title: str
    dataset: str
    metrics: Metrics
    curves: tuple[Curve, ...]
    queries: tuple[QueryGrid, ...]
    details: dict[str, str]
    best: tuple[QueryGrid, ...] = ()
    worst: tuple[QueryGrid, ...] = ()


def write_report(path: Path, page: ReportPage) -> None:
    """Write one HTML file without requests or scripts. Images that can't be read become grey tiles."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("forclip.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    metrics = page.metrics
    classes = class_table(metrics)
    grids = (*page.queries, *page.best, *page.worst)
    others = [method for method in metrics["methods"] if method != FOR]
    line_kinds = {FOR: "line-for", **{m: f"line-{k % _NUM_LINE_COLOURS}" for k, m in enumerate(others)}}
    bars = {m: [(g, v[g], v.get(f"{g}_std") or 0.0) for g in CLASS_GROUPS] for m, v in metrics["methods"].items()}
    ends = [value + spread for of_method in bars.values() for _, value, spread in of_method if value is not None]
    html = environment.from_string(template).render(
        page=page,
        metrics=metrics,
        metric=metric_label(metrics),
        facts=_facts(metrics),
        summary=summary(metrics),
        bars=bars,
        bar_scale=_BAR_ROOM / max([1.0, *ends]),
        best=best_cells(metrics),
        spread=_spread,
        groups=GROUPS,
        variants=_variants(metrics),
        ladders=_ladders(metrics, line_kinds),
        line_kinds=line_kinds,
        confidence=confidence_section(metrics),
        classes=classes,
        gains=None if classes is None else _gains(classes),
        left_out=metrics.get("left_out", {"classes": [], "groups": []}),
        curves=[(curve.name, line_chart(curve)) for curve in page.curves],
        thumbnails=EmbeddedThumbnails(hit.image for grid in grids for row in grid.rows for hit in row.hits),
        notes=_notes(page),
        display_name=display_name,
        passes=passes,
        format_value=format_value,
        finetuned=FOR,
    )
    write_text_atomically(path, html)


def summary(metrics: Metrics) -> str:
    """Say in a few sentences what the numbers show, or first that they show little."""
    gains, metric = gains_over_baseline(metrics), metric_label(metrics)
    ours = metrics["methods"].get(FOR)
    small, warning = small_samples(metrics), describe_small_sample(metrics)
    sentences = [] if warning is None else [warning]
    has_gains, gains = bool(gains), {group: gain for group, gain in gains.items() if group not in small}
    if "novel" in gains:
        gain = gains["novel"]
        std = metrics["methods"][FOR].get("novel_std")
        spread = f" (± {format_value(std)} over {len(metrics['seeds'])} seeds)" if std else ""
        sentences.append(
            f"FOR finds never-labelled classes at {gain.value:.1f} {metric}{spread}, {_compare(gain.difference)} the "
            f"best training-free baseline ({display_name(gain.best_method)}, {gain.best:.1f})."
        )
    if "base" in gains:
        gain = gains["base"]
        sentences.append(
            f"On the classes whose labels it was finetuned with it reaches {gain.value:.1f}, "
            f"{_compare(gain.difference)} the best ({display_name(gain.best_method)}, {gain.best:.1f})."
        )
    if not has_gains:
        sentences += [
            f"{display_name(best)} is the best training-free method on {group} classes, at "
            f"{metrics['methods'][best][group]:.1f} {metric}."
            for group in CLASS_GROUPS
            if group not in small and (best := best_training_free(metrics, group)) is not None
        ]
    empty_groups = metrics.get("left_out", {}).get("groups", [])
    sentences += [f"There is no value for {empty['name']} classes: {empty['reason']}." for empty in empty_groups]
    if ours is not None:
        time = ours["ms_per_image"]
        cost = "" if time is None else f" and embeds one in {format_value(time)} ms"
        takes = "" if passes(metrics, FOR) == 1 else f", takes {passes(metrics, FOR):g} passes of the image tower"
        sentences.append(f"FOR keeps {_plural(ours['vectors_per_image'], 'vector')} per image{takes}{cost}.")
    return " ".join(sentences)


def _compare(difference: float) -> str:
    if round(abs(difference), 1) == 0:
        return "level with"
    return f"{abs(difference):.1f} {'above' if difference > 0 else 'below'}"


def _facts(metrics: Metrics) -> list[str]:
    """The sizes of the experiment, as far as the file has them."""
    sizes = Counter(entry["group"] for entry in metrics.get("classes", {}).values())
    facts = [f"{sizes[group]} {group} classes" for group in CLASS_GROUPS if sizes[group]]
    if "images" in metrics:
        searched = _plural(metrics["images"], "image")
        if metrics["distractors"]:
            where = "of them" if metrics["distractors_kept"] else "more taken out,"
            searched += f" searched, {metrics['distractors']:g} {where} without any of the classes"
        facts.append(searched)
        if count := metrics.get("training_images"):
            facts.append(describe_training_images(count))
        if metrics["protocol"] == "verified images":
            facts.append("each class ranked over the images verified for it")
    return [*facts, _plural(len(metrics["methods"]), "method"), _plural(len(metrics["seeds"]), "seed")]


def _plural(count: float, noun: str) -> str:
    return f"{count:g} {noun}{'' if count == 1 else 's'}"


def _spread(values: dict[str, Any], group: str) -> str:
    """The standard deviation over seeds and the interval over classes, as far as the file has them."""
    std, interval = values.get(f"{group}_std"), format_interval(values.get("intervals", {}).get(group))
    return " ".join([*([f"± {format_value(std)}"] if std else []), *([f"({interval})"] if interval else [])])


def _variants(metrics: Metrics) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """The rows of each variant by its name: the other denominators, and the other protocol."""
    variants: list[tuple[str, list[tuple[str, list[str]]]]] = []
    for key, title in (("other_denominators", "{}"), ("other_protocols", f"{metrics['metric']}, over {{}}")):
        by_method = {method: values.get(key, {}) for method, values in metrics["methods"].items()}
        for name in dict.fromkeys(name for of_method in by_method.values() for name in of_method):
            rows = [
                (display_name(method), [format_value(of_method[name][group]) for group in GROUPS])
                for method, of_method in by_method.items()
                if name in of_method
            ]
            variants.append((title.format(name), rows))
    return variants


def _ladders(metrics: Metrics, kinds: Mapping[str, str]) -> list[tuple[str, Markup]]:
    """Recall and precision by rank: a titled chart for base and for novel. kinds: the CSS class of each method."""
    curves = {m: values["curves"] for m, values in metrics["methods"].items() if values.get("curves", {}).get("k")}
    charts = []
    for measure in ("recall", "precision"):
        for group in CLASS_GROUPS:
            lines = {m: of_method[measure][group] for m, of_method in curves.items() if of_method[measure][group]}
            if lines:
                title = f"{measure}, {group} classes"
                named = [(display_name(m), kinds[m], line) for m, line in lines.items()]
                charts.append((title, ladder_chart(title, curves[next(iter(lines))]["k"], named)))
    return charts


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
        texts = [DASH if gain is None else f"{gain:+.1f}" for gain in gains]
        cells.append((name, group, f"{num_relevant:g}", *map(format_value, values.values()), *texts))
        numbers = (num_relevant, *values.values(), *gains)
        sort_keys.append((name, (group, name), *(float("inf") if n is None else -n for n in numbers)))
    # Equal rows keep their order.
    orders = [sorted(range(len(rows)), key=[keys[k] for keys in sort_keys].__getitem__) for k in range(len(columns))]
    places = tuple(map(tuple, np.argsort(orders, axis=1).T.tolist()))
    sorted_by = 0 if baseline is None else len(columns) - 1
    baseline_name = None if baseline is None else display_name(baseline)
    return ClassTable(tuple(columns), tuple(rows), tuple(cells), places, sorted_by, baseline_name)


def _gains(table: ClassTable) -> tuple[str, Markup] | None:
    """FOR's gain by class in a sentence and as a chart; None if no class has one."""
    gains = [(row.name, row.group, row.gain) for row in table.rows if row.gain is not None]
    if not gains:
        return None
    parts = []
    for group in dict.fromkeys(group for _, group, _ in gains):
        of_group = [gain for _, other, gain in gains if other == group]
        interval = mean_interval(np.array([of_group], np.float64))
        part = f"on {sum(gain > 0 for gain in of_group)} of {len(of_group)} {group} classes"
        if interval is not None:
            low, high = interval
            part += f" (mean gain {np.mean(of_group):+.1f}, 95 % interval {low:+.1f} to {high:+.1f})"
        parts.append(part)
    return f"FOR is above {table.baseline} {' and '.join(parts)}.", gain_chart(gains)


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
    curves = {side: Reliability(**confidence[side]["pairs"]["top 50"]["reliability"]) for side in sides}
    charts = tuple((f"{side} classes", reliability_chart(side, curve)) for side, curve in curves.items())
    return ConfidenceSection(sides, rows, charts)


def _confidence_cells(group: dict[str, Any], wanted: str) -> dict[str, str]:
    """The texts of one group's column by the label of their row. wanted: the precision that a list is cut for."""
    pairs = group["pairs"]
    return {
        **{f"ECE, {name}": format_error(pairs[kind]) for kind, name in PAIRS_NAMES.items()},
        **{
            f"Brier score, {PAIRS_NAMES[kind]} (in brackets: of always predicting the share of right ones)": (
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


def _with_reference(value: float | None, reference: float, decimals: int) -> str:
    return DASH if value is None else f"{value:.{decimals}f} ({reference:.{decimals}f})"


def _percent(share: float | None) -> str:
    return DASH if share is None else f"{100 * share:.0f} %"


def _notes(page: ReportPage) -> list[tuple[str, str]]:
    """The note of each kind of method, after the names of the methods it is about."""
    methods = dict.fromkeys([*page.metrics["methods"], *(row.method for grid in page.queries for row in grid.rows)])
    names: dict[str, list[str]] = {}
    for method in methods:
        names.setdefault(method_note(method), []).append(display_name(method))
    return [("; ".join(of_note), note) for note, of_note in names.items() if note]
