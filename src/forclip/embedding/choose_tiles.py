"""The choice `tiles: auto` of a model that was not trained: by the size of the pictures."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from forclip.data.images.decode import image_size
from forclip.data.images.tiles import DEFAULT_OVERLAP, Tiles, describe_tiles, tiles_for_size
from forclip.data.images.views import Size
from forclip.location import Location
from forclip.models.backbone import Backbone
from forclip.progress import notify

_SAMPLE = 64


def choose_tiles(backbone: Backbone, paths: Sequence[Location], overlap: float = DEFAULT_OVERLAP) -> Tiles | None:
    """Choose tiles by the size of the pictures (`tiles_by_size`), and say so in a notice."""
    tiles, reason = tiles_by_size(backbone, paths, overlap)
    notify(f"tiles auto: {describe_tiles(tiles)}, because {reason}; --tiles chooses others")
    return tiles


def tiles_by_size(
    backbone: Backbone, paths: Sequence[Location], overlap: float = DEFAULT_OVERLAP
) -> tuple[Tiles | None, str]:
    """Choose tiles by the size of the pictures and the model's input (`tiles_for_size`). Returns also the reason.

    paths: of the pictures, of which a sample is looked at. Without a readable one there are no tiles.
    """
    size = typical_size(paths)
    if size is None:
        return None, "no picture can be read"
    _, height, width = backbone.preprocess(Image.new("RGB", size)).shape
    tiles = tiles_for_size(size, (width, height), overlap)
    return tiles, f"the pictures have about {size[0]} x {size[1]} pixels and the model sees {width} x {height}"


def typical_size(paths: Sequence[Location]) -> Size | None:
    """Return (width, height) of the picture with the median area of a sample, or None if none can be read."""
    positions = np.unique(np.linspace(0, len(paths) - 1, min(_SAMPLE, len(paths))).astype(int))
    sizes = [size for position in positions if (size := image_size(paths[position])) is not None]
    return sorted(sizes, key=lambda size: (size[0] * size[1], size))[len(sizes) // 2] if sizes else None
