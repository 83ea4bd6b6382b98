"""Toys, games, music and parties."""

from __future__ import annotations

from collections.abc import Callable

from .canvas import CLEAR, INK, LIGHT, SHADE, TINT, Canvas


def balloon(c: Canvas) -> None:
    c.curve(INK, 3, (50, 68), (44, 78), (54, 88), (48, 99))
    c.polygon(SHADE, (50, 60), (59, 73), (41, 73))
    c.ellipse(TINT, 50, 34, 29, 34)
    c.arc(LIGHT, 5, 50, 34, 18, 22, 190, 255)


def kite(c: Canvas) -> None:
    c.curve(INK, 3, (40, 72), (30, 84), (18, 80), (4, 98))
    for x, y in ((28, 83), (13, 84)):
        c.polygon(SHADE, (x - 8, y - 6), (x + 8, y + 6), (x + 6, y - 8), (x - 6, y + 8))
    c.polygon(TINT, (96, 2), (84, 58), (38, 76), (38, 20))
    c.polygon(SHADE, (96, 2), (62, 45), (38, 20))
    c.polygon(SHADE, (62, 45), (84, 58), (38, 76))
    c.line(INK, 2.5, (96, 2), (38, 76))
    c.line(INK, 2.5, (38, 20), (84, 58))


def guitar(c: Canvas) -> None:
    c.line(INK, 8, (50, 50), (88, 12))
    c.polygon(SHADE, (80, 10), (92, -2), (102, 8), (90, 20))
    c.circle(TINT, 28, 72, 26)
    c.circle(TINT, 47, 53, 19)
    c.circle(LIGHT, 42, 58, 10)
    c.circle(INK, 42, 58, 8)
    c.line(SHADE, 5, (16, 72), (28, 84))
    c.line(LIGHT, 2, (23, 77), (86, 14))


def drum(c: Canvas) -> None:
    c.rounded(TINT, 8, 46, 92, 82)
    c.ellipse(TINT, 50, 82, 42, 14)
    c.line(LIGHT, 3.5, (10, 52), (24, 88), (38, 60), (50, 94), (62, 60), (76, 88), (90, 52))
    c.ellipse(SHADE, 50, 46, 44, 17)
    c.ellipse(LIGHT, 50, 45, 38, 12)
    for s in (-1, 1):
        c.line(INK, 4, (50 + s * 46, 6), (50 + s * 10, 40))
        c.circle(INK, 50 + s * 10, 40, 5)


def trumpet(c: Canvas) -> None:
    c.polygon(TINT, (62, 40), (84, 34), (98, 16), (98, 74), (84, 56), (62, 50))
    c.line(TINT, 7, (4, 45), (70, 45))
    c.arc(TINT, 6, 34, 57, 12, 12, 90, 270)
    c.line(TINT, 6, (34, 69), (56, 69))
    c.arc(TINT, 6, 56, 57, 12, 12, -90, 90)
    for x in (36, 46, 56):
        c.rounded(SHADE, x - 3.5, 30, x + 3.5, 74, 2)
        c.rounded(INK, x - 4, 24, x + 4, 30, 2)
    c.rounded(SHADE, 0, 38, 6, 52, 2)
    c.ellipse(SHADE, 97, 45, 4, 30)


def ghost(c: Canvas) -> None:
    c.pie(TINT, 50, 44, 38, 42, 180, 360)
    c.rounded(TINT, 12, 43, 88, 86)
    for x in (24.7, 50, 75.3):
        c.circle(TINT, x, 85, 12.6)
    for s in (-1, 1):
        c.ellipse(INK, 50 + s * 14, 38, 6.5, 9)
        c.circle(LIGHT, 50 + s * 14 + 2, 34, 2.5)
    c.ellipse(INK, 50, 60, 6, 8)


def robot(c: Canvas) -> None:
    c.line(INK, 4, (50, 6), (50, 18))
    c.circle(SHADE, 50, 5, 5)
    for s in (-1, 1):
        c.line(SHADE, 9, (50 + s * 30, 60), (50 + s * 42, 66), (50 + s * 42, 82))
        c.rounded(SHADE, 50 + s * 14 - 7, 86, 50 + s * 14 + 7, 100, 3)
        c.rounded(INK, 50 + s * 31 - 4, 24, 50 + s * 31 + 4, 38, 2)
    c.rounded(TINT, 22, 14, 78, 48, 7)
    c.rounded(TINT, 22, 52, 78, 90, 6)
    for s in (-1, 1):
        c.circle(LIGHT, 50 + s * 13, 28, 8)
        c.circle(INK, 50 + s * 13, 28, 4)
    c.rounded(INK, 38, 39, 62, 43)
    c.rounded(LIGHT, 34, 60, 66, 80, 3)
    for x in (42, 50, 58):
        c.circle(SHADE, x, 70, 3)


def die(c: Canvas) -> None:
    c.rounded(TINT, 2, 2, 98, 98, 16)
    for x in (26, 74):
        for y in (26, 74):
            c.circle(LIGHT, x, y, 10)
    c.circle(LIGHT, 50, 50, 10)


def domino(c: Canvas) -> None:
    c.rounded(INK, 24, 0, 76, 100, 8)
    c.rounded(TINT, 27, 3, 73, 97, 6)
    c.rounded(INK, 32, 48.5, 68, 51.5)
    for x, y in ((38, 14), (62, 14), (50, 26), (38, 38), (62, 38), (38, 62), (62, 86)):
        c.circle(INK, x, y, 5)


def football(c: Canvas) -> None:
    c.circle(TINT, 50, 50, 49)
    c.circle(LIGHT, 50, 50, 44)
    c.glyph(TINT, "\u2b1f", 50, 49, 32)
    ends = ((50, 10), (88, 38), (74, 82), (26, 82), (12, 38))
    near = ((50, 34), (65, 45), (59, 62), (41, 62), (35, 45))
    for (x, y), start in zip(ends, near, strict=True):
        c.line(TINT, 3.5, start, (x, y))
        c.ellipse(TINT, x, y, 12, 8, {50: 0, 88: 72, 74: 144, 26: 36, 12: 108}[x])


def trophy(c: Canvas) -> None:
    for s in (-1, 1):
        c.arc(SHADE, 6, 50 + s * 28, 22, 17, 18, 0, 360)
    c.polygon(SHADE, (45, 56), (55, 56), (60, 84), (40, 84))
    c.rounded(TINT, 22, 2, 78, 10, 2)
    c.polygon(TINT, (24, 6), (76, 6), (74, 34), (26, 34))
    c.pie(TINT, 50, 33, 24, 28, 0, 180)
    c.rounded(INK, 26, 82, 74, 99, 3)
    c.glyph(LIGHT, "\u2605", 50, 28, 28)


def gift(c: Canvas) -> None:
    for s in (-1, 1):
        c.ellipse(SHADE, 50 + s * 17, 18, 18, 10, s * -25)
        c.ellipse(CLEAR, 50 + s * 18, 18, 9, 4, s * -25)
    c.rounded(TINT, 10, 46, 90, 98, 3)
    c.rounded(TINT, 3, 27, 97, 45, 3)
    c.rounded(LIGHT, 42, 27, 58, 98)
    c.rounded(SHADE, 10, 45, 90, 49)
    c.circle(SHADE, 50, 26, 7)


def teddy_bear(c: Canvas) -> None:
    for s in (-1, 1):
        c.circle(TINT, 50 + s * 24, 12, 12)
        c.circle(LIGHT, 50 + s * 24, 12, 6)
        c.ellipse(SHADE, 50 + s * 30, 62, 9, 17, s * -40)
        c.circle(SHADE, 50 + s * 24, 88, 13)
        c.circle(LIGHT, 50 + s * 24, 88, 6)
    c.ellipse(TINT, 50, 72, 25, 25)
    c.ellipse(LIGHT, 50, 74, 14, 15)
    c.ellipse(TINT, 50, 29, 30, 26)
    c.ellipse(LIGHT, 50, 38, 13, 10)
    c.ellipse(INK, 50, 34, 5.5, 3.8)
    for s in (-1, 1):
        c.circle(INK, 50 + s * 13, 23, 3.8)


def flag(c: Canvas) -> None:
    c.line(INK, 6, (14, 4), (14, 98))
    c.blob(TINT, (17, 8), (40, 4), (62, 12), (96, 8), (96, 56), (64, 60), (40, 52), (17, 56))
    c.rounded(CLEAR, -12, 0, 10, 100)
    c.line(INK, 6, (14, 4), (14, 98))
    c.curve(LIGHT, 9, (21, 31), (40, 28), (62, 36), (91, 32))


def snowman(c: Canvas) -> None:
    for s in (-1, 1):
        c.line(INK, 3.5, (50 + s * 22, 56), (50 + s * 44, 42), (50 + s * 48, 32))
        c.line(INK, 3.5, (50 + s * 44, 42), (50 + s * 52, 44))
    for role, d in ((SHADE, 0), (LIGHT, 2.5)):
        c.circle(role, 50, 76, 25 - d)
        c.circle(role, 50, 34, 19 - d)
    c.rounded(TINT, 34, -6, 66, 18, 2)
    c.rounded(TINT, 26, 14, 74, 21, 3)
    c.rounded(TINT, 31, 45, 69, 56, 5)
    c.rounded(TINT, 58, 48, 68, 74, 3)
    for s in (-1, 1):
        c.circle(INK, 50 + s * 7, 29, 2.8)
    c.polygon(SHADE, (48, 33), (48, 39), (66, 38))
    for y in (66, 77, 88):
        c.circle(INK, 50, y, 2.8)


def skull(c: Canvas) -> None:
    c.ellipse(TINT, 50, 40, 42, 39)
    c.rounded(TINT, 26, 56, 74, 96, 8)
    for s in (-1, 1):
        c.ellipse(INK, 50 + s * 18, 44, 12, 13)
        c.line(INK, 3.5, (50 + s * 8, 80), (50 + s * 8, 97))
    c.polygon(INK, (50, 56), (57, 68), (43, 68))
    c.arc(LIGHT, 5, 50, 40, 32, 29, 200, 240)


def bowling_pin(c: Canvas) -> None:
    c.blob(
        TINT,
        (50, 0),
        (62, 12),
        (58, 34),
        (70, 62),
        (64, 96),
        (50, 99),
        (36, 96),
        (30, 62),
        (42, 34),
        (38, 12),
    )
    c.rounded(LIGHT, 41.5, 26, 58.5, 31)
    c.rounded(LIGHT, 40.5, 36, 59.5, 41)


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "balloon": balloon,
    "kite": kite,
    "guitar": guitar,
    "drum": drum,
    "trumpet": trumpet,
    "ghost": ghost,
    "robot": robot,
    "die": die,
    "domino": domino,
    "football": football,
    "trophy": trophy,
    "gift": gift,
    "teddy bear": teddy_bear,
    "flag": flag,
    "bowling pin": bowling_pin,
    "snowman": snowman,
    "skull": skull,
}
