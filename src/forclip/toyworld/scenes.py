"""Compose pictographs into scenes of two domains.

The mini CLIP is pretrained on *postcards*: one salient object and a few smaller ones, mostly on a calm background. The
target domain is *clutter*: small objects with shadows, rotated and partly hidden, on a busy background.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from forclip.toyworld import pictographs

TINTS: dict[str, tuple[int, int, int]] = {
    "red": (222, 66, 62),
    "orange": (240, 138, 46),
    "yellow": (243, 196, 60),
    "green": (74, 166, 92),
    "teal": (42, 164, 160),
    "blue": (66, 122, 214),
    "purple": (140, 92, 196),
    "pink": (232, 116, 164),
    "brown": (156, 108, 72),
    "grey": (132, 140, 152),
}
_CALM_BACKGROUNDS = (
    (250, 246, 236),
    (236, 244, 248),
    (244, 238, 246),
    (238, 246, 238),
    (250, 240, 232),
    (242, 242, 242),
)
_BUSY_BACKGROUNDS = (
    ((58, 70, 94), (72, 86, 112)),
    ((44, 84, 84), (56, 102, 98)),
    ((202, 186, 158), (216, 202, 178)),
    ((176, 196, 206), (190, 210, 218)),
    ((94, 74, 98), (112, 90, 116)),
    ((206, 176, 172), (220, 194, 190)),
    ((168, 188, 156), (184, 202, 172)),
    ((92, 88, 84), (110, 106, 100)),
)
_SUPERSAMPLE = 2  # scale at which pictographs are drawn and rotated, so that edges stay smooth


@dataclass(frozen=True)
class PlacedObject:
    """One pictograph in a scene. box: xyxy in pixels of the scene; tint: a key of TINTS."""

    name: str
    tint: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """An image and its objects. In a postcard the first object is the salient one."""

    image: Image.Image
    objects: tuple[PlacedObject, ...]


def postcard(rng: np.random.Generator, names: tuple[str, ...], side: int) -> Scene:
    """Draw a postcard. The first name is the salient object: larger than the others and near the centre.

    side: pixels of the square scene.
    """
    draw_background = _busy_background if rng.random() < 0.25 else _calm_background
    canvas = draw_background(rng, side)
    salient = np.exp(rng.uniform(np.log(0.20), np.log(0.70)))
    sizes = [salient, *rng.uniform(0.13, min(0.30, 0.85 * salient), len(names) - 1)]
    centres = [rng.uniform(0.36, 0.64, 2), *_spread(rng, np.asarray(sizes), fixed=1)]
    objects = _place_all(rng, canvas, names, sizes, centres, max_degrees=16, shadow=0)
    return Scene(canvas, objects)


def clutter(rng: np.random.Generator, names: tuple[str, ...], side: int) -> Scene:
    """Draw a cluttered scene: all names small, anywhere, and some of them partly hidden.

    side: pixels of the square scene.
    """
    canvas = _busy_background(rng, side)
    sizes = rng.uniform(0.18, 0.32, len(names))
    objects = _place_all(rng, canvas, names, list(sizes), _spread(rng, sizes, fixed=0), max_degrees=28, shadow=110)
    return Scene(canvas, objects)


def _spread(rng: np.random.Generator, sizes: np.ndarray, fixed: int) -> list[np.ndarray]:
    """Draw centres for sizes[fixed:] that keep the objects apart.

    Of 24 random candidates, each object takes the first one with enough room, or else the one with the most room.
    sizes and result are fractions of the side. fixed: 1 if the first object is placed near the centre, else 0.
    """
    placed = [(np.array([0.5, 0.5]), sizes[0])] * fixed
    centres = []
    for size in sizes[fixed:]:
        candidates = rng.uniform(size / 2, 1 - size / 2, (24, 2))
        room = [min((np.abs(c - p).max() - (size + s) / 2 for p, s in placed), default=0.0) for c in candidates]
        # Always taking the most room would push every object into the corners.
        best = next((k for k, r in enumerate(room) if r > -0.02), int(np.argmax(room)))
        placed.append((candidates[best], size))
        centres.append(candidates[best])
    return centres


def _place_all(
    rng: np.random.Generator,
    canvas: Image.Image,
    names: tuple[str, ...],
    sizes: list[float],
    centres: list[np.ndarray],
    max_degrees: float,
    shadow: int,
) -> tuple[PlacedObject, ...]:
    """Paste the objects from the last to the first, so that the first is never hidden.

    max_degrees: largest random rotation; shadow: opacity of the shadows, 0..255.
    """
    background = np.asarray(canvas.resize((1, 1), Image.Resampling.BOX))[0, 0].astype(int)
    tints = [_visible_tint(rng, background) for _ in names]
    order = range(len(names) - 1, -1, -1)
    boxes = {}
    for k in order:
        degrees = rng.uniform(-max_degrees, max_degrees)
        boxes[k] = _paste(canvas, names[k], TINTS[tints[k]], sizes[k], centres[k], degrees, shadow)
    return tuple(PlacedObject(name, tints[k], boxes[k]) for k, name in enumerate(names))


def _visible_tint(rng: np.random.Generator, background: np.ndarray) -> str:
    """Draw a tint that differs clearly from the background's mean colour."""
    visible = [t for t, colour in TINTS.items() if np.abs(background - colour).sum() > 130]
    return str(rng.choice(visible))


def _paste(
    canvas: Image.Image,
    name: str,
    colour: tuple[int, int, int],
    size: float,
    centre: np.ndarray,
    degrees: float,
    shadow: int,
) -> tuple[float, float, float, float]:
    """Draw one pictograph. Returns the box of its visible pixels, xyxy in pixels of the canvas."""
    side = canvas.width
    pixels = max(8, round(size * side))
    pictograph = pictographs.render(name, pixels * _SUPERSAMPLE, colour)
    sprite = pictograph.rotate(degrees, Image.Resampling.BILINEAR, expand=True, fillcolor=(*colour, 0))
    sprite = sprite.resize((sprite.width // _SUPERSAMPLE, sprite.height // _SUPERSAMPLE), Image.Resampling.BOX)
    left, top = (round(float(c) * side - s / 2) for c, s in zip(centre, sprite.size, strict=True))
    alpha = sprite.getchannel("A")
    if shadow:
        _cast_shadow(canvas, alpha, left, top, shadow)
    canvas.paste(sprite, (left, top), alpha)
    inside = Image.new("L", canvas.size)
    inside.paste(alpha, (left, top))
    box = inside.point(lambda a: 255 * (a > 96)).getbbox()
    assert box is not None, f"{name} is outside the scene"
    x0, y0, x1, y1 = box
    return float(x0), float(y0), float(x1), float(y1)


def _cast_shadow(canvas: Image.Image, alpha: Image.Image, left: int, top: int, opacity: int) -> None:
    offset = max(1, canvas.width // 96)
    margin = 3 * offset
    shadow = Image.new("L", (alpha.width + 2 * margin, alpha.height + 2 * margin))
    shadow.paste(alpha.point(lambda a: a * opacity // 255), (margin, margin))
    shadow = shadow.filter(ImageFilter.BoxBlur(offset))
    canvas.paste((16, 18, 28), (left - margin + offset, top - margin + 2 * offset), shadow)


def _calm_background(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw a pale vertical gradient, sometimes with a horizon."""
    colour = np.array(_CALM_BACKGROUNDS[rng.integers(len(_CALM_BACKGROUNDS))], float)
    slope = np.linspace(0, rng.uniform(-26, 10), side)[:, None, None]
    rows = np.repeat(colour + slope, side, axis=1)
    if rng.random() < 0.4:
        rows[int(side * rng.uniform(0.6, 0.85)) :] -= 18
    return Image.fromarray(rows.clip(0, 255).astype(np.uint8))


def _busy_background(rng: np.random.Generator, side: int) -> Image.Image:
    """Draw a pattern with confetti: edges and spots that are not objects."""
    dark, light = _BUSY_BACKGROUNDS[rng.integers(len(_BUSY_BACKGROUNDS))]
    canvas = Image.new("RGB", (side, side), dark)
    draw = ImageDraw.Draw(canvas)
    patterns: tuple[Callable[..., None], ...] = (_stripes, _checks, _dots)
    patterns[rng.integers(len(patterns))](rng, draw, side, light)
    tints = list(TINTS.values())
    for _ in range(rng.integers(6, 16)):
        x, y = rng.uniform(0, side, 2)
        r = rng.uniform(0.008, 0.02) * side
        tint = tints[rng.integers(len(tints))]
        mixed = tuple((3 * d + t) // 4 for d, t in zip(dark, tint, strict=True))
        draw.regular_polygon((x, y, r * 1.4), int(rng.integers(3, 7)), int(rng.integers(360)), fill=mixed)
    return canvas


def _stripes(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int, colour: tuple[int, int, int]) -> None:
    width, lean = side * rng.uniform(0.04, 0.12), side * rng.uniform(-0.6, 0.6)
    for x in np.arange(-side, 2 * side, 2 * width):
        draw.polygon([(x, 0), (x + width, 0), (x + width + lean, side), (x + lean, side)], fill=colour)


def _checks(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int, colour: tuple[int, int, int]) -> None:
    cell = side / rng.integers(5, 12)
    count = int(side / cell) + 1
    for row in range(count):
        for column in range(row % 2, count, 2):
            x, y = column * cell, row * cell
            draw.rectangle((x, y, x + cell, y + cell), fill=colour)


def _dots(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int, colour: tuple[int, int, int]) -> None:
    step = side / rng.integers(6, 13)
    radius = step * rng.uniform(0.2, 0.35)
    for row, y in enumerate(np.arange(0, side + step, step)):
        for x in np.arange(0, side + step, step) + (row % 2) * step / 2:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
