"""Tiles of an image: overlapping windows of equal size that cover it, so that small objects become large ones."""

import math
import re
from dataclasses import dataclass

from forclip.data.images.views import PLAIN, Size, View, Window

DEFAULT_OVERLAP = 0.5
_MOST = 8  # tiles in a row or column
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Tiles:
    """A grid of tiles of equal size, of which neighbours share a part.

    overlap: the part of a tile's side that it shares with its neighbour. Each side of a tile is 1 / (n - (n - 1) *
    overlap) of the image's: three rows that overlap by half have half of the height.

    Raises ValueError for rows or columns outside 1..8, a single tile, and an overlap outside 0..0.9.
    """

    rows: int
    columns: int
    overlap: float = DEFAULT_OVERLAP

    def __post_init__(self) -> None:
        if not (1 <= self.rows <= _MOST and 1 <= self.columns <= _MOST and len(self) > 1):
            raise ValueError(f"tiles {self.name!r}: rows and columns must be 1 to {_MOST}, and more than 1x1")
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"tiles overlap by 0 to 0.9 of their side, not {self.overlap}")

    def __len__(self) -> int:
        """The number of tiles, without the whole image."""
        return self.rows * self.columns

    @property
    def name(self) -> str:
        """The grid as the configuration writes it, such as 3x3."""
        return f"{self.rows}x{self.columns}"

    def tile_views(self) -> tuple[View, ...]:
        """The tiles alone, row by row."""
        return tuple(self._tile(row, column) for row in range(self.rows) for column in range(self.columns))

    def views(self) -> tuple[View, ...]:
        """The whole image, then the tiles row by row."""
        return (PLAIN, *self.tile_views())

    def _tile(self, row: int, column: int) -> View:
        def window(_: int, size: Size) -> Window:
            x0, x1 = _span(size[0], column, self.columns, self.overlap)
            y0, y1 = _span(size[1], row, self.rows, self.overlap)
            return Window((x0, y0, x1, y1))

        return View(f"tile {row},{column} of {self.name}, overlap {self.overlap:g}", window)


def _span(length: int, position: int, count: int, overlap: float) -> tuple[int, int]:
    """Return the first pixel of a tile along one side, and the one after its last. The tiles reach both ends."""
    side = max(1, math.ceil(length / (count - (count - 1) * overlap) - _ROUNDING))
    start = round(position * (length - side) / max(1, count - 1))
    return start, start + side


def parse_tiles(name: str, overlap: float = DEFAULT_OVERLAP) -> Tiles | None:
    """Return the tiles that a name such as 3x3 stands for; None for `none`. Raises ValueError for any other name."""
    if name == "none":
        return None
    if (grid := re.fullmatch(r"(\d+)x(\d+)", name)) is None:
        raise ValueError(f"tiles must be none or ROWSxCOLUMNS such as 3x3, not {name!r}")
    return Tiles(int(grid[1]), int(grid[2]), overlap)


def views_of(tiles: Tiles | None) -> tuple[View, ...]:
    """The views that a model with these tiles embeds: the whole image, and its tiles if there are any."""
    return (PLAIN,) if tiles is None else tiles.views()


def describe_tiles(tiles: Tiles | None) -> str:
    """Name tiles for readers, such as `none`, `3x3` and `3x3 overlapping by 0.25`."""
    if tiles is None:
        return "none"
    return tiles.name if tiles.overlap == DEFAULT_OVERLAP else f"{tiles.name} overlapping by {tiles.overlap:g}"


def tiles_for_size(picture: Size, model_input: Size, overlap: float = DEFAULT_OVERLAP) -> Tiles | None:
    """Choose tiles by size alone: the finest of 3x3, 2x2 and none whose tiles fill the model's input.

    A tile with fewer pixels than the input is enlarged, and shows little that the whole picture does not. picture: a
    typical (width, height); model_input: what every view is resized to. Sizes are compared by the roots of their areas.
    """
    detail = math.sqrt(picture[0] * picture[1] / (model_input[0] * model_input[1]))
    for count in (3, 2):
        if detail >= count - (count - 1) * overlap - _ROUNDING:
            return Tiles(count, count, overlap)
    return None
