"""report.html: one page that needs nothing else, with the summary, charts, tables and result grids of a run."""

from collections import Counter
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from forclip.evaluation.charts import Bar, Curve, bars, line_chart
from forclip.evaluation.methods import (
    FOR,
    best_training_free,
    best_values,
    display_name,
    gains,
    metric_label,
    note,
    number,
)
from forclip.evaluation.metrics_file import Metrics, write_whole
from forclip.evaluation.result import GROUPS
from forclip.evaluation.result_grid import GridHit, GridRow, QueryGrid, Thumbnails

__all__ = ["Curve", "GridHit", "GridRow", "QueryGrid", "ReportPage", "summary", "write_report"]


@dataclass(frozen=True)
class ReportPage:
    """What the page shows. metrics: as in metrics.json; details: configuration, seed, versions, as text."""

    title: str
    dataset: str
    metrics: Metrics
    curves: tuple[Curve, ...]
    queries: tuple[QueryGrid, ...]
    details: dict[str, str]


def write_report(path: Path, page: ReportPage) -> None:
    """Writes one HTML file without outside requests or scripts; pictures that cannot be read become grey tiles."""
    # A plain environment: the template is one file, read as a resource so that it works from a wheel.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = resources.files("forclip.evaluation").joinpath("report_page.html").read_text(encoding="utf-8")
    thumbnails = Thumbnails(page.queries)
    html = environment.from_string(source).render(
        page=page,
        metrics=page.metrics,
        metric=metric_label(page.metrics),
        facts=_facts(page.metrics),
        summary=summary(page.metrics),
        chart=_chart(page.metrics),
        table=_table(page.metrics),
        variants=_variants(page.metrics),
        left_out=page.metrics.get("left_out", {"classes": [], "groups": []}),
        curves=[(curve.name, line_chart(curve)) for curve in page.curves],
        thumbnails=thumbnails,
        notes=_notes(page),
        display_name=display_name,
        number=number,
        finetuned=FOR,
    )
    write_whole(path, html)


def summary(metrics: Metrics) -> str:
    """What the numbers say, in a few plain sentences."""
    found = gains(metrics)
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
    return f" (± {number(spread)} over {len(metrics['seeds'])} seeds)" if spread else ""


def _apart(difference: float) -> str:
    if round(abs(difference), 1) == 0:
        return "level with"
    return f"{abs(difference):.1f} {'above' if difference > 0 else 'below'}"


def _cost(values: dict[str, Any]) -> str:
    keeps = f"FOR keeps {_plural(values['vectors_per_image'], 'vector')} per image"
    time = values["ms_per_image"]
    return f"{keeps}." if time is None else f"{keeps} and embeds one in {number(time)} ms."


def _facts(metrics: Metrics) -> list[str]:
    groups = Counter(entry["group"] for entry in metrics.get("classes", {}).values())
    classes = [f"{groups[group]} {group} classes" for group in ("base", "novel") if groups[group]]
    return [*classes, _plural(len(metrics["methods"]), "method"), _plural(len(metrics["seeds"]), "seed")]


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
            "ms": number(values["ms_per_image"]),
            "fastest": _is_best(values, "ms_per_image", best),
        }
        for method, values in metrics["methods"].items()
    ]


def _cell(values: dict[str, Any], group: str) -> tuple[str, str]:
    """The value and its spread, which is empty for a single run."""
    spread = values.get(f"{group}_std")
    return number(values[group]), f"± {number(spread)}" if spread else ""


def _is_best(values: dict[str, Any], column: str, best: dict[str, str]) -> bool:
    return values[column] is not None and number(values[column]) == best.get(column)


def _variants(metrics: Metrics) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """(name of the variant, its rows) for the other denominators."""
    methods = metrics["methods"]
    names = dict.fromkeys(name for values in methods.values() for name in values.get("other_denominators", {}))
    return [
        (
            name,
            [
                (display_name(method), [number(values["other_denominators"][name][group]) for group in GROUPS])
                for method, values in methods.items()
                if name in values.get("other_denominators", {})
            ],
        )
        for name in names
    ]


def _notes(page: ReportPage) -> list[tuple[str, str]]:
    """(names, what they are) in the order of the table."""
    shown = dict.fromkeys([*page.metrics["methods"], *(row.method for grid in page.queries for row in grid.rows)])
    names: dict[str, list[str]] = {}
    for method in shown:
        names.setdefault(note(method), []).append(display_name(method))
    return [("; ".join(same), text) for text, same in names.items() if text]
