"""Tools and instruments."""

from __future__ import annotations

from collections.abc import Callable

from .canvas import CLEAR, INK, LIGHT, SHADE, TINT, Canvas


def key(c: Canvas) -> None:
    c.line(TINT, 9, (40, 50), (95, 50))
    for x, y in ((76, 68), (92, 72)):
        c.rounded(TINT, x - 4.5, 50, x + 4.5, y, 1)
    c.circle(TINT, 24, 50, 24)
    c.circle(SHADE, 22, 50, 12)
    c.circle(CLEAR, 20, 50, 8)


def padlock(c: Canvas) -> None:
    c.arc(INK, 9, 50, 32, 22, 25, 180, 360)
    c.line(INK, 9, (28, 32), (28, 50))
    c.line(INK, 9, (72, 32), (72, 50))
    c.rounded(TINT, 14, 44, 86, 98, 8)
    c.circle(LIGHT, 50, 66, 7.5)
    c.polygon(LIGHT, (47, 66), (53, 66), (56, 86), (44, 86))


def hammer(c: Canvas) -> None:
    c.rounded(SHADE, 43, 20, 59, 100, 5)
    c.rounded(TINT, 62, 2, 88, 34, 3)
    c.polygon(TINT, (68, 6), (68, 30), (40, 30), (24, 27), (4, 40), (11, 18), (34, 6))
    c.rounded(INK, 80, 2, 90, 34, 3)


def saw(c: Canvas) -> None:
    teeth = [(x, 72.0 - (x % 8) * 1.75) for x in range(4, 72, 4)]
    c.polygon(TINT, (70, 34), (2, 52), (2, 64), *teeth, (70, 66))
    c.rounded(SHADE, 64, 28, 99, 78, 12)
    c.rounded(CLEAR, 75, 42, 89, 66, 6)
    c.circle(LIGHT, 69, 45, 2)
    c.circle(LIGHT, 69, 60, 2)


def axe(c: Canvas) -> None:
    c.line(SHADE, 9, (64, 8), (34, 96))
    c.blob(TINT, (52, 18), (30, 20), (6, 4), (4, 30), (10, 56), (30, 40), (46, 42))
    c.polygon(TINT, (46, 16), (72, 18), (64, 46), (40, 42))
    c.curve(LIGHT, 4.5, (5, 8), (3, 30), (9, 52))


def magnifying_glass(c: Canvas) -> None:
    c.line(SHADE, 12, (66, 66), (93, 93))
    c.circle(TINT, 40, 40, 39)
    c.circle(LIGHT, 40, 40, 29)
    c.arc(TINT, 4.5, 40, 40, 19, 19, 185, 265)


def ladder(c: Canvas) -> None:
    for y in (16, 36, 56, 76):
        c.rounded(SHADE, 28, y, 72, y + 8)
    for x in (24, 67):
        c.rounded(TINT, x, 0, x + 9, 100, 3)


def pencil(c: Canvas) -> None:
    c.polygon(LIGHT, (2, 98), (10, 70), (30, 90))
    c.polygon(INK, (2, 98), (5, 87), (13, 95))
    c.polygon(TINT, (10, 70), (66, 14), (86, 34), (30, 90))
    c.polygon(SHADE, (20, 80), (76, 24), (86, 34), (30, 90))
    c.polygon(LIGHT, (66, 14), (71, 9), (91, 29), (86, 34))
    c.polygon(INK, (71, 9), (79, 1), (99, 21), (91, 29))


def paintbrush(c: Canvas) -> None:
    c.line(SHADE, 8, (92, 8), (48, 52))
    c.polygon(INK, (52, 36), (64, 48), (48, 66), (34, 52))
    c.blob(TINT, (34, 52), (48, 66), (38, 88), (14, 94), (2, 98), (14, 84), (16, 64))


def camera(c: Canvas) -> None:
    c.polygon(TINT, (30, 30), (38, 14), (62, 14), (70, 30))
    c.rounded(INK, 10, 20, 24, 32, 3)
    c.rounded(TINT, 0, 26, 100, 88, 9)
    c.circle(SHADE, 50, 56, 26)
    c.circle(LIGHT, 50, 56, 20)
    c.circle(INK, 50, 56, 15)
    c.arc(LIGHT, 4, 50, 56, 8, 8, 190, 260)
    c.rounded(LIGHT, 78, 34, 92, 42, 2)


def bell(c: Canvas) -> None:
    c.circle(INK, 50, 90, 9)
    c.circle(TINT, 50, 9, 8)
    c.blob(TINT, (50, 8), (72, 22), (78, 52), (90, 78), (50, 80), (10, 78), (22, 52), (28, 22))
    c.rounded(SHADE, 6, 74, 94, 85, 5)
    c.arc(LIGHT, 5, 50, 46, 18, 26, 185, 250)


def barrel(c: Canvas) -> None:
    c.blob(TINT, (24, 4), (76, 4), (88, 34), (88, 66), (76, 96), (24, 96), (12, 66), (12, 34))
    for x in (36, 50, 64):
        c.line(SHADE, 2.5, (x, 6), (x, 94))
    c.rounded(INK, 15, 18, 85, 27)
    c.rounded(INK, 15, 73, 85, 82)


def magnet(c: Canvas) -> None:
    c.arc(TINT, 22, 50, 42, 34, 34, 180, 360)
    for x in (5, 73):
        c.rounded(TINT, x, 40, x + 22, 76)
        c.rounded(LIGHT, x, 72, x + 22, 92)
        c.rounded(INK, x, 89, x + 22, 93)


def thermometer(c: Canvas) -> None:
    c.line(SHADE, 26, (50, 14), (50, 76))
    c.circle(SHADE, 50, 79, 21)
    c.line(LIGHT, 18, (50, 14), (50, 76))
    c.circle(TINT, 50, 79, 16)
    c.line(TINT, 9, (50, 38), (50, 76))
    for y in (16, 27, 38, 49):
        c.line(INK, 3, (68, y), (78, y))


def shovel(c: Canvas) -> None:
    c.line(SHADE, 8, (80, 20), (44, 56))
    c.line(INK, 8, (70, 4), (96, 30))
    c.blob(TINT, (34, 46), (54, 66), (42, 86), (2, 98), (14, 58))
    c.line(LIGHT, 3.5, (34, 66), (18, 82))


def microscope(c: Canvas) -> None:
    c.rounded(INK, 8, 88, 92, 98, 4)
    c.arc(TINT, 12, 48, 54, 34, 34, -70, 80)
    c.rounded(SHADE, 14, 70, 56, 78, 3)
    c.rounded(TINT, 26, 12, 48, 56, 5, -20)
    c.rounded(INK, 17, 0, 36, 11, 3, -20)
    c.rounded(INK, 40, 53, 53, 66, 2, -20)


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "key": key,
    "padlock": padlock,
    "hammer": hammer,
    "saw": saw,
    "axe": axe,
    "magnifying glass": magnifying_glass,
    "ladder": ladder,
    "pencil": pencil,
    "paintbrush": paintbrush,
    "camera": camera,
    "bell": bell,
    "barrel": barrel,
    "magnet": magnet,
    "thermometer": thermometer,
    "shovel": shovel,
    "microscope": microscope,
}
