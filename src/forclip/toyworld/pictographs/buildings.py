"""Buildings and shelters."""

from __future__ import annotations

from collections.abc import Callable

from .canvas import INK, LIGHT, SHADE, TINT, Canvas


def house(c: Canvas) -> None:
    c.rounded(INK, 70, 10, 82, 40)
    c.rounded(TINT, 12, 44, 88, 96)
    c.polygon(SHADE, (50, 6), (102, 52), (-2, 52))
    c.rounded(INK, 24, 62, 44, 96, 2)
    c.rounded(LIGHT, 56, 62, 78, 80)
    c.line(INK, 2.5, (67, 62), (67, 80))
    c.line(INK, 2.5, (56, 71), (78, 71))


def tent(c: Canvas) -> None:
    c.line(INK, 4, (44, 4), (50, 14), (56, 4))
    c.polygon(TINT, (50, 12), (100, 90), (0, 90))
    c.polygon(SHADE, (50, 12), (66, 90), (34, 90))
    c.polygon(INK, (50, 34), (61, 90), (39, 90))


def windmill(c: Canvas) -> None:
    c.polygon(TINT, (38, 36), (62, 36), (72, 100), (28, 100))
    c.pie(SHADE, 50, 37, 14, 14, 180, 360)
    c.rounded(INK, 43, 80, 57, 100, 5)
    for dx, dy in ((1, 1), (-1, 1), (-1, -1), (1, -1)):
        c.line(INK, 3, (50, 36), (50 + dx * 36, 36 + dy * 36))
        px, py = -dy, dx
        near, far = (50 + dx * 11, 36 + dy * 11), (50 + dx * 36, 36 + dy * 36)
        wide = ((far[0] + px * 8, far[1] + py * 8), (near[0] + px * 8, near[1] + py * 8))
        c.polygon(SHADE, near, far, *wide)
    c.circle(LIGHT, 50, 36, 4.5)


def lighthouse(c: Canvas) -> None:
    for s in (-1, 1):
        c.polygon(LIGHT, (50 + s * 10, 20), (50 + s * 38, 10), (50 + s * 38, 32))
    c.polygon(TINT, (38, 32), (62, 32), (70, 96), (30, 96))
    for y, w in ((46, 13.5), (70, 16.5)):
        c.polygon(LIGHT, (50 - w, y), (50 + w, y), (51.5 + w, y + 10), (48.5 - w, y + 10))
    c.rounded(LIGHT, 41, 14, 59, 30)
    c.rounded(SHADE, 46, 14, 54, 30)
    c.pie(INK, 50, 15, 13, 13, 180, 360)
    c.rounded(INK, 34, 28, 66, 35, 2)
    c.rounded(INK, 20, 93, 80, 100, 3)


def castle(c: Canvas) -> None:
    for x in (2, 70):
        c.rounded(TINT, x, 40, x + 28, 96)
        c.polygon(SHADE, (x - 4, 40), (x + 32, 40), (x + 14, 6))
        c.rounded(INK, x + 9, 52, x + 19, 68, 5)
    c.rounded(TINT, 26, 58, 74, 96)
    for x in (32, 45, 58):
        c.rounded(TINT, x, 48, x + 9, 62)
    c.rounded(INK, 38, 68, 62, 96, 12)
    c.rounded(INK, 38, 80, 62, 96)


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "house": house,
    "tent": tent,
    "windmill": windmill,
    "lighthouse": lighthouse,
    "castle": castle,
}
