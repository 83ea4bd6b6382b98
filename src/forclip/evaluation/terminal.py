"""Print metrics.json as a table in a terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from forclip.data.training_images import describe_training_images
from forclip.evaluation.confidence import PAIRS
from forclip.evaluation.methods import (
    FOR,
    PAIRS_NAMES,
    best_cells,
    display_name,
    format_error,
    format_interval,
    format_value,
    gains_over_baseline,
    metric_label,
    passes,
)
from forclip.evaluation.metrics_file import Metrics
from forclip.evaluation.protocol import CLASS_GROUPS, GROUPS
from forclip.evaluation.sample_size import describe_small_sample, small_samples


def print_metrics(console: Console, metrics: Metrics) -> None:
    """Print a row per method with the best of each column bold, then FOR's gain and the error of its probabilities.

    Base and novel values are followed by their interval over classes, if the file has it.
    """
    seeds = len(metrics["seeds"])
    over = f", mean of {seeds} seeds" if seeds > 1 else ""
    title = Text(f"{metrics['dataset']}: {metric_label(metrics)} in percent{over}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.collapse_padding = True  # else it is wider than 80 characters
    table.add_column("method", no_wrap=True)
    for column in (*GROUPS, "vectors", "passes", "ms"):
        table.add_column(column, justify="right", no_wrap=True)
    best = best_cells(metrics)
    has_std = any(values.get(f"{group}_std") for values in metrics["methods"].values() for group in GROUPS)

    def cell(method: str, column: str) -> Text:
        value = metrics["methods"][method][column]
        is_long = column == "ms_per_image" and value is not None and value >= 100
        shown = f"{value:.0f}" if is_long else format_value(value)
        return Text(shown, "bold" if (method, column) in best else "")

    for method, values in metrics["methods"].items():
        cells = [cell(method, group) for group in GROUPS]
        for group, text in zip(GROUPS, cells, strict=True):
            std = values.get(f"{group}_std")
            interval = format_interval(values.get("intervals", {}).get(group), decimals=0)
            if std:
                text.append(f" ± {format_value(std)}", style="dim not bold")
            if interval and group != "all":
                # Next to standard deviations there is no room left on the line.
                text.append(("\n" if has_std else " ") + f"({interval})", style="dim not bold")
        cost = Text(f"{values['vectors_per_image']:g}"), Text(f"{passes(metrics, method):g}")
        table.add_row(Text(display_name(method)), *cells, *cost, cell(method, "ms_per_image"))
    console.print(table)
    small = small_samples(metrics)
    if sentence := describe_small_sample(metrics):
        console.print(Text(sentence, style="yellow"))
    # What the numbers are measured over, as far as the file says.
    notes = ["vectors, passes of the image tower and milliseconds: for one image"]
    if "interval" in metrics:
        notes.append(f"in brackets: {100 * metrics['interval']['level']:.0f} % bootstrap interval over classes")
    if metrics.get("protocol") == "verified images":
        notes.append("each class is ranked over the images verified for it (federated)")
    if metrics.get("distractors"):
        kept = "kept among" if metrics["distractors_kept"] else "removed from"
        notes.append(f"{metrics['distractors']:g} images of none of the classes were {kept} the gallery")
    if count := metrics.get("training_images"):
        console.print(Text(describe_training_images(count), style="yellow"), soft_wrap=True)
    for note in notes:
        console.print(Text(note, style="dim"), soft_wrap=True)
    unreliable = {*small, *(["all"] if small else [])}
    gains = {group: gain for group, gain in gains_over_baseline(metrics).items() if group not in unreliable}
    if gains:
        baselines = "; ".join(dict.fromkeys(display_name(gain.best_method) for gain in gains.values()))
        differences = ", ".join(f"{group} {gain.difference:+.1f}" for group, gain in gains.items())
        console.print(Text(f"FOR over the best training-free method ({baselines}): {differences}"), soft_wrap=True)
    line = confidence_line(metrics)
    if line is not None:
        console.print(Text(line), soft_wrap=True)


def confidence_line(metrics: Metrics) -> str | None:
    """The calibration errors in one line, for a terminal."""
    confidence = metrics["methods"].get(FOR, {}).get("confidence")
    if confidence is None:
        return None
    sides = [group for group in CLASS_GROUPS if group in confidence]
    errors = [
        f"{' / '.join(format_error(confidence[side]['pairs'][kind]) for side in sides)} over {PAIRS_NAMES[kind]}"
        for kind in PAIRS[:2]
    ]
    return f"Calibration error of FOR's probabilities (ECE, {' / '.join(sides)}): {', '.join(errors)}"
