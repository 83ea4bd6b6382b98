"""Things in a house."""

from __future__ import annotations

from collections.abc import Callable

from .canvas import CLEAR, INK, LIGHT, SHADE, TINT, Canvas


def cup(c: Canvas) -> None:
    for x in (30, 46):
        c.curve(SHADE, 4, (x, 28), (x - 4, 20), (x + 4, 12), (x, 4))
    c.arc(TINT, 7, 76, 54, 15, 14, -90, 90)
    c.rounded(TINT, 8, 36, 76, 84, 14)
    c.rounded(TINT, 8, 36, 76, 60)
    c.rounded(SHADE, 8, 36, 76, 44)
    c.rounded(INK, 0, 90, 90, 97, 3)


def table_lamp(c: Canvas) -> None:
    c.rounded(INK, 46, 46, 54, 92)
    c.line(INK, 2.5, (68, 48), (68, 66))
    c.circle(INK, 68, 68, 3)
    c.polygon(TINT, (32, 4), (68, 4), (88, 52), (12, 52))
    c.polygon(LIGHT, (38, 12), (46, 12), (36, 44), (26, 44))
    c.rounded(SHADE, 26, 88, 74, 98, 5)


def wine_bottle(c: Canvas) -> None:
    c.blob(TINT, (44, 6), (56, 6), (57, 28), (68, 42), (68, 92), (50, 97), (32, 92), (32, 42), (43, 28))
    c.rounded(TINT, 32, 50, 68, 98, 5)
    c.rounded(INK, 42, 0, 58, 16, 3)
    c.rounded(LIGHT, 32, 56, 68, 82)
    c.rounded(SHADE, 38, 62, 62, 66)
    c.rounded(SHADE, 38, 71, 56, 75)


def candle(c: Canvas) -> None:
    c.blob(SHADE, (50, 0), (62, 20), (50, 32), (38, 20))
    c.blob(LIGHT, (50, 12), (55, 22), (50, 29), (45, 22))
    c.line(INK, 3, (50, 30), (50, 40))
    c.rounded(TINT, 36, 38, 64, 88, 4)
    c.rounded(LIGHT, 36, 38, 64, 46, 4)
    c.rounded(LIGHT, 40, 40, 47, 60, 3.5)
    c.arc(INK, 5, 78, 82, 11, 9, -180, 90)
    c.rounded(INK, 18, 84, 82, 96, 5)


def clock(c: Canvas) -> None:
    for s in (-1, 1):
        c.line(SHADE, 8, (50 + s * 20, 84), (50 + s * 32, 97))
        c.pie(SHADE, 50 + s * 29, 18, 17, 17, 180 + s * 40, 360 + s * 40)
    c.line(SHADE, 6, (50, 6), (50, 14))
    c.circle(TINT, 50, 54, 42)
    c.circle(LIGHT, 50, 54, 33)
    for x, y in ((50, 26), (78, 54), (50, 82), (22, 54)):
        c.circle(INK, x, y, 2.6)
    c.line(INK, 5, (50, 34), (50, 54), (66, 62))


def television(c: Canvas) -> None:
    c.line(INK, 4, (28, 2), (50, 24), (72, 2))
    for x in (24, 76):
        c.line(INK, 7, (x, 86), (x, 95))
    c.rounded(TINT, 2, 22, 98, 90, 9)
    c.rounded(LIGHT, 10, 30, 72, 82, 8)
    c.polygon(SHADE, (18, 70), (38, 38), (50, 38), (30, 70))
    for y in (40, 56):
        c.circle(INK, 85, y, 5)
    c.rounded(INK, 79, 68, 91, 72)
    c.rounded(INK, 79, 76, 91, 80)


def chair(c: Canvas) -> None:
    c.rounded(TINT, 22, 2, 34, 98, 3)
    c.rounded(SHADE, 40, 60, 49, 88, 3)
    c.rounded(SHADE, 72, 58, 82, 98, 3)
    c.rounded(TINT, 22, 50, 84, 63, 4)
    c.rounded(TINT, 24, 4, 30, 48)
    c.rounded(SHADE, 34, 43, 80, 52, 4)


def bed(c: Canvas) -> None:
    c.rounded(INK, 0, 16, 9, 90, 3)
    c.rounded(INK, 91, 42, 100, 90, 3)
    c.rounded(INK, 5, 66, 95, 78)
    c.rounded(LIGHT, 12, 40, 36, 58, 7)
    c.rounded(SHADE, 9, 56, 91, 68)
    c.rounded(TINT, 34, 42, 91, 66, 8)


def bucket(c: Canvas) -> None:
    c.arc(INK, 4, 50, 36, 40, 34, 180, 360)
    c.polygon(TINT, (8, 34), (92, 34), (78, 92), (22, 92))
    c.ellipse(TINT, 50, 92, 28, 7)
    c.polygon(SHADE, (12, 50), (88, 50), (86, 60), (14, 60))
    c.ellipse(SHADE, 50, 34, 43, 11)
    c.ellipse(INK, 50, 34, 36, 7)


def basket(c: Canvas) -> None:
    c.arc(SHADE, 7, 50, 46, 34, 42, 180, 360)
    c.polygon(TINT, (4, 48), (96, 48), (82, 96), (18, 96))
    for y in (62, 74, 86):
        for x in range(14 + (y % 4) * 4, 86, 16):
            c.rounded(LIGHT if x % 32 < 16 else SHADE, x, y - 3, x + 9, y + 3, 2)
    c.rounded(SHADE, 0, 42, 100, 54, 5)


def spoon(c: Canvas) -> None:
    c.line(SHADE, 8, (46, 54), (8, 92))
    c.ellipse(TINT, 70, 30, 22, 32, 45)
    c.ellipse(LIGHT, 74, 26, 10, 18, 45)


def fork(c: Canvas) -> None:
    c.line(TINT, 9, (50, 56), (50, 95))
    c.rounded(TINT, 30, 26, 70, 60, 18)
    for x in (33.5, 50, 66.5):
        c.line(TINT, 7, (x, 4), (x, 40))
    c.line(SHADE, 4, (50, 70), (50, 92))


def book(c: Canvas) -> None:
    c.rounded(INK, 0, 20, 100, 90, 4)
    for s, edge, page in ((-1, LIGHT, TINT), (1, LIGHT, TINT)):
        for role, drop in ((edge, 5), (page, 0)):
            top = ((50, 22 + drop), (50 + s * 24, 11 + drop), (50 + s * 45, 15 + drop))
            c.blob(role, *top, (50 + s * 45, 75 + drop), (50 + s * 24, 72 + drop), (50, 80 + drop))
        for y in (32, 44, 56):
            c.line(LIGHT, 4, (50 + s * 12, y), (50 + s * 36, y - 3))
    c.line(SHADE, 4, (50, 23), (50, 80))


def umbrella(c: Canvas) -> None:
    c.line(INK, 4, (50, 2), (50, 86))
    c.arc(INK, 5, 60, 86, 10, 10, 0, 180)
    c.pie(TINT, 50, 50, 49, 44, 180, 360)
    c.pie(SHADE, 50, 50, 17, 44, 180, 360)
    for x in (17, 50, 83):
        c.ellipse(CLEAR, x, 52, 16.5, 7)
    c.line(INK, 4, (50, 46), (50, 86))


def envelope(c: Canvas) -> None:
    c.rounded(TINT, 0, 18, 100, 84, 6)
    c.line(SHADE, 4, (4, 80), (40, 50))
    c.line(SHADE, 4, (96, 80), (60, 50))
    c.polygon(SHADE, (2, 20), (98, 20), (50, 62))
    c.polygon(LIGHT, (8, 20), (92, 20), (50, 56))


def teapot(c: Canvas) -> None:
    c.arc(SHADE, 7, 20, 56, 16, 16, 90, 290)
    c.polygon(SHADE, (70, 72), (74, 52), (86, 30), (102, 28), (94, 40), (88, 66))
    c.ellipse(TINT, 50, 60, 34, 30)
    c.rounded(SHADE, 34, 86, 66, 93, 3)
    c.pie(SHADE, 50, 36, 22, 15, 180, 360)
    c.circle(INK, 50, 19, 5.5)
    c.arc(LIGHT, 5, 46, 58, 20, 18, 180, 250)


def light_bulb(c: Canvas) -> None:
    c.circle(TINT, 50, 36, 34)
    c.polygon(TINT, (22, 54), (78, 54), (64, 78), (36, 78))
    c.line(INK, 3, (44, 74), (38, 44), (46, 50), (50, 42), (54, 50), (62, 44), (56, 74))
    c.arc(LIGHT, 5, 50, 36, 23, 23, 190, 250)
    c.rounded(INK, 36, 76, 64, 83, 3)
    c.rounded(INK, 37, 85, 63, 91, 3)
    c.rounded(INK, 42, 92, 58, 99, 3)


def toothbrush(c: Canvas) -> None:
    c.line(TINT, 9, (5, 64), (60, 60), (96, 60))
    c.line(SHADE, 10, (6, 64), (40, 61.5))
    for x in range(66, 98, 8):
        c.rounded(LIGHT if x % 16 else SHADE, x, 36, x + 7, 57, 2)


def wine_glass(c: Canvas) -> None:
    c.line(SHADE, 5, (50, 56), (50, 94))
    c.rounded(SHADE, 26, 92, 74, 99, 3)
    c.blob(LIGHT, (24, 2), (76, 2), (78, 28), (66, 54), (50, 60), (34, 54), (22, 28))
    c.rounded(CLEAR, 10, -10, 90, 2)
    c.blob(TINT, (24, 26), (76, 26), (73, 40), (64, 52), (50, 57), (36, 52), (27, 40))


def hourglass(c: Canvas) -> None:
    c.polygon(
        LIGHT,
        (24, 8),
        (76, 8),
        (72, 30),
        (54, 50),
        (72, 70),
        (76, 92),
        (24, 92),
        (28, 70),
        (46, 50),
        (28, 30),
    )
    c.polygon(TINT, (26, 22), (74, 22), (71, 31), (53, 50), (47, 50), (29, 31))
    c.line(TINT, 3, (50, 48), (50, 86))
    c.polygon(TINT, (50, 64), (76, 90), (24, 90))
    for s in (-1, 1):
        c.line(SHADE, 4, *((50 + s * x, float(y)) for x, y in ((26, 8), (23, 30), (4, 50), (23, 70), (26, 92))))
    for y in (0, 88):
        c.rounded(TINT, 14, y, 86, y + 12, 5)
        c.rounded(SHADE, 14, y + 8, 86, y + 12, 2)


def battery(c: Canvas) -> None:
    c.rounded(INK, 92, 40, 100, 60, 2)
    c.rounded(TINT, 0, 26, 94, 74, 7)
    c.rounded(INK, 0, 26, 34, 74, 7)
    c.line(LIGHT, 5, (10, 50), (24, 50))
    c.line(LIGHT, 5, (60, 50), (78, 50))
    c.line(LIGHT, 5, (69, 41), (69, 59))


DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    "cup": cup,
    "lamp": table_lamp,
    "bottle": wine_bottle,
    "candle": candle,
    "clock": clock,
    "television": television,
    "chair": chair,
    "bed": bed,
    "bucket": bucket,
    "basket": basket,
    "spoon": spoon,
    "fork": fork,
    "book": book,
    "umbrella": umbrella,
    "envelope": envelope,
    "teapot": teapot,
    "light bulb": light_bulb,
    "toothbrush": toothbrush,
    "wine glass": wine_glass,
    "hourglass": hourglass,
    "battery": battery,
}
