"""Charts as inline SVG. matplotlib draws the shapes; their colours, widths and dashes are CSS classes of the page, so
that they follow light and dark themes."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from forclip.evaluation.confidence import Reliability

MAX_POINTS = 240  # a longer curve is drawn as means of equal stretches
# What matplotlib writes that a page has no use for, or that would reach other parts of it.
_CLUTTER = re.compile(
    r'<metadata>.*?</metadata>|<style.*?</style>|<clipPath.*?</clipPath>|(?<=style=")(?:font[-:][^;"]*; )+'
    r'| (?:clip-path|transform|xmlns[:\w]*|version)="[^"]*"| (?:width|height)="[\d.]+pt"',
    re.DOTALL,
)


@dataclass(frozen=True)
class Curve:
    """One line over steps or epochs: a loss term, or a mean average precision. Raises ValueError if lengths differ."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    x_label: str

    def __post_init__(self) -> None:
        if len(self.xs) != len(self.ys):
            raise ValueError(f"curve {self.name!r} has {len(self.xs)} x and {len(self.ys)} y values")


def _axes(
    x_label: str, x_ticks: Sequence[float], y_ticks: Sequence[float], width: int = 320, x_scale: str = "linear"
) -> Axes:
    """Axes whose y axis ends at the outer ticks, with horizontal grid lines. width: of the chart, in pixels."""
    height, bottom = 168, 30 if x_label else 10
    box = (44 / width, bottom / height, 1 - 54 / width, 1 - (bottom + 10) / height)
    axes = Figure((width / 72, height / 72), frameon=False).add_axes(box, frame_on=False)
    axes.tick_params(length=0, pad=5, labelsize=11)
    axes.margins(x=0)
    axes.set_axisbelow(True)
    axes.set_xscale(x_scale)
    axes.minorticks_off()
    axes.set_xticks(x_ticks, [f"{tick:.6g}" for tick in x_ticks])
    axes.set_yticks(y_ticks, [f"{tick:.4g}" for tick in y_ticks])
    axes.set_ylim(y_ticks[0], y_ticks[-1])
    axes.set_xlabel(x_label, parse_math=False, fontsize=11, labelpad=1)
    axes.grid(axis="y", color="black", linewidth=1, gid="grid|")
    return axes


def _svg(axes: Axes, kind: str, label: str) -> Markup:
    """The chart as inline SVG. kind: CSS class; label: accessible name; an artist's gid: its CSS class|tooltip."""
    assert isinstance(axes.figure, Figure)
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": ascii(label)}):
        axes.figure.savefig(stream, format="svg")
    drawn = _CLUTTER.sub("", stream.getvalue()[stream.getvalue().index("<svg") :])
    drawn = re.sub(r'<g id="([\w-]*)\|(.*?)">', r'<g class="\1"><title>\2</title>', drawn)
    for old, new in ((r'<g id="[^"]*"', "<g"), (r"<title></title>|<g/>", ""), (r"\s*\n\s*", "\n")):
        drawn = re.sub(old, new, drawn)
    start = Markup('<svg class="lines {}" role="img" aria-label="{}"').format(kind, label)
    return start + Markup(drawn.removeprefix("<svg").replace("stroke: #000000", "stroke: currentColor"))


def _plot(axes: Axes, gid: str, xs: ArrayLike, ys: ArrayLike, marker: str = "", size: float = 6) -> None:
    """Draw a line, or points if there is a marker."""
    (line,) = axes.plot(xs, ys, marker, color="black", linewidth=1, gid=gid, clip_on=False)
    line.set(markersize=size, markeredgewidth=0)


def line_chart(curve: Curve) -> Markup:
    """A curve; values that are not finite are left out."""
    xs, ys = (np.asarray(values, float) for values in (curve.xs, curve.ys))
    finite = np.isfinite(xs) & np.isfinite(ys)
    if not finite.any():
        return Markup('<p class="muted">No finite value.</p>')
    xs, ys = xs[finite], ys[finite]
    start, stop = xs.min(), xs.max()
    num_points = min(len(xs), MAX_POINTS)
    xs, ys = (np.array([part.mean() for part in np.array_split(values, num_points)]) for values in (xs, ys))
    axes = _axes(curve.x_label, nice_ticks(start, stop), nice_ticks(ys.min(), ys.max()))
    if start < stop:
        axes.set_xlim(start, stop)
    _plot(axes, "novel|", xs, ys)
    _plot(axes, "novel|", xs[-1:], ys[-1:], "o")
    return _svg(axes, "", f"{curve.name} over {curve.x_label}: from {ys[0]:.3g} to {ys[-1]:.3g}")


def ladder_chart(name: str, ks: Sequence[int], lines: Sequence[tuple[str, str, Sequence[float]]]) -> Markup:
    """Lines over ranks, from 0 upwards. lines: name, the CSS class of the colour, percent at each rank.

    The ranks are on a logarithmic scale, so that the first few have room.
    """
    top = max([1, *(y for _, _, ys in lines for y in ys)])
    axes = _axes("first k images", ks, nice_ticks(0, top), x_scale="log")
    for line, kind, ys in lines:
        _plot(axes, f"{kind}|{line}", ks, ys)
    label = ", ".join(f"{line} {ys[-1]:.1f} at {ks[-1]}" for line, _, ys in lines)
    return _svg(axes, "ladder", f"{name} by rank: {label}")


def reliability_chart(kind: str, reliability: Reliability) -> Markup:
    """The share of right pairs over the predicted probability, in percent: a point per bin, larger for more pairs.

    Good probabilities lie on the diagonal. kind: the CSS class of the colour, and the name in the label.
    """
    counts = np.array(reliability.counts)
    if not counts.any():
        return Markup('<p class="muted">No image.</p>')
    filled = counts > 0
    predicted, observed = (
        100 * np.array(sums)[filled] / counts[filled] for sums in (reliability.predicted, reliability.observed)
    )
    ticks = [0, 25, 50, 75, 100]
    axes = _axes("predicted probability, percent", ticks, ticks)
    _plot(axes, "ideal|", [0, 100], [0, 100])
    _plot(axes, f"{kind}|", predicted, observed)
    for p, o, count in zip(predicted, observed, counts[filled], strict=True):
        size = 4 + 10 * (count / counts.max()) ** 0.5
        _plot(axes, f"{kind}|predicted {p:.0f} %, {o:.0f} % of {count} right", p, o, "o", size)
    points = ", ".join(f"predicted {p:.0f}, right {o:.0f}" for p, o in zip(predicted, observed, strict=True))
    return _svg(axes, "reliability", f"reliability, {kind} classes: {points}")


def gain_chart(gains: Sequence[tuple[str, str, float]]) -> Markup:
    """A bar per class, the largest gain first. gains: name, the CSS class of the colour, percentage points."""
    ordered = sorted(gains, key=lambda gain: -gain[2])
    heights = [gain for _, _, gain in ordered]
    ticks = nice_ticks(min(*heights, 0), max(*heights, 0))
    axes = _axes("", [], ticks, width=1000)
    axes.set_yticks(ticks, [f"{tick:+.4g}" if tick else "0" for tick in ticks])
    for bar, (name, kind, gain) in zip(axes.bar(range(len(gains)), heights, 0.86, color="black"), ordered, strict=True):
        bar.set_gid(f"{kind}|{name}: {gain:+.1f}")
    return _svg(axes, "gains", f"gain of {len(ordered)} classes")


def nice_ticks(low: float, high: float) -> list[float]:
    """A few round numbers that enclose low to high."""
    return [float(tick) for tick in MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
