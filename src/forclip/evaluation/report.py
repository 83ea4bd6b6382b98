"""report.html: one page that needs nothing else, with the summary, charts, tables and result grids of a run."""

from collections import Counter
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from forclip.atomic_write import write_text_atomically
from forclip.evaluation.bootstrap import mean_interval
from forclip.evaluation.charts import Bar, Curve, NamedLine, bars, gain_chart, ladder_chart, line_chart, line_sample
from forclip.evaluation.methods import (
    FOR,
    best_training_free,
    best_values,
    display_name,
    format_interval,
    format_value,
    gains_over_baseline,
    method_note,
    metric_label,
)
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.protocol import GROUPS
from forclip.evaluation.report_sections import ClassTable, class_gains, class_table, confidence_section
from forclip.evaluation.result_grid import EmbeddedThumbnails, GridHit, GridRow, QueryGrid, pictures_of

__all__ = ["Curve", "GridHit", "GridRow", "QueryGrid", "ReportPage", "summary", "write_report"]


@dataclass(frozen=True)
class ReportPage:
    """What the page shows. metrics: as in metrics.json; details: configuration, seed, versions, as text.

    best, worst: what one method, FOR or else the best one, finds for the classes that it ranks best and worst.
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
    """Writes one HTML file without outside requests or scripts; pictures that cannot be read become grey tiles."""
    # A plain environment: the template is one file, read as a resource so that it works from a wheel.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("forclip.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    thumbnails = EmbeddedThumbnails(pictures_of([*page.queries, *page.best, *page.worst]))
    classes = class_table(page.metrics)
    html = environment.from_string(source).render(
        page=page,
        metrics=page.metrics,
        metric=metric_label(page.metrics),
        facts=_facts(page.metrics),
        summary=summary(page.metrics),
        chart=_chart(page.metrics),
        table=_table(page.metrics),
        variants=_variants(page.metrics),
        ladders=_ladders(page.metrics),
        legend=[(line_sample(_kind(page.metrics, m)), display_name(m)) for m in page.metrics["methods"]],
        confidence=confidence_section(page.metrics),
        classes=classes,
        gains=None if classes is None else _gains(classes),
        left_out=page.metrics.get("left_out", {"classes": [], "groups": []}),
        curves=[(curve.name, line_chart(curve)) for curve in page.curves],
        thumbnails=thumbnails,
        notes=_notes(page),
        display_name=display_name,
        format_value=format_value,
        finetuned=FOR,
    )
    write_text_atomically(path, html)


def summary(metrics: Metrics) -> str:
    """What the numbers say, in a few plain sentences."""
    found = gains_over_baseline(metrics)
    metric, over = metric_label(metrics), _over_seeds(metrics)
    sentences = []
    if "novel" in found:
        gain = found["novel"]
        sentences.append(
            f"FOR finds never-labelled classes at {gain.value:.1f} {metric}{over}, {_apart(gain.difference)} the best "
            f"training-free baseline ({display_name(gain.best_method)}, {gain.best:.1f})."
        )
    if "base" in found:
        gain = found["base"]
        sentences.append(
            f"On the classes whose labels it was finetuned with it reaches {gain.value:.1f}, {_apart(gain.difference)} "
            f"the best ({display_name(gain.best_method)}, {gain.best:.1f})."
        )
    if not found:
        sentences += [
            f"{display_name(best)} is the best training-free method on {group} classes, at "
            f"{metrics['methods'][best][group]:.1f} {metric}."
            for group in GROUPS[:2]
            if (best := best_training_free(metrics, group)) is not None
        ]
    reasons = metrics.get("left_out", {}).get("groups", [])
    sentences += [f"There is no value for {empty['name']} classes: {empty['reason']}." for empty in reasons]
    if FOR in metrics["methods"]:
        sentences.append(_cost(metrics["methods"][FOR]))
    return " ".join(sentences)


def _over_seeds(metrics: Metrics) -> str:
    spread = metrics["methods"].get(FOR, {}).get("novel_std")
    return f" (± {format_value(spread)} over {len(metrics['seeds'])} seeds)" if spread else ""


def _apart(difference: float) -> str:
    if round(abs(difference), 1) == 0:
        return "level with"
    return f"{abs(difference):.1f} {'above' if difference > 0 else 'below'}"


def _cost(values: dict[str, Any]) -> str:
    keeps = f"FOR keeps {_plural(values['vectors_per_image'], 'vector')} per image"
    time = values["ms_per_image"]
    return f"{keeps}." if time is None else f"{keeps} and embeds one in {format_value(time)} ms."


def _facts(metrics: Metrics) -> list[str]:
    groups = Counter(entry["group"] for entry in metrics.get("classes", {}).values())
    classes = [f"{groups[group]} {group} classes" for group in ("base", "novel") if groups[group]]
    counts = [_plural(len(metrics["methods"]), "method"), _plural(len(metrics["seeds"]), "seed")]
    return [*classes, *_gallery_facts(metrics), *counts]


def _gallery_facts(metrics: Metrics) -> list[str]:
    """Nothing of an older file, which does not say."""
    if "images" not in metrics:
        return []
    searched = _plural(metrics["images"], "image")
    if metrics["distractors"]:
        where = "of them" if metrics["distractors_kept"] else "more taken out,"
        searched += f" searched, {metrics['distractors']:g} {where} without any of the classes"
    over = ["each class ranked over the images verified for it"] if metrics["protocol"] == "verified images" else []
    return [searched, *over]


def _plural(count: float, noun: str) -> str:
    return f"{count:g} {noun}{'' if count == 1 else 's'}"


def _chart(metrics: Metrics) -> list[tuple[str, str, Markup]]:
    """(method, its name, its bars), all on one scale."""
    methods = metrics["methods"]
    longest = [
        values[group] + (values.get(f"{group}_std") or 0)
        for values in methods.values()
        for group in GROUPS[:2]
        if values[group] is not None
    ]
    top = max([*longest, 1.0])
    return [
        (
            method,
            display_name(method),
            bars([Bar(g, g, values[g], values.get(f"{g}_std") or 0.0) for g in GROUPS[:2]], top),
        )
        for method, values in methods.items()
    ]


def _table(metrics: Metrics) -> list[dict[str, Any]]:
    best = best_values(metrics)
    return [
        {
            "method": method,
            "name": display_name(method),
            "cells": [(*_cell(values, group), _is_best(values, group, best)) for group in GROUPS],
            "vectors": f"{values['vectors_per_image']:g}",
            "ms": format_value(values["ms_per_image"]),
            "fastest": _is_best(values, "ms_per_image", best),
        }
        for method, values in metrics["methods"].items()
    ]


def _cell(values: dict[str, Any], group: str) -> tuple[str, str]:
    """The value, and its spread over seeds and its interval over classes, where there are such."""
    spread, interval = values.get(f"{group}_std"), format_interval(values.get("intervals", {}).get(group))
    beside = [f"± {format_value(spread)}" if spread else "", f"({interval})" if interval else ""]
    return format_value(values[group]), " ".join(filter(None, beside))


def _is_best(values: dict[str, Any], column: str, best: dict[str, str]) -> bool:
    return values[column] is not None and format_value(values[column]) == best.get(column)


def _variants(metrics: Metrics) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """(name of the variant, its rows): the other denominators, and the protocol that was not chosen."""
    found: list[tuple[str, list[tuple[str, list[str]]]]] = []
    for key, title in (("other_denominators", "{}"), ("other_protocols", f"{metrics['metric']}, over {{}}")):
        methods = {method: values.get(key, {}) for method, values in metrics["methods"].items()}
        for name in dict.fromkeys(name for variants in methods.values() for name in variants):
            rows = [
                (display_name(method), [format_value(variants[name][group]) for group in GROUPS])
                for method, variants in methods.items()
                if name in variants
            ]
            found.append((title.format(name), rows))
    return found


_NUM_COLOURS = 7


def _kind(metrics: Metrics, method: str) -> str:
    """The CSS class of a method's line."""
    others = [m for m in metrics["methods"] if m != FOR]
    return "line-for" if method == FOR else f"line-{others.index(method) % _NUM_COLOURS}"


def _ladders(metrics: Metrics) -> list[tuple[str, Markup]]:
    """Recall and precision by rank, a chart for each of base and novel that has a class."""
    with_curves = {method: values["curves"] for method, values in metrics["methods"].items() if "curves" in values}
    charts = []
    for measure in ("recall", "precision"):
        for group in GROUPS[:2]:
            lines = {m: curves[measure][group] for m, curves in with_curves.items() if curves["k"]}
            drawn = [NamedLine(display_name(m), _kind(metrics, m), tuple(ys)) for m, ys in lines.items() if ys]
            if drawn:
                ks = next(curves["k"] for method, curves in with_curves.items() if lines.get(method))
                title = f"{measure}, {group} classes"
                charts.append((title, ladder_chart(title, ks, drawn)))
    return charts


def _gains(table: ClassTable) -> tuple[str, Markup] | None:
    """In words and drawn; None where nothing is compared."""
    found = class_gains(table)
    if not found:
        return None
    groups: dict[str, list[float]] = {}
    for _, group, gain in found:
        groups.setdefault(group, []).append(gain)
    parts = [
        f"on {sum(g > 0 for g in of)} of {len(of)} {group} classes{_mean_gain(of)}" for group, of in groups.items()
    ]
    return f"FOR is above {table.baseline} {' and '.join(parts)}.", gain_chart(found)


def _mean_gain(gains: list[float]) -> str:
    interval = mean_interval(np.array([gains], np.float64))
    if interval is None:
        return ""
    return f" (mean gain {np.mean(gains):+.1f}, 95 % interval {interval[0]:+.1f} to {interval[1]:+.1f})"


def _notes(page: ReportPage) -> list[tuple[str, str]]:
    """(names, what they are) in the order of the table."""
    shown = dict.fromkeys([*page.metrics["methods"], *(row.method for grid in page.queries for row in grid.rows)])
    names: dict[str, list[str]] = {}
    for method in shown:
        names.setdefault(method_note(method), []).append(display_name(method))
    return [("; ".join(same), text) for text, same in names.items() if text]
