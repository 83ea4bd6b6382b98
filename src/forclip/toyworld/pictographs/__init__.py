"""Named pictographs, drawn by code. Each pixel has a role (tint, shade, ink, light) that a scene gives a colour."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

from . import animals, buildings, clothing, food, glyphs, household, nature, play, tools, transport
from .canvas import CLEAR, INK, LIGHT, SHADE, TINT, Canvas

__all__ = ["CLEAR", "INK", "LIGHT", "NAMES", "SHADE", "SIDE", "TINT", "render", "role_map"]

SIDE = 256

_THEMES = (animals, buildings, clothing, food, glyphs, household, nature, play, tools, transport)
_DRAWINGS: dict[str, Callable[[Canvas], None]] = {
    name: draw for theme in _THEMES for name, draw in theme.DRAWINGS.items()
}
_INK_COLOUR = (38, 38, 46)
_LIGHT_COLOUR = (252, 250, 244)
_SHADE_FACTOR = 0.65

NAMES: tuple[str, ...] = tuple(sorted(_DRAWINGS))


def _squared(roles: np.ndarray) -> np.ndarray:
    """Crop a drawing to its bounding box and centre it in a square."""
    rows, columns = np.nonzero(roles.any(axis=1))[0], np.nonzero(roles.any(axis=0))[0]
    crop = roles[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = crop.shape
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side), np.uint8)
    square[top : top + height, left : left + width] = crop
    return square


def _nearest(roles: np.ndarray) -> np.ndarray:
    return np.array(Image.fromarray(roles).resize((SIDE, SIDE), Image.Resampling.NEAREST), dtype=np.uint8)


def _drawing(name: str) -> np.ndarray:
    """The roles of a pictograph at drawing size, in a square. Raises ValueError for an unknown name."""
    if name not in _DRAWINGS:
        raise ValueError(f"unknown pictograph {name!r}")
    canvas = Canvas()
    _DRAWINGS[name](canvas)
    return _squared(canvas.roles())


@cache
def role_map(name: str) -> np.ndarray:
    """The roles of a pictograph, [SIDE, SIDE] uint8, read-only. Its longer side fills the square.

    Raises ValueError for an unknown name.
    """
    # Sampling can miss a thin tip, so crop and centre the small map again.
    roles = _nearest(_squared(_nearest(_drawing(name))))
    roles.setflags(write=False)
    return roles


def render(name: str, size: int, colour: tuple[int, int, int]) -> Image.Image:
    """Draw a pictograph in an RGB colour. Returns an antialiased RGBA image of size x size pixels.

    Raises ValueError for an unknown name.
    """
    shade = tuple(round(channel * _SHADE_FACTOR) for channel in colour)
    palette = np.zeros((5, 4), np.uint8)
    palette[CLEAR] = (*colour, 0)
    for role, rgb in ((TINT, colour), (SHADE, shade), (INK, _INK_COLOUR), (LIGHT, _LIGHT_COLOUR)):
        palette[role] = (*rgb, 255)
    roles = role_map(name)
    # A quarter of the pixels is enough for small objects, and costs a quarter.
    coarse = roles[::2, ::2] if size <= SIDE // 3 else roles
    # Pillow premultiplies RGBA before it resamples, so transparent pixels do not bleed into edges.
    return Image.fromarray(palette[coarse]).resize((size, size), Image.Resampling.BOX)
