"""Named pictographs drawn by code, in roles (tint, shade, ink, light) that a scene colours."""

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
    """The drawing cropped to its bounding box and centred in a square."""
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
    """The roles at drawing size, squared."""
    if name not in _DRAWINGS:
        raise ValueError(f"unknown pictograph {name!r}")
    canvas = Canvas()
    _DRAWINGS[name](canvas)
    return _squared(canvas.roles())


@cache
def role_map(name: str) -> np.ndarray:
    """The roles of a pictograph, uint8 [SIDE, SIDE], read-only; its longer side fills the square."""
    # Sampling can miss a thin tip, so the small map is squared once more.
    roles = _nearest(_squared(_nearest(_drawing(name))))
    roles.setflags(write=False)
    return roles


def render(name: str, size: int, colour: tuple[int, int, int]) -> Image.Image:
    """The pictograph in a colour, as an antialiased RGBA image of size x size."""
    shade = tuple(round(channel * _SHADE_FACTOR) for channel in colour)
    palette = np.zeros((5, 4), np.uint8)
    palette[CLEAR] = (*colour, 0)
    for role, rgb in ((TINT, colour), (SHADE, shade), (INK, _INK_COLOUR), (LIGHT, _LIGHT_COLOUR)):
        palette[role] = (*rgb, 255)
    roles = role_map(name)
    # A scene is full of small objects: a quarter of the pixels is plenty for them, at a quarter of the cost.
    coarse = roles[::2, ::2] if size <= SIDE // 3 else roles
    # Pillow premultiplies RGBA before it resamples, so no transparent pixel bleeds into an edge.
    return Image.fromarray(palette[coarse]).resize((size, size), Image.Resampling.BOX)
