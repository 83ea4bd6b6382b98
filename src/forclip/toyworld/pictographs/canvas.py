"""A drawing surface that stores roles instead of colours. Coordinates are units from 0 to 100, y points down."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

CLEAR, TINT, SHADE, INK, LIGHT = range(5)

Point = tuple[float, float]

_UNIT = 6.0  # pixels per unit
_MARGIN = 20.0  # units around the square, so that drawings may overshoot it


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _arc_points(cx: float, cy: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    """Points along an ellipse from start to end, in degrees clockwise from three o'clock."""
    steps = max(8, int(abs(end - start) / 3))
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(cx + rx * math.cos(a), cy + ry * math.sin(a)) for a in angles]


def _spline(points: list[Point]) -> list[Point]:
    """Catmull-Rom curve through the inner points. The first and the last point only set its direction."""
    out: list[Point] = []
    for a, b, c, d in zip(points, points[1:], points[2:], points[3:], strict=False):
        for step in range(16):
            t = step / 16
            weights = (
                (-t + 2 * t**2 - t**3) / 2,
                (2 - 5 * t**2 + 3 * t**3) / 2,
                (t + 4 * t**2 - 3 * t**3) / 2,
                (t**3 - t**2) / 2,
            )
            x = sum(w * p[0] for w, p in zip(weights, (a, b, c, d), strict=True))
            y = sum(w * p[1] for w, p in zip(weights, (a, b, c, d), strict=True))
            out.append((x, y))
    out.append(points[-2])
    return out


def rotated(points: list[Point], cx: float, cy: float, degrees: float) -> list[Point]:
    """Rotate points clockwise about (cx, cy)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos) for x, y in points]


class Canvas:
    """A canvas of roles. Later shapes cover earlier ones; CLEAR erases."""

    def __init__(self) -> None:
        side = round((100 + 2 * _MARGIN) * _UNIT)
        self._image = Image.new("L", (side, side), CLEAR)
        self._draw = ImageDraw.Draw(self._image)

    def roles(self) -> np.ndarray:
        """The drawing, as a uint8 array of roles [side, side]."""
        return np.asarray(self._image, dtype=np.uint8)

    def _pixels(self, points: list[Point]) -> list[Point]:
        return [((x + _MARGIN) * _UNIT, (y + _MARGIN) * _UNIT) for x, y in points]

    def polygon(self, role: int, *points: Point) -> None:
        """Draw a filled polygon."""
        self._draw.polygon(self._pixels(list(points)), fill=role)

    def blob(self, role: int, *points: Point) -> None:
        """Draw a filled, closed, smooth curve through the points."""
        ring = [points[-1], *points, points[0], points[1]]
        self.polygon(role, *_spline(ring))

    def ellipse(self, role: int, cx: float, cy: float, rx: float, ry: float, turn: float = 0) -> None:
        """Draw a filled ellipse, rotated clockwise by `turn` degrees."""
        self.polygon(role, *rotated(_arc_points(cx, cy, rx, ry, 0, 360), cx, cy, turn))

    def circle(self, role: int, cx: float, cy: float, r: float) -> None:
        """Draw a filled circle."""
        self.ellipse(role, cx, cy, r, r)

    def pie(self, role: int, cx: float, cy: float, rx: float, ry: float, start: float, end: float) -> None:
        """Draw a filled sector of an ellipse. 180 to 360 degrees is the upper half."""
        self.polygon(role, (cx, cy), *_arc_points(cx, cy, rx, ry, start, end))

    def rounded(self, role: int, x0: float, y0: float, x1: float, y1: float, r: float = 0, turn: float = 0) -> None:
        """Draw a filled rectangle with corners of radius `r`, rotated about its centre by `turn` degrees."""
        corners = [(x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180), (x1 - r, y0 + r, 270)]
        ring = [p for x, y, a in corners for p in _arc_points(x, y, r, r, a, a + 90)]
        self.polygon(role, *rotated(ring, (x0 + x1) / 2, (y0 + y1) / 2, turn))

    def line(self, role: int, width: float, *points: Point) -> None:
        """Draw a thick line through the points, with round ends and joints."""
        pixels = self._pixels(list(points))
        self._draw.line(pixels, fill=role, width=max(1, round(width * _UNIT)))
        r = width * _UNIT / 2
        for x, y in pixels:
            self._draw.ellipse((x - r, y - r, x + r, y + r), fill=role)

    def curve(self, role: int, width: float, *points: Point) -> None:
        """Draw a thick smooth line through the points."""
        self.line(role, width, *_spline([points[0], *points, points[-1]]))

    def arc(
        self, role: int, width: float, cx: float, cy: float, rx: float, ry: float, start: float, end: float
    ) -> None:
        """Draw a thick arc of an ellipse, in degrees clockwise from three o'clock."""
        self.line(role, width, *_arc_points(cx, cy, rx, ry, start, end))

    def ring(self, role: int, width: float, cx: float, cy: float, r: float) -> None:
        """Draw a thick circle outline."""
        self.arc(role, width, cx, cy, r, r, 0, 360)

    def glyph(self, role: int, text: str, cx: float, cy: float, size: float) -> None:
        """Draw a character of DejaVu Sans, centred on (cx, cy). Its longer side measures `size` units."""
        left, top, right, bottom = _font(400).getbbox(text)
        font = _font(max(1, round(400 * size * _UNIT / max(right - left, bottom - top))))
        left, top, right, bottom = font.getbbox(text)
        ((x, y),) = self._pixels([(cx, cy)])
        mask = Image.new("1", self._image.size)
        position = (x - (left + right) / 2, y - (top + bottom) / 2)
        ImageDraw.Draw(mask).text(position, text, fill=1, font=font)
        self._image.paste(role, (0, 0), mask)
