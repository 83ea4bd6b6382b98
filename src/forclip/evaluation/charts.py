"""Charts as inline SVG that take their colours from the page, so that they follow light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from forclip.evaluation.reliability import Reliability

MAX_POINTS = 240  # a longer curve is drawn as means of equal stretches


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


@dataclass(frozen=True)
class Bar:
    """kind: the CSS class of its colour. value: percent, or None; spread: its standard deviation."""

    kind: str
    label: str
    value: float | None
    spread: float


_BAR_HEIGHT, _BAR_GAP = 15, 4
_BAR_ROOM = 88.0  # percent of the width for the longest bar; the rest is for its number


def bars(group: Sequence[Bar], top: float) -> Markup:
    """The bars of one method. top: the value at the right end, shared by all methods.

    Lengths are percentages of the width and text is not scaled, so that it stays readable on a phone.
    """
    height = len(group) * (_BAR_HEIGHT + _BAR_GAP) - _BAR_GAP
    label = ", ".join(f"{bar.label} {'no value' if bar.value is None else f'{bar.value:.1f}'}" for bar in group)
    drawn = Markup("").join(_bar(bar, k * (_BAR_HEIGHT + _BAR_GAP), top) for k, bar in enumerate(group))
    return Markup('<svg class="bars" width="100%" height="{}" role="img" aria-label="{}">{}</svg>').format(
        height, label, drawn
    )


def _bar(bar: Bar, y: int, top: float) -> Markup:
    middle = y + _BAR_HEIGHT / 2
    if bar.value is None:
        return Markup('<text class="none" x="2" y="{}" dy=".35em">no {} class</text>').format(middle, bar.label)
    width = _BAR_ROOM * bar.value / top
    low, high = (_BAR_ROOM * min(max(v, 0), top) / top for v in (bar.value - bar.spread, bar.value + bar.spread))
    line = Markup('<line class="whisker" x1="{:.2f}%" x2="{:.2f}%" y1="{}" y2="{}"/>')
    whisker = line.format(low, high, middle, middle) if bar.spread else ""
    return Markup(
        '<rect class="{}" x="0" y="{}" width="{:.2f}%" height="{}" rx="3"/>{}'
        '<text x="{:.2f}%" dx="7" y="{}" dy=".35em">{:.1f}</text>'
    ).format(
        bar.kind, y, width, _BAR_HEIGHT, whisker, max(width, high), middle, bar.value
    )  # fmt: skip


_WIDTH, _HEIGHT = 320, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 30


def line_chart(curve: Curve) -> Markup:
    """Values that are not finite are left out."""
    xs, ys = (np.asarray(values, float) for values in (curve.xs, curve.ys))
    finite = np.isfinite(xs) & np.isfinite(ys)
    if not finite.any():
        return Markup('<p class="muted">No finite value.</p>')
    xs, ys = xs[finite], ys[finite]
    low_x, high_x = (xs.min(), xs.max()) if xs.max() > xs.min() else (xs[0] - 1, xs[0] + 1)
    xs, ys = _thinned(xs), _thinned(ys)
    ticks_x, ticks_y = nice_ticks(low_x, high_x), nice_ticks(ys.min(), ys.max())
    low_y, high_y = min(ticks_y[0], ys.min()), max(ticks_y[-1], ys.max())
    across = _LEFT + (xs - low_x) / (high_x - low_x) * (_WIDTH - _LEFT - _RIGHT)
    up = _HEIGHT - _BOTTOM - (ys - low_y) / (high_y - low_y) * (_HEIGHT - _TOP - _BOTTOM)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
    label = f"{curve.name} over {curve.x_label}: from {ys[0]:.3g} to {ys[-1]:.3g}"
    return Markup(
        '<svg class="lines" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}<polyline points="{}"/>'
        '<circle cx="{:.1f}" cy="{:.1f}" r="3"/></svg>'
    ).format(
        _WIDTH, _HEIGHT, label, _y_axis(ticks_y, low_y, high_y), _x_axis(ticks_x, low_x, high_x, curve.x_label),
        points, across[-1], up[-1],
    )  # fmt: skip


@dataclass(frozen=True)
class NamedLine:
    """One of several lines in a chart. kind: the CSS class of its colour; ys: percent."""

    name: str
    kind: str
    ys: tuple[float, ...]


def ladder_chart(name: str, ks: Sequence[int], lines: Sequence[NamedLine]) -> Markup:
    """Lines over ranks, from 0 upwards; ranks are spread by their logarithm, so that the first few have room."""
    ticks = nice_ticks(0.0, max([*(y for line in lines for y in line.ys), 1.0]))
    places = np.log(ks) / max(np.log(ks[-1]), 1e-9)
    across = _LEFT + places * (_WIDTH - _LEFT - _RIGHT)
    drawn = Markup("").join(_ladder_line(line, across, ticks[-1]) for line in lines)
    label = f"{name} by rank: " + ", ".join(f"{line.name} {line.ys[-1]:.1f} at {ks[-1]}" for line in lines)
    text = Markup('<text class="x" x="{:.1f}" y="{}">{}</text>')
    marks = Markup("").join(text.format(x, _HEIGHT - 16, k) for x, k in zip(across, ks, strict=True))
    marks += text.format((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 3, "first k images")
    return Markup('<svg class="lines ladder" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>').format(
        _WIDTH, _HEIGHT, label, _y_axis(ticks, ticks[0], ticks[-1]), marks, drawn
    )


def _ladder_line(line: NamedLine, across: np.ndarray, top: float) -> Markup:
    up = _HEIGHT - _BOTTOM - np.array(line.ys) / top * (_HEIGHT - _TOP - _BOTTOM)
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
    return Markup('<polyline class="{}" points="{}"><title>{}</title></polyline>').format(line.kind, points, line.name)


def line_sample(kind: str) -> Markup:
    """A piece of a line, for a legend."""
    drawn = Markup('<svg class="lines sample" viewBox="0 0 26 8" aria-hidden="true"><polyline class="{}" points="{}"/>')
    return drawn.format(kind, "1,4 25,4") + Markup("</svg>")


def reliability_chart(kind: str, found: Reliability) -> Markup:
    """The share of right ones against what was said, in percent: a point for each bin with a pair, larger for more
    pairs; on the diagonal, probabilities mean what they say. kind: the CSS class of its colour, and its name."""
    points = [
        (100 * said / count, 100 * right / count, count)
        for count, said, right in zip(found.counts, found.predicted, found.observed, strict=True)
        if count
    ]
    if not points:
        return Markup('<p class="muted">No image.</p>')
    ticks = [0.0, 25.0, 50.0, 75.0, 100.0]
    across = [_LEFT + said / 100 * (_WIDTH - _LEFT - _RIGHT) for said, _, _ in points]
    up = [_HEIGHT - _BOTTOM - right / 100 * (_HEIGHT - _TOP - _BOTTOM) for _, right, _ in points]
    most = max(count for _, _, count in points)
    dot = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title></circle>')
    dots = Markup("").join(
        dot.format(kind, x, y, 2 + 5 * math.sqrt(count / most), f"said {said:.0f} %, {right:.0f} % of {count} right")
        for x, y, (said, right, count) in zip(across, up, points, strict=True)
    )
    line = Markup('<polyline class="{}" points="{}"/>').format(
        kind, " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))
    )
    ideal = Markup('<line class="ideal" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    label = f"reliability, {kind} classes: " + ", ".join(f"said {s:.0f}, right {r:.0f}" for s, r, _ in points)
    return Markup(
        '<svg class="lines reliability" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}{}{}</svg>'
    ).format(
        _WIDTH, _HEIGHT, label, _y_axis(ticks, 0, 100), _x_axis(ticks, 0, 100, "probability said, percent"),
        ideal.format(_LEFT, _HEIGHT - _BOTTOM, _WIDTH - _RIGHT, _TOP), line, dots,
    )  # fmt: skip


_GAIN_WIDTH, _GAIN_HEIGHT = 1000, 150


def gain_chart(gains: Sequence[tuple[str, str, float]]) -> Markup:
    """A bar for each class, the largest gain first. gains: name, the CSS class of its colour, percentage points."""
    ordered = sorted(gains, key=lambda gain: -gain[2])
    ticks = nice_ticks(min([gain for _, _, gain in gains] + [0.0]), max([gain for _, _, gain in gains] + [0.0]))
    scale = _GAIN_HEIGHT / (ticks[-1] - ticks[0])
    step = (_GAIN_WIDTH - _LEFT) / len(ordered)
    zero = ticks[-1] * scale
    bar = Markup(
        '<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"><title>{}: {:+.1f}</title></rect>'
    )
    drawn = Markup("").join(
        bar.format(kind, _LEFT + k * step, min(zero, zero - gain * scale), step * 0.86, abs(gain) * scale, name, gain)
        for k, (name, kind, gain) in enumerate(ordered)
    )
    line = Markup('<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text x="{}" y="{:.1f}" dy=".35em">{}</text>')
    axis = Markup("").join(
        line.format(_LEFT, _GAIN_WIDTH, y, y, _LEFT - 8, y, f"{tick:+.4g}" if tick else "0")
        for tick in ticks
        for y in [(ticks[-1] - tick) * scale]
    )
    return Markup('<svg class="gains" viewBox="0 -8 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        _GAIN_WIDTH, _GAIN_HEIGHT + 16, f"gain of {len(ordered)} classes", axis, drawn
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Two to six round numbers that enclose low to high."""
    if high <= low:
        reach = abs(low) * 0.1 or 1.0
        low, high = low - reach, high + reach
    rough = (high - low) / 3
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(s * scale for s in (1, 2, 2.5, 5, 10) if s * scale >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [k * step for k in range(first, last + 1)]


def _y_axis(ticks: list[float], low: float, high: float) -> Markup:
    line = Markup(
        '<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text class="y" x="{}" y="{:.1f}" dy=".35em">{:.4g}</text>'
    )
    drawn = []
    for tick in ticks:
        y = _HEIGHT - _BOTTOM - (tick - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)
        drawn.append(line.format(_LEFT, _WIDTH - _RIGHT, y, y, _LEFT - 6, y, tick))
    return Markup("").join(drawn)


def _x_axis(ticks: list[float], low: float, high: float, name: str) -> Markup:
    text = Markup('<text class="{}" x="{:.1f}" y="{}">{:.6g}</text>')
    drawn = []
    for tick in ticks:
        if low <= tick <= high:
            x = _LEFT + (tick - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)
            drawn.append(text.format("x end" if x > _WIDTH - 30 else "x", min(x, _WIDTH - _RIGHT), _HEIGHT - 16, tick))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    return Markup("").join(drawn) + Markup('<text class="x" x="{}" y="{}">{}</text>').format(middle, _HEIGHT - 3, name)


def _thinned(values: np.ndarray) -> np.ndarray:
    if len(values) <= MAX_POINTS:
        return values
    return np.array([stretch.mean() for stretch in np.array_split(values, MAX_POINTS)])
