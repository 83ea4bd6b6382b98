"""Fruit, vegetables and things to eat."""

from __future__ import annotations

from collections.abc import Callable

from .canvas import CLEAR, INK, LIGHT, SHADE, TINT, Canvas


def apple(c: Canvas) -> None:
    c.blob(
        TINT,
        (50, 30),
        (72, 22),
        (92, 42),
        (84, 78),
        (62, 97),
        (50, 93),
        (38, 97),
        (16, 78),
        (8, 42),
        (28, 22),
    )
    c.curve(INK, 5, (50, 32), (50, 18), (56, 6))
    c.blob(SHADE, (56, 20), (70, 6), (86, 8), (74, 20))
    c.arc(LIGHT, 5, 30, 50, 12, 16, 180, 265)


def banana(c: Canvas) -> None:
    c.blob(TINT, (16, 6), (28, 10), (34, 42), (58, 64), (92, 70), (98, 80), (70, 94), (34, 84), (12, 52))
    c.curve(SHADE, 3.5, (24, 22), (26, 48), (46, 72), (80, 80))
    c.polygon(INK, (12, 0), (26, 0), (27, 12), (15, 12))
    c.circle(INK, 95, 77, 5)


def pear(c: Canvas) -> None:
    c.curve(INK, 5, (50, 20), (50, 8), (58, 0))
    c.blob(
        TINT,
        (50, 14),
        (64, 22),
        (68, 44),
        (84, 66),
        (74, 92),
        (50, 97),
        (26, 92),
        (16, 66),
        (32, 44),
        (36, 22),
    )
    c.blob(SHADE, (53, 12), (70, 0), (84, 6), (70, 14))
    c.arc(LIGHT, 5, 36, 68, 9, 13, 110, 220)


def cherry(c: Canvas) -> None:
    c.curve(INK, 4, (28, 64), (36, 34), (62, 8))
    c.curve(INK, 4, (74, 70), (72, 38), (62, 8))
    c.blob(SHADE, (62, 8), (80, 0), (100, 14), (80, 24))
    for x, y in ((26, 74), (74, 78)):
        c.circle(TINT, x, y, 21)
        c.arc(LIGHT, 4.5, x, y, 12, 12, 190, 260)


def carrot(c: Canvas) -> None:
    for x, y in ((60, 2), (80, 6), (98, 18), (102, 40)):
        c.curve(SHADE, 8, (70, 30), ((70 + x) / 2 + 2, (30 + y) / 2), (x, y))
    c.blob(TINT, (2, 98), (22, 56), (50, 26), (72, 28), (74, 50), (44, 78))
    for a, b in (((46, 34), (56, 44)), ((60, 64), (50, 54)), ((27, 56), (36, 64)), ((38, 80), (30, 72))):
        c.line(SHADE, 4, a, b)


def lemon(c: Canvas) -> None:
    c.blob(
        TINT,
        (0, 50),
        (10, 46),
        (30, 22),
        (70, 22),
        (90, 46),
        (100, 50),
        (90, 58),
        (70, 80),
        (30, 80),
        (10, 58),
    )
    c.arc(LIGHT, 5, 40, 46, 22, 16, 185, 260)
    for x, y in ((56, 60), (68, 52), (64, 68), (74, 62), (48, 70)):
        c.circle(SHADE, x, y, 2.2)


def watermelon(c: Canvas) -> None:
    c.pie(SHADE, 50, 26, 50, 50, 0, 180)
    c.pie(LIGHT, 50, 26, 42, 42, 0, 180)
    c.pie(TINT, 50, 26, 37, 37, 0, 180)
    for x, y in ((28, 34), (43, 36), (58, 36), (73, 34), (36, 48), (50, 52), (64, 48)):
        c.ellipse(INK, x, y, 2.4, 4)


def pizza(c: Canvas) -> None:
    c.polygon(LIGHT, (8, 20), (92, 20), (50, 98))
    c.polygon(TINT, (13, 22), (87, 22), (50, 92))
    c.rounded(SHADE, 2, 6, 98, 26, 10)
    for x, y, r in ((34, 40, 8), (62, 36, 8), (51, 62, 7.5)):
        c.circle(SHADE, x, y, r)
    for x, y in ((48, 36), (42, 54), (62, 52), (50, 78)):
        c.circle(LIGHT, x, y, 2.6)


def cake(c: Canvas) -> None:
    for x in (30, 50, 70):
        c.rounded(SHADE, x - 3, 22, x + 3, 48, 1)
        c.blob(INK, (x, 6), (x + 4, 15), (x, 20), (x - 4, 15))
    c.rounded(TINT, 8, 44, 92, 90, 6)
    c.rounded(LIGHT, 8, 42, 92, 56, 6)
    for x in (14, 31, 48, 65, 82):
        c.rounded(LIGHT, x - 5, 48, x + 7, 66 if x in (31, 65) else 61, 5)
    c.rounded(SHADE, 8, 74, 92, 80)
    c.rounded(INK, 0, 89, 100, 96, 3)


def candy(c: Canvas) -> None:
    for s in (-1, 1):
        c.polygon(SHADE, (50 + s * 18, 50), (50 + s * 46, 28), (50 + s * 40, 50), (50 + s * 46, 72))
    c.circle(TINT, 50, 50, 25)
    c.curve(LIGHT, 5, (42, 31), (52, 44), (44, 69))
    c.curve(LIGHT, 5, (59, 31), (66, 48), (60, 69))


def lollipop(c: Canvas) -> None:
    c.line(INK, 5, (50, 60), (50, 99))
    c.circle(TINT, 50, 34, 32)
    c.curve(
        LIGHT,
        5,
        (50, 34),
        (56, 36),
        (52, 43),
        (42, 40),
        (41, 29),
        (52, 22),
        (64, 29),
        (64, 44),
        (50, 54),
        (33, 48),
    )


def ice_cream(c: Canvas) -> None:
    c.polygon(SHADE, (25, 46), (75, 46), (50, 99))
    for a, b in (((30, 56), (58, 82)), ((38, 48), (64, 70)), ((70, 56), (42, 82)), ((62, 48), (36, 70))):
        c.line(INK, 1.6, a, b)
    c.circle(TINT, 50, 28, 26)
    for x in (28, 42, 57, 72):
        c.circle(TINT, x, 46, 8)
    c.arc(LIGHT, 4.5, 50, 28, 16, 16, 190, 260)
    c.circle(INK, 50, 2, 5)


def mushroom(c: Canvas) -> None:
    c.blob(LIGHT, (36, 50), (64, 50), (62, 74), (70, 94), (50, 98), (30, 94), (38, 74))
    c.polygon(SHADE, (8, 56), (92, 56), (66, 62), (34, 62))
    c.pie(TINT, 50, 56, 47, 52, 180, 360)
    for x, y, r in ((50, 26, 9), (25, 42, 7), (74, 42, 7.5)):
        c.circle(LIGHT, x, y, r)


def pumpkin(c: Canvas) -> None:
    c.curve(INK, 8, (50, 26), (50, 14), (58, 6))
    for x, r, role in ((22, 20, SHADE), (78, 20, SHADE), (36, 20, TINT), (64, 20, TINT)):
        c.ellipse(role, x, 58, r, 34)
    c.ellipse(SHADE, 50, 58, 17, 37)
    c.ellipse(TINT, 50, 58, 14, 37)
    for s in (-1, 1):
        c.polygon(INK, (50 + s * 12, 54), (50 + s * 32, 54), (50 + s * 22, 40))
    c.polygon(
        INK,
        (20, 64),
        (36, 70),
        (50, 66),
        (64, 70),
        (80, 64),
        (66, 82),
        (58, 78),
        (50, 84),
        (42, 78),
        (34, 82),
    )


def doughnut(c: Canvas) -> None:
    c.circle(SHADE, 50, 50, 48)
    c.blob(TINT, (50, 8), (78, 18), (90, 44), (84, 66), (72, 84), (50, 88), (30, 86), (18, 68), (9, 50), (20, 20))
    c.circle(SHADE, 50, 50, 17)
    c.circle(CLEAR, 50, 50, 13)
    for x, y, d in (
        (30, 28, 3),
        (52, 20, -3),
        (72, 32, 3),
        (78, 54, -3),
        (66, 74, 3),
        (42, 78, -3),
        (24, 60, 3),
        (22, 42, -3),
    ):
        c.line(LIGHT, 4, (x - 3, y - d), (x + 3, y + d))


def fried_egg(c: Canvas) -> None:
    c.blob(SHADE, (30, 8), (62, 4), (76, 24), (98, 44), (88, 72), (64, 78), (44, 98), (14, 88), (4, 58), (18, 36))
    c.blob(
        LIGHT,
        (31, 11),
        (61, 7),
        (74, 26),
        (95, 45),
        (86, 69),
        (62, 75),
        (43, 95),
        (16, 86),
        (7, 58),
        (21, 37),
    )
    c.circle(TINT, 50, 48, 22)
    c.arc(LIGHT, 4, 50, 48, 13, 13, 190, 260)


def hamburger(c: Canvas) -> None:
    c.pie(TINT, 50, 42, 46, 38, 180, 360)
    for x, y in ((34, 22), (50, 14), (66, 22), (44, 30), (58, 30)):
        c.ellipse(LIGHT, x, y, 3.4, 2.2)
    c.rounded(LIGHT, 2, 44, 98, 52, 4)
    c.polygon(LIGHT, (52, 50), (84, 50), (70, 62))
    c.rounded(INK, 4, 54, 96, 68, 6)
    c.polygon(LIGHT, (52, 50), (84, 50), (68, 63))
    c.rounded(TINT, 5, 71, 95, 90, 9)
    c.rounded(TINT, 5, 71, 95, 78)


def cheese(c: Canvas) -> None:
    c.polygon(LIGHT, (0, 52), (72, 14), (100, 52))
    c.polygon(TINT, (2, 50), (70, 15), (98, 50))
    c.rounded(SHADE, 1, 50, 99, 86, 3)
    c.rounded(TINT, 4, 53, 96, 83, 2)
    for x, y, r in ((24, 66, 8), (52, 74, 6), (76, 64, 9), (64, 34, 5)):
        c.circle(SHADE, x, y, r)


def grapes(c: Canvas) -> None:
    c.curve(INK, 5, (50, 26), (50, 12), (42, 2))
    c.blob(SHADE, (52, 18), (66, 2), (88, 8), (80, 20))
    for y, xs in ((34, (20, 40, 60, 80)), (52, (30, 50, 70)), (69, (40, 60)), (86, (50,))):
        for x in xs:
            c.circle(SHADE, x, y, 13)
            c.circle(TINT, x, y, 11)
            c.circle(LIGHT, x - 4, y - 4, 2.4)


def strawberry(c: Canvas) -> None:
    c.blob(TINT, (50, 22), (80, 20), (90, 42), (74, 76), (50, 99), (26, 76), (10, 42), (20, 20))
    for x, y in ((28, 44), (50, 48), (72, 44), (38, 60), (62, 60), (50, 74), (24, 58), (76, 58)):
        c.ellipse(LIGHT, x, y, 2.4, 3.6)
    c.polygon(
        SHADE,
        (50, 8),
        (58, 18),
        (84, 12),
        (70, 26),
        (80, 36),
        (58, 30),
        (50, 42),
        (42, 30),
        (20, 36),
        (30, 26),
        (16, 12),
        (42, 18),
    )
    c.line(SHADE, 5, (50, 18), (52, 2))


def pineapple(c: Canvas) -> None:
    for dx, y in ((-26, 16), (26, 16), (-14, 4), (14, 4), (0, 0)):
        c.polygon(SHADE, (50 + dx, y), (62, 40), (38, 40))
    c.ellipse(TINT, 50, 66, 29, 34)
    for k in range(-2, 3):
        c.line(SHADE, 2.4, (36 + k * 13, 45), (64 + k * 13, 90))
        c.line(SHADE, 2.4, (64 + k * 13, 45), (36 + k * 13, 90))
    for k in range(60):  # trims the lattice to the fruit
        c.arc(CLEAR, 1.2, 50, 66, 30 + k * 0.8, 35 + k * 0.8, -45, 225)


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "apple": apple,
    "banana": banana,
    "pear": pear,
    "cherry": cherry,
    "carrot": carrot,
    "lemon": lemon,
    "watermelon": watermelon,
    "pizza": pizza,
    "cake": cake,
    "candy": candy,
    "lollipop": lollipop,
    "ice cream": ice_cream,
    "mushroom": mushroom,
    "pumpkin": pumpkin,
    "doughnut": doughnut,
    "fried egg": fried_egg,
    "hamburger": hamburger,
    "cheese": cheese,
    "grapes": grapes,
    "strawberry": strawberry,
    "pineapple": pineapple,
}
