"""Things to wear."""

from __future__ import annotations

from collections.abc import Callable

from .canvas import CLEAR, INK, LIGHT, SHADE, TINT, Canvas


def top_hat(c: Canvas) -> None:
    c.polygon(TINT, (18, 8), (82, 8), (76, 78), (24, 78))
    c.ellipse(SHADE, 50, 9, 32, 6)
    c.polygon(INK, (22.5, 58), (77.5, 58), (76, 74), (24, 74))
    c.blob(TINT, (0, 70), (26, 76), (74, 76), (100, 70), (88, 88), (50, 94), (12, 88))


def shoe(c: Canvas) -> None:
    c.blob(TINT, (4, 26), (18, 30), (36, 24), (52, 46), (74, 56), (96, 62), (99, 78), (50, 82), (3, 80), (1, 50))
    c.rounded(LIGHT, 0, 76, 100, 86, 5)
    c.rounded(INK, 0, 82, 100, 88, 3)
    for x, y in ((40, 36), (47, 44), (55, 51)):
        c.line(LIGHT, 3.6, (x, y), (x - 9, y + 7))
    c.curve(SHADE, 4, (6, 56), (20, 62), (40, 70))


def sock(c: Canvas) -> None:
    c.rounded(TINT, 42, 0, 80, 62, 4)
    c.line(TINT, 36, (62, 58), (32, 80))
    c.rounded(SHADE, 40, 0, 82, 16, 4)
    c.circle(SHADE, 65, 63, 15)
    c.pie(SHADE, 31, 80, 18, 18, 60, 240)
    for y in (25, 36):
        c.rounded(LIGHT, 42, y, 80, y + 5)


def shirt(c: Canvas) -> None:
    c.polygon(TINT, (30, 4), (70, 4), (100, 26), (86, 48), (76, 42), (76, 96), (24, 96), (24, 42), (14, 48), (0, 26))
    c.pie(SHADE, 50, 4, 20, 17, 0, 180)
    c.pie(CLEAR, 50, 3, 14, 12, 0, 180)
    c.rounded(LIGHT, 24, 54, 76, 64)
    c.rounded(LIGHT, 24, 72, 76, 82)


def mitten(c: Canvas) -> None:
    c.ellipse(TINT, 22, 52, 11, 24, -38)
    c.rounded(TINT, 28, 2, 80, 74, 25)
    c.rounded(TINT, 30, 50, 78, 78)
    c.rounded(SHADE, 26, 76, 82, 97, 6)
    c.glyph(LIGHT, "\u2744", 55, 40, 30)


def trousers(c: Canvas) -> None:
    c.polygon(TINT, (22, 4), (78, 4), (88, 98), (58, 98), (50, 38), (42, 98), (12, 98))
    c.rounded(SHADE, 21, 2, 79, 14, 2)
    c.rounded(LIGHT, 45, 3, 55, 13, 2)
    c.arc(SHADE, 3, 22, 14, 14, 14, 5, 85)
    c.arc(SHADE, 3, 78, 14, 14, 14, 95, 175)


def dress(c: Canvas) -> None:
    for s in (-1, 1):
        c.line(TINT, 6, (50 + s * 13, 3), (50 + s * 15, 20))
    c.polygon(TINT, (32, 18), (50, 26), (68, 18), (64, 46), (92, 92), (8, 92), (36, 46))
    for x in (18, 34, 50, 66, 82):
        c.circle(TINT, x, 91, 8)
    c.polygon(INK, (35, 42), (65, 42), (66, 50), (34, 50))
    for x, y in ((46, 64), (62, 70), (34, 78), (52, 84), (72, 86)):
        c.circle(LIGHT, x, y, 3.4)


def glasses(c: Canvas) -> None:
    for s in (-1, 1):
        c.circle(TINT, 50 + s * 26, 54, 22)
        c.circle(LIGHT, 50 + s * 26, 54, 15)
        c.line(SHADE, 4, (50 + s * 32, 46), (50 + s * 22, 56))
        c.line(TINT, 6, (50 + s * 46, 46), (50 + s * 50, 34))
    c.arc(TINT, 6, 50, 52, 7, 7, 180, 360)


def crown(c: Canvas) -> None:
    c.polygon(TINT, (6, 86), (2, 30), (28, 54), (50, 16), (72, 54), (98, 30), (94, 86))
    for x, y in ((3, 26), (50, 12), (97, 26)):
        c.circle(SHADE, x, y, 7)
    c.rounded(SHADE, 5, 76, 95, 90, 2)
    for x in (26, 50, 74):
        c.circle(LIGHT, x, 83, 4.5)
    c.polygon(INK, (50, 46), (58, 58), (50, 70), (42, 58))


def ring(c: Canvas) -> None:
    c.ring(TINT, 8, 50, 66, 29)
    c.polygon(LIGHT, (36, 2), (64, 2), (78, 16), (50, 42), (22, 16))
    c.polygon(SHADE, (22, 16), (78, 16), (50, 42))
    c.polygon(LIGHT, (38, 16), (62, 16), (50, 42))
    c.line(SHADE, 2.5, (22, 16), (36, 2), (64, 2), (78, 16), (22, 16))


def necktie(c: Canvas) -> None:
    c.polygon(TINT, (42, 18), (58, 18), (70, 80), (50, 100), (30, 80))
    c.polygon(SHADE, (36, 0), (64, 0), (58, 20), (42, 20))
    c.polygon(LIGHT, (38, 42), (62, 30), (63.5, 38), (36.5, 51))
    c.polygon(LIGHT, (33, 66), (66.5, 50), (68, 58), (31.5, 75))


def backpack(c: Canvas) -> None:
    c.arc(INK, 5, 50, 14, 12, 11, 180, 360)
    for x in (4, 82):
        c.rounded(SHADE, x, 48, x + 14, 88, 6)
    c.rounded(TINT, 14, 10, 86, 98, 22)
    c.rounded(TINT, 14, 60, 86, 98, 9)
    c.rounded(SHADE, 24, 58, 76, 90, 7)
    c.line(LIGHT, 3.5, (30, 68), (70, 68))
    c.line(INK, 4, (26, 40), (74, 40))
    c.rounded(LIGHT, 60, 38, 66, 50, 2)


def tooth(c: Canvas) -> None:
    c.blob(
        SHADE,
        (50, 12),
        (76, 4),
        (93, 26),
        (82, 60),
        (74, 95),
        (62, 92),
        (50, 62),
        (38, 92),
        (26, 95),
        (18, 60),
        (7, 26),
        (24, 4),
    )
    c.blob(
        TINT,
        (50, 16),
        (75, 8),
        (89, 26),
        (78, 60),
        (71, 90),
        (64, 86),
        (50, 56),
        (36, 86),
        (29, 90),
        (22, 60),
        (11, 26),
        (25, 8),
    )
    c.arc(LIGHT, 6, 32, 30, 11, 12, 170, 270)


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "hat": top_hat,
    "shoe": shoe,
    "sock": sock,
    "shirt": shirt,
    "mitten": mitten,
    "trousers": trousers,
    "dress": dress,
    "glasses": glasses,
    "crown": crown,
    "ring": ring,
    "necktie": necktie,
    "backpack": backpack,
    "tooth": tooth,
}
