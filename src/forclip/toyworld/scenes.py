"""Scenes of the toy world: pictographs composed into pictures, in two domains.

*Postcards* are what the mini CLIP is pretrained on: one salient object and a few smaller ones, mostly on a calm ground.
*Clutter* is the target domain: four to eight small objects, turned, shadowed and partly hidden, on a busy ground.
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
CALM_GROUNDS = ((250, 246, 236), (236, 244, 248), (244, 238, 246), (238, 246, 238), (250, 240, 232), (242, 242, 242))
BUSY_GROUNDS = (
    ((58, 70, 94), (72, 86, 112)),
    ((44, 84, 84), (56, 102, 98)),
    ((202, 186, 158), (216, 202, 178)),
    ((176, 196, 206), (190, 210, 218)),
    ((94, 74, 98), (112, 90, 116)),
    ((206, 176, 172), (220, 194, 190)),
    ((168, 188, 156), (184, 202, 172)),
    ((92, 88, 84), (110, 106, 100)),
)
_SUPERSAMPLE = 2  # pictographs are drawn at this multiple before they are turned, so that edges stay smooth


@dataclass(frozen=True)
class PlacedObject:
    """One pictograph in a scene. box: xyxy in pixels of the scene; tint: a key of TINTS."""

    name: str
    tint: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it. In a postcard the first object is the salient one."""

    image: Image.Image
    objects: tuple[PlacedObject, ...]


def postcard(rng: np.random.Generator, names: tuple[str, ...], side: int) -> Scene:
    """The first name salient, larger than the others and near the centre, at any scale. side: pixels."""
    ground = _busy_ground if rng.random() < 0.25 else _calm_ground
    canvas = ground(rng, side)
    salient = np.exp(rng.uniform(np.log(0.20), np.log(0.70)))
    sizes = [salient, *rng.uniform(0.13, min(0.30, 0.85 * salient), len(names) - 1)]
    centres = [rng.uniform(0.36, 0.64, 2), *_spread(rng, np.asarray(sizes), fixed=1)]
    objects = _place_all(rng, canvas, names, sizes, centres, turn=16, shadow=0)
    return Scene(canvas, objects)


def clutter(rng: np.random.Generator, names: tuple[str, ...], side: int) -> Scene:
    """All names small, anywhere, some of them covered in part. side: pixels."""
    canvas = _busy_ground(rng, side)
    sizes = rng.uniform(0.18, 0.32, len(names))
    objects = _place_all(rng, canvas, names, list(sizes), _spread(rng, sizes, fixed=0), turn=28, shadow=110)
    return Scene(canvas, objects)


def _spread(rng: np.random.Generator, sizes: np.ndarray, fixed: int) -> list[np.ndarray]:
    """Centres for sizes[fixed:] that keep apart: of several random places, the one with the most room.

    sizes, result: fractions of the side. A fixed first object sits near the centre.
    """
    taken = [(np.array([0.5, 0.5]), sizes[0])] * fixed
    centres = []
    for size in sizes[fixed:]:
        tries = rng.uniform(size / 2, 1 - size / 2, (24, 2))
        room = [min((np.abs(t - c).max() - (size + s) / 2 for c, s in taken), default=0.0) for t in tries]
        # Enough room is enough: always taking the most would push everything into the corners.
        best = next((k for k, r in enumerate(room) if r > -0.02), int(np.argmax(room)))
        taken.append((tries[best], size))
        centres.append(tries[best])
    return centres


def _place_all(
    rng: np.random.Generator,
    canvas: Image.Image,
    names: tuple[str, ...],
    sizes: list[float],
    centres: list[np.ndarray],
    turn: float,
    shadow: int,
) -> tuple[PlacedObject, ...]:
    """Pastes from the last to the first, so that the first is never covered. turn: degrees; shadow: opacity 0..255."""
    ground = np.asarray(canvas.resize((1, 1), Image.Resampling.BOX))[0, 0].astype(int)
    tints = [_visible_tint(rng, ground) for _ in names]
    order = range(len(names) - 1, -1, -1)
    boxes = {}
    for k in order:
        degrees = rng.uniform(-turn, turn)
        boxes[k] = _paste(canvas, names[k], TINTS[tints[k]], sizes[k], centres[k], degrees, shadow)
    return tuple(PlacedObject(name, tints[k], boxes[k]) for k, name in enumerate(names))


def _visible_tint(rng: np.random.Generator, ground: np.ndarray) -> str:
    far = [t for t, colour in TINTS.items() if np.abs(ground - colour).sum() > 130]
    return str(rng.choice(far))


def _paste(
    canvas: Image.Image,
    name: str,
    colour: tuple[int, int, int],
    size: float,
    centre: np.ndarray,
    degrees: float,
    shadow: int,
) -> tuple[float, float, float, float]:
    """Draws one pictograph and returns the box of its visible pixels, xyxy in pixels of the canvas."""
    side = canvas.width
    pixels = max(8, round(size * side))
    drawn = pictographs.render(name, pixels * _SUPERSAMPLE, colour)
    sprite = drawn.rotate(degrees, Image.Resampling.BILINEAR, expand=True, fillcolor=(*colour, 0))
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
    soft = Image.new("L", (alpha.width + 2 * margin, alpha.height + 2 * margin))
    soft.paste(alpha.point(lambda a: a * opacity // 255), (margin, margin))
    soft = soft.filter(ImageFilter.BoxBlur(offset))
    canvas.paste((16, 18, 28), (left - margin + offset, top - margin + 2 * offset), soft)


def _calm_ground(rng: np.random.Generator, side: int) -> Image.Image:
    """A pale vertical gradient, sometimes with a horizon."""
    colour = np.array(CALM_GROUNDS[rng.integers(len(CALM_GROUNDS))], float)
    slope = np.linspace(0, rng.uniform(-26, 10), side)[:, None, None]
    rows = np.repeat(colour + slope, side, axis=1)
    if rng.random() < 0.4:
        rows[int(side * rng.uniform(0.6, 0.85)) :] -= 18
    return Image.fromarray(rows.clip(0, 255).astype(np.uint8))


def _busy_ground(rng: np.random.Generator, side: int) -> Image.Image:
    """A patterned ground with confetti: edges and spots that are no object."""
    dark, light = BUSY_GROUNDS[rng.integers(len(BUSY_GROUNDS))]
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
