"""Colour pictures of 16 bits per channel, of which Pillow keeps the higher byte."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from forclip.data.images.depth import to_eight_bits

# How the lower byte of each value is read, by how the higher one is.
_OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if np.little_endian else "16L"}
_CHANNELS = ("RGB", "RGBA", "RGBX", "LA")


def is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is opened and not yet loaded has colours, or grey and alpha, of 16 bits."""
    return _layout(image) is not None


def lower_bytes_layout(image: ImageFile.ImageFile) -> str:
    """The layout to decode the same file with for the lower bytes. The image is not yet loaded."""
    layout = _layout(image)
    assert layout is not None
    channels, order = layout
    # Grey and alpha of 16 bits are four bytes, as four channels of 8 bits are.
    return "RGBA" if channels == "LA" else f"{channels};{_OTHER_BYTE[order]}"


def set_layout(image: ImageFile.ImageFile, layout: str) -> None:
    """Decode an opened image in another layout."""
    image.tile = [tile._replace(args=_with_layout(tile.args, layout)) for tile in image.tile]


def combine_bytes(high: Image.Image, low: Image.Image, layout: str) -> Image.Image:
    """Scale an image of 16 bits to 8, from its two halves. layout: of the lower one. Returns RGB or RGBA."""
    lower = np.asarray(low).astype(np.uint16)
    if layout == "RGBA":
        values: NDArray[Any] = (lower[..., 0::2] * 256 + lower[..., 1::2])[..., [0, 0, 0, 1]]
    else:
        values = np.asarray(high).astype(np.uint16) * 256 + lower
    rgb = to_eight_bits(values[..., :3])
    if values.shape[2] == 4:
        return Image.fromarray(np.dstack([rgb, to_eight_bits(values[..., 3], stretch=False)]))
    transparent = high.info.get("transparency")
    if isinstance(transparent, tuple):
        rgb[(values == np.array(transparent)).all(2)] = 255
    return Image.fromarray(rgb)


def _layout(image: ImageFile.ImageFile) -> tuple[str, str] | None:
    """Channels and byte order, such as ("RGB", "16B")."""
    layouts = set()
    for tile in image.tile:
        layout = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
        channels, _, order = str(layout).partition(";")
        layouts.add((channels, order))
    found = layouts.pop() if len(layouts) == 1 else ("", "")
    return found if found[0] in _CHANNELS and found[1] in _OTHER_BYTE else None


def _with_layout(arguments: Any, layout: str) -> Any:
    return (layout, *arguments[1:]) if isinstance(arguments, tuple) else layout
