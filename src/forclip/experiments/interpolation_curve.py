"""Measure heads between the untuned and the tuned head of a run: base against novel classes for each alpha."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from rich import box
from rich.table import Column, Table

from forclip.atomic_write import write_text_atomically
from forclip.config import EvalConfig
from forclip.data.images.tiles import Tiles
from forclip.evaluation.methods import format_value
from forclip.experiments.comparison import Task, measure
from forclip.models.backbone import Backbone
from forclip.models.retrieval_model import ClassVectors
from forclip.models.summary_head import SummaryHead
from forclip.progress import Track, untracked
from forclip.training.class_holdout import ALPHAS
from forclip.training.weight_interpolation import interpolate, load_ends

Ends = tuple[SummaryHead, SummaryHead, float | None]  # a run's untuned and tuned head, and its alpha if recorded


@dataclass(frozen=True)
class CurvePoint:
    """base, novel, all: mAP@50 in percent, None for a group without a class. chosen: it is the run's own alpha."""

    alpha: float
    base: float | None
    novel: float | None
    all: float | None
    chosen: bool


def read_ends(run: Path, backbone: Backbone) -> Ends:
    """Read both heads. Raises ValueError if the run has none, they don't fit the backbone, or they are equal."""
    file = run / "ends.safetensors"
    if not file.exists():
        raise ValueError(f"{run}: has no {file.name}; train it again to interpolate")
    untuned, tuned = load_ends(file, backbone)
    if all(torch.equal(*pair) for pair in zip(untuned.own_parameters(), tuned.own_parameters(), strict=True)):
        raise ValueError(f"{run}: chose the untuned head, so its two ends are the same: nothing lies between")
    choices, chosen = run / "choices.json", None
    if choices.exists():
        try:
            content = json.loads(choices.read_text())
            chosen = float(content["share"])
            untuned = untuned.with_share(float(content.get("pooled_share", 0.0)))  # the share of the run's head
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{choices}: not readable as the choices of a run: {error!r}") from None
    return untuned, tuned, chosen


def measure_curve(
    task: Task,
    ends: Ends,
    class_vectors: ClassVectors | None,
    config: EvalConfig,
    seed: int,
    track: Track = untracked,
    tiles: Tiles | None = None,
) -> list[CurvePoint]:
    """Measure the heads at ALPHAS and at the run's own alpha, in rising order.

    class_vectors: the run's text side, used for every head; tiles: the run's, which are encoded again for every head.
    """
    untuned, tuned, chosen = ends
    alphas = sorted({*ALPHAS} if chosen is None else {*ALPHAS, chosen})
    advance = track("evaluating interpolated heads", len(alphas))
    points = []
    for alpha in alphas:
        head = interpolate(untuned, tuned, alpha).eval()
        means = measure(task, "for", head, seed, config, class_vectors, tiles=tiles).run.report.means["min(k,R)"]
        points.append(CurvePoint(alpha, means["base"], means["novel"], means["all"], alpha == chosen))
        advance(1)
    return points


def write_curve(out: Path, points: Sequence[CurvePoint]) -> None:
    """Write interpolation.json and interpolation.png. There is no chart without base or without novel classes.

    `share` is the file format's name of alpha.
    """
    content = {"shares": [{("share" if k == "alpha" else k): v for k, v in asdict(p).items()} for p in points]}
    write_text_atomically(out / "interpolation.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    chart = out / "interpolation.png"
    chart.unlink(missing_ok=True)
    if all(point.base is not None and point.novel is not None for point in points):
        curve_figure(points).savefig(chart)


def curve_figure(points: Sequence[CurvePoint]) -> Figure:
    """Plot base against novel mAP, each point labelled with its alpha. Every point must have both values."""
    figure = Figure(figsize=(6.4, 4.8), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    base, novel = [float(p.base or 0) for p in points], [float(p.novel or 0) for p in points]
    axes.plot(base, novel, "o-", color="#4477aa", markersize=6)
    for point, x, y in zip(points, base, novel, strict=True):
        if point.chosen:
            axes.plot(x, y, "o", color="#cc3311", markersize=14, fillstyle="none", markeredgewidth=2, label="chosen")
        weight = "bold" if point.chosen else "normal"
        label = axes.annotate(f"{point.alpha:g}", (x, y), (9, 7), textcoords="offset points", fontweight=weight)
        label.set_path_effects([withStroke(linewidth=3, foreground="white")])  # readable on the line
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
    """Return a terminal table, with the run's own alpha in bold."""
    numbers = [Column(header, justify="right", no_wrap=True) for header in ("alpha", "base", "novel", "all")]
    title = "from the untuned (0) to the tuned head (1): mAP@50 in percent"
    table = Table(*numbers, "", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for p in points:
        values = (format_value(value) for value in (p.base, p.novel, p.all))
        table.add_row(f"{p.alpha:g}", *values, "chosen" if p.chosen else "", style="bold" if p.chosen else "")
    return table
