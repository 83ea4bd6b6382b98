"""Plants and the sky."""

from __future__ import annotations

import math
from collections.abc import Callable

from .canvas import CLEAR, INK, LIGHT, SHADE, TINT, Canvas


def tree(c: Canvas) -> None:
    c.polygon(INK, (43, 60), (57, 60), (61, 99), (39, 99))
    for x, y, r in ((28, 46, 22), (72, 46, 22), (50, 26, 26), (50, 50, 24)):
        c.circle(TINT, x, y, r)
    for x, y in ((36, 34), (62, 26), (70, 50), (44, 56)):
        c.arc(SHADE, 4, x, y, 7, 7, 0, 130)


def fir_tree(c: Canvas) -> None:
    c.rounded(INK, 43, 84, 57, 100)
    for y, w in ((86, 40), (62, 32), (38, 23)):
        c.polygon(TINT, (50, y - 38), (50 + w, y), (50 - w, y))
        c.polygon(SHADE, (50 - w, y), (50 + w, y), (50 + w - 7, y - 7), (50 - w + 7, y - 7))


def cactus(c: Canvas) -> None:
    c.line(TINT, 13, (50, 56), (22, 56), (22, 34))
    c.line(TINT, 13, (50, 46), (78, 46), (78, 22))
    c.line(TINT, 22, (50, 12), (50, 76))
    for x in (45, 55):
        c.line(SHADE, 2.5, (x, 14), (x, 70))
    c.polygon(INK, (28, 72), (72, 72), (66, 99), (34, 99))


def sunflower(c: Canvas) -> None:
    c.line(SHADE, 6, (50, 50), (50, 98))
    c.blob(SHADE, (50, 90), (64, 70), (86, 70), (72, 90))
    c.blob(SHADE, (50, 94), (36, 76), (14, 76), (28, 94))
    for k in range(8):
        a = math.radians(45 * k)
        c.ellipse(TINT, 50 + 23 * math.cos(a), 34 + 23 * math.sin(a), 13, 9, 45 * k)
    c.circle(INK, 50, 34, 13)


def tulip(c: Canvas) -> None:
    c.line(INK, 5, (50, 50), (50, 98))
    c.blob(INK, (50, 96), (60, 70), (80, 56), (76, 80))
    c.blob(INK, (50, 96), (40, 70), (20, 56), (24, 80))
    c.polygon(TINT, (24, 4), (38, 22), (50, 2), (62, 22), (76, 4), (76, 34), (24, 34))
    c.pie(TINT, 50, 33, 26, 25, 0, 180)
    c.blob(SHADE, (50, 14), (60, 34), (50, 57), (40, 34))


def maple_leaf(c: Canvas) -> None:
    half = [
        (0, 0),
        (8, 16),
        (18, 10),
        (16, 36),
        (28, 24),
        (32, 32),
        (48, 30),
        (43, 44),
        (49, 50),
        (26, 68),
        (29, 77),
        (3, 74),
    ]
    c.line(SHADE, 5, (50, 60), (50, 99))
    left = [(50.0 - x, float(y)) for x, y in reversed(half)]
    c.polygon(TINT, *[(50.0 + x, float(y)) for x, y in half], *left)
    c.line(SHADE, 3, (50, 22), (50, 76))
    for s in (-1, 1):
        c.line(SHADE, 3, (50, 72), (50 + s * 30, 44))


def moon(c: Canvas) -> None:
    c.circle(TINT, 50, 50, 49)
    c.circle(CLEAR, 72, 42, 42)
    for x, y, r in ((20, 58, 5), (34, 78, 6), (18, 38, 3)):
        c.circle(SHADE, x, y, r)


def sun(c: Canvas) -> None:
    for k in range(12):
        a, d = math.radians(30 * k), math.radians(9)
        tip = (50 + 50 * math.cos(a), 50 + 50 * math.sin(a))
        feet = [(50 + 33 * math.cos(a + e), 50 + 33 * math.sin(a + e)) for e in (-d, d)]
        c.polygon(SHADE, tip, *feet)
    c.circle(TINT, 50, 50, 29)
    for s in (-1, 1):
        c.circle(INK, 50 + s * 10, 45, 3.5)
    c.arc(INK, 3.5, 50, 51, 13, 11, 15, 165)


def rain_cloud(c: Canvas) -> None:
    for x, y, r in ((24, 46, 20), (50, 32, 27), (76, 46, 21)):
        c.circle(TINT, x, y, r)
    c.rounded(TINT, 14, 44, 86, 66, 10)
    for x in (24, 50, 76):
        c.line(SHADE, 6, (x + 3, 76), (x - 4, 94))


def rainbow(c: Canvas) -> None:
    for r, role in ((48, TINT), (38, LIGHT), (34, SHADE), (25, LIGHT), (21, TINT)):
        c.pie(role, 50, 66, r, r, 180, 360)
    c.pie(CLEAR, 50, 67, 11, 12, 180, 360)
    for s in (-1, 1):
        for x, y, r in ((46, 68, 9), (34, 64, 11), (22, 68, 8)):
            c.circle(LIGHT, 50 + s * x, y, r)


def volcano(c: Canvas) -> None:
    for x, y, r in ((50, 14, 12), (36, 10, 9), (64, 8, 10)):
        c.circle(SHADE, x, y, r)
    c.polygon(TINT, (36, 34), (64, 34), (100, 96), (0, 96))
    c.polygon(
        LIGHT,
        (36, 34),
        (64, 34),
        (72, 48),
        (68, 62),
        (62, 50),
        (56, 74),
        (48, 52),
        (40, 64),
        (36, 48),
        (31, 43),
    )
    c.rounded(INK, 34, 32, 66, 37, 2)


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "tree": tree,
    "fir tree": fir_tree,
    "cactus": cactus,
    "sunflower": sunflower,
    "tulip": tulip,
    "maple leaf": maple_leaf,
    "moon": moon,
    "sun": sun,
    "rain cloud": rain_cloud,
    "rainbow": rainbow,
    "volcano": volcano,
}
