"""Charts as inline SVG. Their colours are CSS classes of the page, so they follow light and dark themes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from forclip.evaluation.reliability import Reliability

MAX_POINTS = 240  # a longer curve is drawn as means of equal stretches

_WIDTH, _HEIGHT = 320, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 30
_BAR_HEIGHT, _BAR_GAP = 15, 4
_BAR_ROOM = 88.0  # percent of the width for the longest bar; the rest is for its number
_GAIN_WIDTH, _GAIN_HEIGHT = 1000, 150


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


@dataclass(frozen=True)
class NamedLine:
    """One of several lines in a chart. kind: the CSS class of its colour; ys: percent."""

    name: str
    kind: str
    ys: tuple[float, ...]


def _element(tag: str, *children: str, **attributes: object) -> Markup:
    """An SVG element with escaped texts and rounded floats. `class_` becomes class, `aria_label` becomes aria-label."""
    texts = {
        name.rstrip("_").replace("_", "-"): f"{value:.2f}" if isinstance(value, float) else value
        for name, value in attributes.items()
    }
    pairs = Markup("").join(Markup(' {}="{}"').format(name, text) for name, text in texts.items())
    return Markup("<{0}{1}>{2}</{0}>").format(tag, pairs, Markup("").join(children))


def bars(group: Sequence[Bar], top: float) -> Markup:
    """The bars of one method. top: the value of the longest bar of all methods.

    Lengths are percentages of the width and text is not scaled, so that it stays readable on a phone.
    """
    values = ", ".join(f"{bar.label} {'no value' if bar.value is None else f'{bar.value:.1f}'}" for bar in group)
    height = len(group) * (_BAR_HEIGHT + _BAR_GAP) - _BAR_GAP
    drawn = [_bar(bar, k * (_BAR_HEIGHT + _BAR_GAP), top) for k, bar in enumerate(group)]
    return _element("svg", *drawn, class_="bars", width="100%", height=height, role="img", aria_label=values)


def _bar(bar: Bar, y: int, top: float) -> Markup:
    middle = y + _BAR_HEIGHT / 2
    if bar.value is None:
        return _element("text", f"no {bar.label} class", class_="none", x=2, y=middle, dy=".35em")
    ends = (bar.value, max(bar.value - bar.spread, 0), min(bar.value + bar.spread, top))
    width, low, high = (_BAR_ROOM * end / top for end in ends)
    rect = _element("rect", class_=bar.kind, x=0, y=y, width=f"{width:.2f}%", height=_BAR_HEIGHT, rx=3)
    whisker = _element("line", class_="whisker", x1=f"{low:.2f}%", x2=f"{high:.2f}%", y1=middle, y2=middle)
    text = _element("text", f"{bar.value:.1f}", x=f"{max(width, high):.2f}%", dx=7, y=middle, dy=".35em")
    return rect + (whisker if bar.spread else "") + text


@dataclass(frozen=True)
class _Axes:
    """The ranges that a chart of _WIDTH x _HEIGHT shows, and its coordinates in pixels."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return float(_LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT))

    def y(self, value: float) -> float:
        low, high = self.y_range
        return float(_HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM))

    def polyline(self, xs: Sequence[float], ys: Sequence[float], *children: str, kind: str = "") -> Markup:
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        return _element("polyline", *children, class_=kind, points=points)

    def svg(
        self,
        kind: str,
        label: str,
        x_ticks: Sequence[tuple[float, str]],
        x_label: str,
        y_ticks: Sequence[float],
        *drawn: Markup,
    ) -> Markup:
        """The whole chart. x_ticks: positions and texts; those outside the range are left out."""
        marks = []
        for tick in y_ticks:
            y = self.y(tick)
            marks.append(_element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y))
            marks.append(_element("text", f"{tick:.4g}", class_="y", x=_LEFT - 6, y=y, dy=".35em"))
        for tick, text in x_ticks:
            if self.x_range[0] <= tick <= self.x_range[1]:
                x = self.x(tick)
                kind_of_text = "x end" if x > _WIDTH - 30 else "x"  # the last one must not leave the chart
                marks.append(_element("text", text, class_=kind_of_text, x=x, y=_HEIGHT - 16))
        marks.append(_element("text", x_label, class_="x", x=(_LEFT + _WIDTH - _RIGHT) / 2, y=_HEIGHT - 3))
        view = f"0 0 {_WIDTH} {_HEIGHT}"
        return _element("svg", *marks, *drawn, class_=f"lines {kind}", viewBox=view, role="img", aria_label=label)


def line_chart(curve: Curve) -> Markup:
    """A curve; values that are not finite are left out."""
    xs, ys = (np.asarray(values, float) for values in (curve.xs, curve.ys))
    finite = np.isfinite(xs) & np.isfinite(ys)
    if not finite.any():
        return Markup('<p class="muted">No finite value.</p>')
    xs, ys = xs[finite], ys[finite]
    x_range = (xs.min(), xs.max()) if xs.max() > xs.min() else (xs[0] - 1, xs[0] + 1)
    xs, ys = _thin(xs), _thin(ys)
    y_ticks = nice_ticks(ys.min(), ys.max())
    axes = _Axes(x_range, (min(y_ticks[0], ys.min()), max(y_ticks[-1], ys.max())))
    x_ticks = [(tick, f"{tick:.6g}") for tick in nice_ticks(*x_range)]
    label = f"{curve.name} over {curve.x_label}: from {ys[0]:.3g} to {ys[-1]:.3g}"
    end = _element("circle", cx=axes.x(xs[-1]), cy=axes.y(ys[-1]), r=3)
    return axes.svg("", label, x_ticks, curve.x_label, y_ticks, axes.polyline(xs.tolist(), ys.tolist()), end)


def _thin(values: np.ndarray) -> np.ndarray:
    if len(values) <= MAX_POINTS:
        return values
    return np.array([stretch.mean() for stretch in np.array_split(values, MAX_POINTS)])


def ladder_chart(name: str, ks: Sequence[int], lines: Sequence[NamedLine]) -> Markup:
    """Lines over ranks, from 0 upwards. The ranks are on a logarithmic scale, so that the first few have room."""
    y_ticks = nice_ticks(0.0, max([*(y for line in lines for y in line.ys), 1.0]))
    positions = [math.log(k) for k in ks]
    axes = _Axes((0.0, max(positions[-1], 1e-9)), (y_ticks[0], y_ticks[-1]))
    label = f"{name} by rank: " + ", ".join(f"{line.name} {line.ys[-1]:.1f} at {ks[-1]}" for line in lines)
    drawn = [axes.polyline(positions, line.ys, _element("title", line.name), kind=line.kind) for line in lines]
    return axes.svg("ladder", label, list(zip(positions, map(str, ks), strict=True)), "first k images", y_ticks, *drawn)


def line_sample(kind: str) -> Markup:
    """A piece of a line, for a legend."""
    line = _element("polyline", class_=kind, points="1,4 25,4")
    return _element("svg", line, class_="lines sample", viewBox="0 0 26 8", aria_hidden="true")


def reliability_chart(kind: str, reliability: Reliability) -> Markup:
    """The share of right pairs over the predicted probability, in percent: a point per bin, larger for more pairs.

    Good probabilities lie on the diagonal. kind: the CSS class of the colour, and the name in the label.
    """
    points = [
        (100 * predicted / count, 100 * observed / count, count)
        for count, predicted, observed in zip(
            reliability.counts, reliability.predicted, reliability.observed, strict=True
        )
        if count
    ]
    if not points:
        return Markup('<p class="muted">No image.</p>')
    ticks = [0.0, 25.0, 50.0, 75.0, 100.0]
    axes = _Axes((0.0, 100.0), (0.0, 100.0))
    most = max(count for _, _, count in points)
    dots = [
        _element(
            "circle",
            _element("title", f"predicted {predicted:.0f} %, {observed:.0f} % of {count} right"),
            class_=kind,
            cx=axes.x(predicted),
            cy=axes.y(observed),
            r=2 + 5 * math.sqrt(count / most),
        )
        for predicted, observed, count in points
    ]
    diagonal = _element("line", class_="ideal", x1=axes.x(0), y1=axes.y(0), x2=axes.x(100), y2=axes.y(100))
    line = axes.polyline([p for p, _, _ in points], [o for _, o, _ in points], kind=kind)
    label = f"reliability, {kind} classes: " + ", ".join(f"predicted {p:.0f}, right {o:.0f}" for p, o, _ in points)
    x_ticks = [(tick, f"{tick:.6g}") for tick in ticks]
    return axes.svg("reliability", label, x_ticks, "predicted probability, percent", ticks, diagonal, line, *dots)


def gain_chart(gains: Sequence[tuple[str, str, float]]) -> Markup:
    """A bar per class, the largest gain first. gains: name, the CSS class of the colour, percentage points."""
    ordered = sorted(gains, key=lambda gain: -gain[2])
    ticks = nice_ticks(min([gain for _, _, gain in gains] + [0.0]), max([gain for _, _, gain in gains] + [0.0]))
    scale = _GAIN_HEIGHT / (ticks[-1] - ticks[0])
    step = (_GAIN_WIDTH - _LEFT) / len(ordered)
    drawn = []
    for tick in ticks:
        y = (ticks[-1] - tick) * scale
        drawn.append(_element("line", x1=_LEFT, x2=_GAIN_WIDTH, y1=y, y2=y))
        drawn.append(_element("text", f"{tick:+.4g}" if tick else "0", x=_LEFT - 8, y=y, dy=".35em"))
    for k, (name, kind, gain) in enumerate(ordered):
        title = _element("title", f"{name}: {gain:+.1f}")
        x, y = _LEFT + k * step, (ticks[-1] - max(gain, 0.0)) * scale
        drawn.append(_element("rect", title, class_=kind, x=x, y=y, width=step * 0.86, height=abs(gain) * scale))
    view = f"0 -8 {_GAIN_WIDTH} {_GAIN_HEIGHT + 16}"
    label = f"gain of {len(ordered)} classes"
    return _element("svg", *drawn, class_="gains", viewBox=view, role="img", aria_label=label)


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
