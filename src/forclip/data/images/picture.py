"""A decoded image that may have fewer pixels than its file, and how far a JPEG may be reduced while it is decoded."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageOps

from forclip.data.images.views import Size, Window

Box = tuple[float, float, float, float]  # xyxy in pixels
# The reduction of an image: how many pixels of the file, along a side, may become one. 1 decodes it in full.
ChooseReduction = Callable[[Size], int]

REDUCTIONS = (8, 4, 2)  # of JPEG's own blocks of 8 x 8 pixels
# What is scaled by a filter afterwards has at least so many pixels, along a side, for one of the result. From 5/3 on,
# vectors of reduced and of full photos have a cosine over 0.999 (docs/development/measurements.md).
LEAST_SCALING = 5 / 3


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    pixels: upright RGB. size: (width, height) in pixels of the upright image in the file. reduction: how many pixels of
    the file, along a side, are one of `pixels`. corner: where in `pixels` the upper left corner of the image lies;
    not at 0 where the file's last pixels along a side fill a part of a pixel, and the image was turned.
    """

    pixels: Image.Image
    size: Size
    reduction: int = 1
    corner: tuple[float, float] = (0.0, 0.0)

    @staticmethod
    def whole(image: Image.Image) -> "Picture":
        """An image with all its pixels."""
        return Picture(image, image.size)

    def show(self, window: Window) -> tuple[Image.Image, Box]:
        """Return the pixels of a window, mirrored if it is, and where in them its box lies. A whole image isn't copied.

        window: in pixels of the file's upright image.
        """
        x, y = self.corner
        x0, y0, x1, y1 = (start + edge / self.reduction for start, edge in zip((x, y, x, y), window.box, strict=True))
        left, top = max(0, math.floor(x0)), max(0, math.floor(y0))
        right, bottom = min(self.pixels.width, math.ceil(x1)), min(self.pixels.height, math.ceil(y1))
        outer = left, top, right, bottom
        shown = self.pixels if outer == (0, 0, *self.pixels.size) else self.pixels.crop(outer)
        box = x0 - left, y0 - top, min(x1, right) - left, min(y1, bottom) - top
        if not window.mirrored:
            return shown, box
        return ImageOps.mirror(shown), (shown.width - box[2], box[1], shown.width - box[0], box[3])


def in_full(size: Size) -> int:
    """Decode all pixels."""
    return 1


def reduction_for(shrinkage: float) -> int:
    """Return how far an image may be reduced that is then scaled.

    shrinkage: pixels of the image for one of the result, along the side where they are fewest.
    """
    return next((count for count in REDUCTIONS if shrinkage >= LEAST_SCALING * count), 1)


def corner_of(size: Size, reduction: int, orientation: int) -> tuple[float, float]:
    """Return `Picture.corner`. size: as the image is stored; orientation: EXIF's value, 1 to 8, which was applied."""
    over_x, over_y = (-side % reduction / reduction for side in size)
    match orientation:
        case 2:
            return over_x, 0.0
        case 3:
            return over_x, over_y
        case 4:
            return 0.0, over_y
        case 6:
            return over_y, 0.0
        case 7:
            return over_y, over_x
        case 8:
            return 0.0, over_x
    return 0.0, 0.0
