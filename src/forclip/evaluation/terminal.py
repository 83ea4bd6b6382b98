"""The table of metrics for a terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forclip.evaluation.methods import (
    best_values,
    display_name,
    format_interval,
    format_value,
    gains_over_baseline,
    metric_label,
)
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.protocol import GROUPS
from forclip.evaluation.report_sections import confidence_line


def print_metrics(console: Console, metrics: Metrics) -> None:
    """metrics: as in metrics.json. One row per method, the best of each column bold, what FOR gains, and how
    far its probabilities are off.

    Behind base and novel values stands their interval over classes, where the file has them.
    """
    label, seeds = metric_label(metrics), len(metrics["seeds"])
    over = f", mean of {seeds} seeds" if seeds > 1 else ""
    table = Table(
        title=Text(f"{metrics['dataset']}: {label} in percent{over}"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("method", no_wrap=True)
    for column in (*GROUPS, "vectors\n/image", "ms\n/image"):
        table.add_column(column, justify="right", no_wrap=True)
    best = best_values(metrics)
    for method, values in metrics["methods"].items():
        table.add_row(Text(display_name(method)), *_cells(values, best))
    console.print(table)
    for note in _notes(metrics):
        console.print(Text(note, style="dim"), soft_wrap=True)
    for line in _gain_line(metrics):
        console.print(line, soft_wrap=True)
    sure = confidence_line(metrics)
    if sure is not None:
        console.print(Text(sure), soft_wrap=True)


def _cells(values: dict[str, Any], best: dict[str, str]) -> list[Text]:
    cells = []
    for group in GROUPS:
        cell = Text(format_value(values[group]), style=_style(values[group], best.get(group)))
        if values.get(f"{group}_std"):
            cell.append(f" ± {format_value(values[f'{group}_std'])}", style="dim not bold")
        interval = format_interval(values.get("intervals", {}).get(group), decimals=0)
        if interval and group != "all":
            # With a spread beside the value there is no room left on the line.
            between = "\n" if values.get(f"{group}_std") else " "
            cell.append(f"{between}({interval})", style="dim not bold")
        cells.append(cell)
    cells.append(Text(f"{values['vectors_per_image']:g}"))
    time = values["ms_per_image"]
    return [*cells, Text(format_value(time), style=_style(time, best.get("ms_per_image")))]


def _notes(metrics: Metrics) -> list[str]:
    """What the numbers are over; nothing where the file does not say."""
    notes = []
    if "interval" in metrics:
        notes.append(f"in brackets: {100 * metrics['interval']['level']:.0f} % bootstrap interval over classes")
    if metrics.get("protocol") == "verified images":
        notes.append("each class is ranked over the images verified for it (federated)")
    if metrics.get("distractors"):
        kept = "kept among" if metrics["distractors_kept"] else "removed from"
        notes.append(f"{metrics['distractors']:g} images of none of the classes were {kept} the gallery")
    return notes


def _style(value: float | None, best: str | None) -> str:
    return "bold" if value is not None and format_value(value) == best else ""


def _gain_line(metrics: Metrics) -> list[Text]:
    """At most one line; none without FOR or without a training-free method."""
    found = gains_over_baseline(metrics).values()
    parts = [f"{gain.group} {gain.difference:+.1f}" for gain in found]
    rivals = dict.fromkeys(display_name(gain.best_method) for gain in found)
    line = f"FOR over the best training-free method ({'; '.join(rivals)}): {', '.join(parts)}"
    return [Text(line)] if parts else []
