"""What every share of the way from the untuned to the tuned head is worth: base against novel classes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from rich import box
from rich.table import Table

from forclip.atomic_write import write_text_atomically
from forclip.config import EvalConfig
from forclip.evaluation.methods import format_value
from forclip.experiments.comparison import Task, measure
from forclip.models.backbone import Backbone
from forclip.models.class_vectors import ClassVectors
from forclip.models.summary_head import SummaryHead
from forclip.progress import Track, untracked
from forclip.training.class_holdout import ALPHAS
from forclip.training.weight_interpolation import interpolate, load_ends


@dataclass(frozen=True)
class Way:
    """The ends that a run's head lies between, and where: chosen is its share of the way, None if not recorded."""

    untuned: SummaryHead
    tuned: SummaryHead
    chosen: float | None


@dataclass(frozen=True)
class CurvePoint:
    """base, novel, all: mAP@50 in percent, None where a group has no class; chosen: it is the run's own share."""

    share: float
    base: float | None
    novel: float | None
    all: float | None
    chosen: bool


def read_way(run: Path, backbone: Backbone) -> Way:
    """Raises ValueError where the run has no ends, they don't fit the backbone, or both are the same head."""
    file = run / "ends.safetensors"
    if not file.exists():
        raise ValueError(f"{run}: no {file.name}, so there is no way between two heads to measure; train it anew")
    untuned, tuned = load_ends(file, backbone)
    pairs = zip(untuned.parameters(), tuned.parameters(), strict=True)
    if all(torch.equal(start, end) for start, end in pairs):
        raise ValueError(
            f"{run}: chose to stay at the untuned head, so its two ends are the same: nothing lies between"
        )
    return Way(untuned, tuned, _chosen_share(run / "choices.json"))


def _chosen_share(file: Path) -> float | None:
    if not file.exists():
        return None
    try:
        return float(json.loads(file.read_text())["share"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not readable as a run's choices: {error!r}") from None


def measure_curve(
    task: Task, way: Way, class_vectors: ClassVectors | None, config: EvalConfig, seed: int, track: Track = untracked
) -> list[CurvePoint]:
    """The heads at ALPHAS, and at the chosen share where that is another one, on the gallery, in order of share.

    class_vectors: the text side of the run, which all of them are asked through.
    """
    shares = sorted({*ALPHAS, *(() if way.chosen is None else (way.chosen,))})
    advance = track("evaluating shares of the way", len(shares))
    points = []
    for share in shares:
        head = interpolate(way.untuned, way.tuned, share).eval()
        means = measure(task, "for", head, seed, config, class_vectors).run.report.means["min(k,R)"]
        points.append(CurvePoint(share, means["base"], means["novel"], means["all"], share == way.chosen))
        advance(1)
    return points


def write_curve(out: Path, points: Sequence[CurvePoint]) -> None:
    """interpolation.json and interpolation.png; without base or without novel classes there is no picture to draw."""
    content = {"shares": [asdict(point) for point in points]}
    write_text_atomically(out / "interpolation.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    picture = out / "interpolation.png"
    picture.unlink(missing_ok=True)
    if all(point.base is not None and point.novel is not None for point in points):
        curve_figure(points).savefig(picture)


def curve_figure(points: Sequence[CurvePoint]) -> Figure:
    """Base against novel, each point labelled with its share, the chosen one marked. All points have both values."""
    figure = Figure(figsize=(6.4, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    base, novel = [float(p.base or 0) for p in points], [float(p.novel or 0) for p in points]
    axes.plot(base, novel, "o-", color="#4477aa", markersize=6)
    for point, x, y in zip(points, base, novel, strict=True):
        if point.chosen:
            axes.plot(x, y, "o", color="#cc3311", markersize=14, fillstyle="none", markeredgewidth=2, label="chosen")
        weight = "bold" if point.chosen else "normal"
        label = axes.annotate(f"{point.share:g}", (x, y), (9, 7), textcoords="offset points", fontweight=weight)
        label.set_path_effects([withStroke(linewidth=3, foreground="white")])  # readable where the line crosses it
    axes.margins(0.15)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("base classes: mAP@50 (%)")
    axes.set_ylabel("novel classes: mAP@50 (%)")
    axes.set_title("From the untuned (0) to the tuned head (1)", loc="left", fontsize=11)
    if any(point.chosen for point in points):
        axes.legend(frameon=False)
    return figure


def curve_table(points: Sequence[CurvePoint]) -> Table:
    """For a terminal, the chosen share bold."""
    table = Table(
        title="from the untuned (0) to the tuned head (1): mAP@50 in percent",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in ("share", "base", "novel", "all"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for p in points:
        style = "bold" if p.chosen else ""
        cells = [
            f"{p.share:g}",
            format_value(p.base),
            format_value(p.novel),
            format_value(p.all),
            "chosen" if p.chosen else "",
        ]
        table.add_row(*cells, style=style)
    return table
