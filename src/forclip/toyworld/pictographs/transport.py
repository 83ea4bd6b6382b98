"""Vehicles and the road."""

from __future__ import annotations

from collections.abc import Callable

from .canvas import INK, LIGHT, SHADE, TINT, Canvas


def _wheel(c: Canvas, x: float, y: float, r: float) -> None:
    c.circle(INK, x, y, r)
    c.circle(LIGHT, x, y, r * 0.45)


def car(c: Canvas) -> None:
    c.blob(TINT, (20, 48), (30, 26), (46, 22), (64, 24), (78, 48), (60, 56), (36, 56))
    c.rounded(TINT, 0, 44, 100, 72, 12)
    c.polygon(LIGHT, (28, 46), (36, 31), (46, 29), (46, 46))
    c.polygon(LIGHT, (51, 46), (51, 29), (62, 31), (70, 46))
    c.rounded(SHADE, 0, 60, 100, 66)
    c.rounded(LIGHT, 91, 50, 99, 57, 2)
    for x in (24, 76):
        _wheel(c, x, 71, 13)


def truck(c: Canvas) -> None:
    c.rounded(TINT, 0, 18, 62, 70, 4)
    c.polygon(SHADE, (64, 34), (84, 34), (99, 52), (99, 70), (64, 70))
    c.polygon(LIGHT, (70, 40), (82, 40), (91, 52), (70, 52))
    c.rounded(INK, 0, 68, 100, 74)
    for x in (18, 40, 82):
        _wheel(c, x, 76, 10.5)


def bus(c: Canvas) -> None:
    c.rounded(TINT, 0, 18, 100, 76, 8)
    for x in (7, 27, 47):
        c.rounded(LIGHT, x, 27, x + 16, 46, 2)
    c.rounded(INK, 68, 27, 80, 74, 2)
    c.rounded(LIGHT, 85, 27, 100, 50, 2)
    c.rounded(SHADE, 0, 54, 66, 61)
    for x in (20, 52):
        _wheel(c, x, 76, 11)
    _wheel(c, 88, 76, 11)


def bicycle(c: Canvas) -> None:
    for x in (22, 78):
        c.ring(INK, 5, x, 64, 20)
        c.circle(INK, x, 64, 4)
    c.line(TINT, 6, (22, 64), (36, 38), (66, 38), (46, 64), (22, 64))
    c.line(TINT, 6, (46, 64), (33, 28))
    c.line(TINT, 6, (78, 64), (63, 24))
    c.line(SHADE, 5, (76, 20), (62, 22))
    c.line(SHADE, 6, (25, 27), (41, 27))
    c.circle(SHADE, 46, 64, 6)


def sailboat(c: Canvas) -> None:
    c.line(INK, 4, (48, 2), (48, 74))
    c.polygon(TINT, (54, 6), (54, 66), (94, 66))
    c.polygon(SHADE, (42, 18), (42, 66), (12, 66))
    c.polygon(INK, (2, 73), (98, 73), (80, 95), (18, 95))


def rocket(c: Canvas) -> None:
    c.blob(LIGHT, (40, 78), (60, 78), (50, 100))
    c.blob(SHADE, (40, 78), (60, 78), (58, 92), (50, 102), (42, 92))
    c.blob(LIGHT, (45, 78), (55, 78), (50, 94))
    for s in (-1, 1):
        c.polygon(SHADE, (50 + s * 18, 46), (50 + s * 36, 70), (50 + s * 34, 90), (50 + s * 12, 76))
    c.blob(TINT, (50, 0), (66, 20), (71, 48), (62, 80), (38, 80), (29, 48), (34, 20))
    c.blob(SHADE, (50, 0), (59, 9), (64, 19), (50, 21), (36, 19), (41, 9))
    c.circle(INK, 50, 40, 12)
    c.circle(LIGHT, 50, 40, 8)


def hot_air_balloon(c: Canvas) -> None:
    for x in (36, 64):
        c.line(INK, 2.4, (x, 64), (50 + (x - 50) * 0.5, 86))
    c.circle(TINT, 50, 37, 36)
    c.polygon(TINT, (18, 54), (82, 54), (60, 76), (40, 76))
    c.ellipse(LIGHT, 50, 38, 21, 37)
    c.polygon(LIGHT, (32, 56), (68, 56), (56, 76), (44, 76))
    c.ellipse(SHADE, 50, 38, 8, 37)
    c.rounded(INK, 41, 84, 59, 99, 3)


def parachute(c: Canvas) -> None:
    for x in (3.0, 34, 66, 97):
        c.line(INK, 2.2, (x, 42), (50, 84))
    c.pie(TINT, 50, 44, 49, 42, 180, 360)
    c.pie(LIGHT, 50, 44, 18, 42, 180, 360)
    for x, r in ((16.5, 15), (50.0, 17), (83.5, 15)):
        c.pie(SHADE, x, 44, r, 6, 180, 360)
    c.rounded(SHADE, 39, 78, 61, 98, 3)
    c.line(INK, 2.5, (39, 88), (61, 88))


def steam_train(c: Canvas) -> None:
    for x, y, r in ((76, 6, 6.0), (64, 4, 5.0), (54, 5, 3.6)):
        c.circle(LIGHT, x, y, r)
    c.rounded(TINT, 4, 26, 40, 78, 3)
    c.rounded(SHADE, 0, 20, 44, 29, 3)
    c.rounded(LIGHT, 12, 36, 31, 54, 2)
    c.rounded(TINT, 36, 44, 90, 78, 8)
    c.polygon(INK, (68, 44), (66, 20), (86, 20), (82, 44))
    c.circle(SHADE, 54, 44, 7)
    c.polygon(INK, (86, 72), (100, 90), (80, 90))
    c.rounded(SHADE, 2, 72, 92, 80)
    _wheel(c, 20, 82, 14)
    for x in (51, 73):
        _wheel(c, x, 86, 10)


def traffic_light(c: Canvas) -> None:
    c.rounded(INK, 46, 80, 54, 100)
    for y in (10, 37, 64):
        c.polygon(SHADE, (18, y), (82, y), (66, y + 18), (34, y + 18))
    c.rounded(TINT, 29, 0, 71, 88, 9)
    for y in (17, 44, 71):
        c.circle(INK, 50, y, 11.5)
    for y, role in ((17, LIGHT), (44, SHADE), (71, LIGHT)):
        c.circle(role, 50, y, 8.5)


def helicopter(c: Canvas) -> None:
    c.line(INK, 4, (26, 14), (98, 14))
    c.line(INK, 4, (62, 14), (62, 28))
    c.polygon(SHADE, (44, 40), (8, 42), (8, 48), (46, 60))
    c.line(INK, 4, (0, 32), (14, 56))
    c.ellipse(TINT, 64, 48, 31, 23)
    c.pie(LIGHT, 66, 46, 24, 16, -90, 0)
    c.line(INK, 4, (36, 86), (90, 86), (97, 80))
    for x in (52, 76):
        c.line(INK, 4, (x, 68), (x, 86))


def tractor(c: Canvas) -> None:
    c.rounded(SHADE, 18, 10, 62, 17, 3)
    c.line(SHADE, 5, (24, 14), (24, 50))
    c.line(SHADE, 5, (56, 14), (60, 50))
    c.line(INK, 5, (80, 28), (80, 48))
    c.rounded(TINT, 16, 46, 94, 72, 6)
    c.rounded(LIGHT, 80, 52, 92, 66, 2)
    c.circle(LIGHT, 28, 64, 27)
    c.circle(INK, 28, 64, 26)
    c.circle(TINT, 28, 64, 14)
    c.circle(LIGHT, 28, 64, 5)
    _wheel(c, 82, 76, 14)


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "car": car,
    "truck": truck,
    "bus": bus,
    "bicycle": bicycle,
    "sailboat": sailboat,
    "rocket": rocket,
    "hot air balloon": hot_air_balloon,
    "parachute": parachute,
    "train": steam_train,
    "traffic light": traffic_light,
    "helicopter": helicopter,
    "tractor": tractor,
}
