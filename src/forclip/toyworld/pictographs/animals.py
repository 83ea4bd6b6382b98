"""Animals."""

from __future__ import annotations

from collections.abc import Callable

from .canvas import CLEAR, INK, LIGHT, SHADE, TINT, Canvas


def cat(c: Canvas) -> None:
    for s in (-1, 1):
        c.polygon(TINT, (50 + s * 42, 4), (50 + s * 44, 58), (50 + s * 8, 26))
        c.polygon(SHADE, (50 + s * 36, 15), (50 + s * 37, 38), (50 + s * 18, 27))
    c.ellipse(TINT, 50, 57, 45, 37)
    for s in (-1, 1):
        c.ellipse(LIGHT, 50 + s * 19, 50, 9, 10)
        c.ellipse(INK, 50 + s * 19, 50, 3.6, 9)
        c.line(INK, 2.5, (50 + s * 24, 68), (50 + s * 52, 63))
        c.line(INK, 2.5, (50 + s * 24, 74), (50 + s * 51, 78))
        c.arc(INK, 3, 50 + s * 7, 73, 7, 7, 0, 180)
    c.polygon(INK, (43, 64), (57, 64), (50, 72))


def dog(c: Canvas) -> None:
    c.curve(TINT, 7, (12, 50), (4, 40), (5, 26))
    c.rounded(TINT, 10, 44, 72, 72, 12)
    for x in (12, 24, 52, 62):
        c.rounded(SHADE if x in (24, 52) else TINT, x, 60, x + 10, 94, 4)
    c.polygon(TINT, (52, 52), (60, 22), (80, 30), (72, 62))
    c.rounded(TINT, 58, 14, 100, 40, 10)
    c.rounded(TINT, 58, 10, 82, 40, 10)
    c.ellipse(SHADE, 62, 28, 7, 17, 12)
    c.circle(INK, 78, 22, 3.2)
    c.circle(INK, 97, 20, 5)
    c.line(LIGHT, 5, (57, 51), (73, 55))


def fish(c: Canvas) -> None:
    c.blob(SHADE, (72, 50), (98, 24), (90, 50), (98, 76))
    c.polygon(SHADE, (34, 30), (48, 12), (66, 32))
    c.ellipse(TINT, 42, 50, 42, 27)
    c.arc(SHADE, 3.5, 18, 50, 16, 24, -55, 55)
    for x, y in ((48, 42), (60, 50), (48, 58)):
        c.arc(SHADE, 3, x, y, 6, 6, -80, 80)
    c.circle(LIGHT, 19, 44, 6.5)
    c.circle(INK, 18, 44, 3.5)


def butterfly(c: Canvas) -> None:
    for s in (-1, 1):
        c.blob(TINT, (50 + s * 3, 44), (50 + s * 22, 12), (50 + s * 48, 10), (50 + s * 44, 42), (50 + s * 22, 54))
        c.blob(
            SHADE,
            (50 + s * 3, 50),
            (50 + s * 24, 52),
            (50 + s * 40, 66),
            (50 + s * 28, 92),
            (50 + s * 10, 78),
        )
        c.circle(LIGHT, 50 + s * 32, 28, 8)
        c.circle(LIGHT, 50 + s * 24, 71, 6)
        c.curve(INK, 2.5, (50, 26), (50 + s * 6, 14), (50 + s * 14, 6))
    c.ellipse(INK, 50, 52, 4.5, 30)


def duck(c: Canvas) -> None:
    c.polygon(SHADE, (82, 28), (102, 33), (82, 41))
    c.blob(TINT, (2, 44), (24, 58), (50, 52), (84, 56), (82, 82), (54, 94), (20, 86))
    c.circle(TINT, 68, 31, 20)
    c.blob(SHADE, (22, 64), (46, 64), (60, 66), (48, 80), (30, 78))
    c.circle(INK, 74, 26, 4)


def penguin(c: Canvas) -> None:
    for s in (-1, 1):
        c.ellipse(SHADE, 50 + s * 30, 56, 8, 24, s * -20)
        c.ellipse(INK, 50 + s * 14, 94, 13, 6)
    c.ellipse(TINT, 50, 62, 30, 34)
    c.circle(TINT, 50, 26, 23)
    c.ellipse(LIGHT, 50, 66, 21, 26)
    for s in (-1, 1):
        c.ellipse(LIGHT, 50 + s * 8, 26, 9, 12)
        c.circle(INK, 50 + s * 8, 24, 3.5)
    c.polygon(INK, (41, 31), (59, 31), (50, 42))


def owl(c: Canvas) -> None:
    c.blob(TINT, (18, 4), (50, 14), (82, 4), (86, 50), (72, 90), (50, 97), (28, 90), (14, 50))
    c.ellipse(LIGHT, 50, 74, 20, 20)
    for x, y in ((42, 66), (58, 66), (50, 74), (42, 82), (58, 82)):
        c.arc(SHADE, 3, x, y, 4, 4, 0, 180)
    for s in (-1, 1):
        c.blob(SHADE, (50 + s * 36, 50), (50 + s * 38, 74), (50 + s * 22, 92), (50 + s * 24, 66))
        c.circle(LIGHT, 50 + s * 17, 34, 17)
        c.circle(INK, 50 + s * 16, 34, 9)
        c.circle(LIGHT, 50 + s * 16 + 3, 31, 3)
    c.polygon(SHADE, (43, 42), (57, 42), (50, 56))


def turtle(c: Canvas) -> None:
    c.ellipse(SHADE, 87, 52, 13, 11)
    c.line(SHADE, 12, (70, 68), (84, 56))
    c.polygon(SHADE, (0, 76), (16, 62), (18, 74))
    for x in (18, 56):
        c.rounded(SHADE, x, 64, x + 17, 88, 6)
    c.pie(TINT, 42, 70, 38, 46, 180, 360)
    c.rounded(TINT, 3, 66, 81, 76, 5)
    c.line(SHADE, 3, (6, 66), (78, 66))
    c.polygon(SHADE, (30, 38), (54, 38), (60, 52), (42, 62), (24, 52))
    c.circle(INK, 91, 49, 3)


def snail(c: Canvas) -> None:
    for x in (78, 94):
        c.line(SHADE, 4, (84, 60), (x, 30))
        c.circle(INK, x, 30, 4)
    c.blob(SHADE, (2, 90), (30, 76), (66, 78), (74, 56), (92, 52), (96, 68), (84, 90), (50, 92))
    c.circle(TINT, 42, 48, 32)
    points = [
        (42.0, 48.0),
        (49, 50),
        (44, 58),
        (33, 55),
        (32, 43),
        (43, 36),
        (56, 42),
        (58, 58),
        (46, 68),
        (28, 64),
    ]
    c.curve(SHADE, 4.5, *points)


def spider(c: Canvas) -> None:
    for s in (-1, 1):
        for dy, ky, fy in ((44, 14, 2), (50, 34, 40), (56, 50, 70), (62, 66, 98)):
            c.line(INK, 4, (50, dy), (50 + s * 32, ky), (50 + s * 48, fy))
    c.ellipse(TINT, 50, 64, 24, 27)
    c.circle(SHADE, 50, 32, 16)
    c.polygon(LIGHT, (41, 54), (59, 54), (50, 65), (59, 76), (41, 76), (50, 65))
    for s in (-1, 1):
        c.circle(LIGHT, 50 + s * 6, 27, 4.5)
        c.circle(INK, 50 + s * 6, 26, 2)


def bee(c: Canvas) -> None:
    c.ellipse(LIGHT, 36, 26, 13, 24, -24)
    c.ellipse(LIGHT, 60, 26, 13, 24, 20)
    for cx, turn in ((36, -24), (60, 20)):
        c.ellipse(SHADE, cx, 26, 13, 24, turn)
        c.ellipse(LIGHT, cx, 26, 10, 21, turn)
    c.polygon(INK, (8, 58), (-4, 62), (8, 68))
    c.ellipse(TINT, 48, 62, 42, 26)
    for x, h in ((24, 21), (43, 25), (62, 24)):
        c.rounded(INK, x - 5, 62 - h, x + 5, 62 + h, 4)
    c.circle(INK, 80, 57, 4.5)
    c.curve(INK, 3, (80, 42), (86, 28), (96, 26))
    c.curve(INK, 3, (86, 46), (94, 38), (102, 40))


def rabbit(c: Canvas) -> None:
    for s in (-1, 1):
        c.ellipse(TINT, 50 + s * 17, 28, 11, 29, s * 10)
        c.ellipse(SHADE, 50 + s * 17, 28, 5, 21, s * 10)
    c.ellipse(TINT, 50, 70, 33, 29)
    for s in (-1, 1):
        c.circle(INK, 50 + s * 14, 63, 4.5)
        c.circle(LIGHT, 50 + s * 6, 80, 8)
    c.rounded(LIGHT, 44, 84, 56, 97, 2)
    c.line(INK, 1.5, (50, 84), (50, 96))
    c.ellipse(INK, 50, 73, 5, 3.5)


def pig(c: Canvas) -> None:
    for s in (-1, 1):
        c.polygon(SHADE, (50 + s * 46, 6), (50 + s * 40, 40), (50 + s * 10, 20))
    c.ellipse(TINT, 50, 54, 45, 41)
    c.ellipse(SHADE, 50, 64, 21, 15)
    for s in (-1, 1):
        c.ellipse(INK, 50 + s * 8, 64, 4, 6)
        c.circle(INK, 50 + s * 22, 42, 5)


def elephant(c: Canvas) -> None:
    c.curve(SHADE, 4, (8, 42), (1, 54), (3, 66))
    c.ellipse(TINT, 38, 46, 34, 27)
    for x in (9, 25, 42, 55):
        c.rounded(SHADE if x in (25, 55) else TINT, x, 50, x + 14, 90, 3)
    c.circle(TINT, 74, 36, 21)
    c.curve(TINT, 11, (86, 40), (90, 58), (88, 78), (97, 82))
    c.blob(SHADE, (56, 16), (74, 24), (72, 46), (60, 58), (48, 42), (46, 24))
    c.circle(INK, 83, 30, 3.2)
    c.curve(LIGHT, 5, (79, 54), (82, 64), (80, 66))


def octopus(c: Canvas) -> None:
    for s in (-1, 1):
        c.curve(SHADE, 10, (50 + s * 18, 56), (50 + s * 40, 62), (50 + s * 44, 80))
        c.curve(TINT, 10, (50 + s * 14, 60), (50 + s * 28, 78), (50 + s * 30, 94))
        c.curve(SHADE, 10, (50 + s * 6, 60), (50 + s * 10, 80), (50 + s * 9, 96))
    c.ellipse(TINT, 50, 34, 31, 32)
    c.rounded(TINT, 26, 40, 74, 66, 12)
    for s in (-1, 1):
        c.circle(LIGHT, 50 + s * 12, 38, 9)
        c.circle(INK, 50 + s * 12, 39, 5)
    c.arc(INK, 3, 50, 52, 7, 5, 10, 170)


def crab(c: Canvas) -> None:
    for s in (-1, 1):
        for y, dx in ((66, 46), (74, 42), (80, 32)):
            c.line(SHADE, 5, (50 + s * 20, y - 6), (50 + s * (dx - 6), y - 6), (50 + s * dx, y + 10))
        c.line(SHADE, 8, (50 + s * 26, 58), (50 + s * 42, 46), (50 + s * 38, 30))
        c.circle(TINT, 50 + s * 38, 22, 15)
        c.polygon(CLEAR, (50 + s * 37, 24), (50 + s * 24, 0), (50 + s * 40, 0))
        c.line(SHADE, 4, (50 + s * 9, 46), (50 + s * 10, 34))
        c.circle(INK, 50 + s * 10, 32, 5)
    c.ellipse(TINT, 50, 64, 32, 23)
    c.arc(INK, 3, 50, 66, 11, 8, 15, 165)


def snake(c: Canvas) -> None:
    c.line(INK, 2.5, (92, 17), (103, 17))
    c.curve(
        TINT,
        13,
        (78, 17),
        (60, 18),
        (56, 32),
        (76, 44),
        (84, 58),
        (66, 66),
        (34, 56),
        (14, 66),
        (24, 86),
        (70, 88),
    )
    c.curve(TINT, 6, (68, 88), (84, 88), (94, 80))
    c.ellipse(TINT, 80, 17, 15, 11)
    points = ((62, 36), (78, 50), (72, 64), (52, 62), (30, 58), (18, 72), (32, 87), (52, 89))
    for x, y in points:
        c.circle(SHADE, x, y, 3.6)
    c.circle(INK, 83, 13, 3)


def whale(c: Canvas) -> None:
    c.curve(SHADE, 4, (34, 26), (33, 14), (22, 10))
    c.curve(SHADE, 4, (34, 26), (35, 14), (46, 10))
    c.blob(
        TINT,
        (2, 62),
        (10, 38),
        (36, 30),
        (62, 42),
        (78, 54),
        (86, 40),
        (92, 46),
        (84, 76),
        (56, 88),
        (16, 86),
    )
    c.blob(TINT, (86, 46), (74, 34), (72, 24), (86, 30), (90, 36), (100, 28), (104, 32), (98, 44))
    c.blob(LIGHT, (3, 66), (30, 70), (56, 70), (62, 80), (46, 88), (16, 86))
    for x in (18, 30, 42):
        c.line(SHADE, 2, (x, 72), (x + 3, 85))
    c.circle(INK, 24, 56, 4)


def frog(c: Canvas) -> None:
    c.ellipse(TINT, 50, 60, 48, 33)
    for s in (-1, 1):
        c.circle(TINT, 50 + s * 25, 28, 18)
        c.circle(LIGHT, 50 + s * 25, 27, 12)
        c.circle(INK, 50 + s * 25, 27, 6.5)
        c.circle(SHADE, 50 + s * 5, 52, 2)
        c.circle(SHADE, 50 + s * 36, 64, 6)
    c.arc(INK, 4, 50, 58, 32, 22, 20, 160)


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "cat": cat,
    "dog": dog,
    "fish": fish,
    "butterfly": butterfly,
    "duck": duck,
    "penguin": penguin,
    "owl": owl,
    "turtle": turtle,
    "snail": snail,
    "spider": spider,
    "bee": bee,
    "rabbit": rabbit,
    "pig": pig,
    "elephant": elephant,
    "octopus": octopus,
    "crab": crab,
    "snake": snake,
    "whale": whale,
    "frog": frog,
}
