"""Colour pictures of 16 bits per channel, of which Pillow keeps the higher byte."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from forclip.data.images.depth import to_eight_bits

# How the lower byte of each value is read, by how the higher one is.
_OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if np.little_endian else "16L"}
_CHANNELS = ("RGB", "RGBA", "RGBX", "LA")


def lower_bytes_layout(image: ImageFile.ImageFile) -> str | None:
    """Pillow's layout that decodes the lower bytes of colours, or of grey and alpha, of 16 bits; else None.

    The image is opened and not yet loaded.
    """
    layouts = {str(tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args) for tile in image.tile}
    channels, _, order = layouts.pop().partition(";") if len(layouts) == 1 else ("", "", "")
    if channels not in _CHANNELS or order not in _OTHER_BYTE:
        return None
    # Grey and alpha of 16 bits are four bytes, as four channels of 8 bits are.
    return "RGBA" if channels == "LA" else f"{channels};{_OTHER_BYTE[order]}"


def set_layout(image: ImageFile.ImageFile, layout: str) -> None:
    """Decode an opened image in another layout."""
    image.tile = [
        tile._replace(args=(layout, *tile.args[1:]) if isinstance(tile.args, tuple) else layout) for tile in image.tile
    ]


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
