"""Views of an image: itself, its mirror image, and random crops that are the same in every epoch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

_MAX_VIEWS, _MAX_TOTAL = 4, 40_000
_SMALLEST_AREA = 0.5  # relative to the image
_WIDEST = 4 / 3  # relative to the image's aspect; the narrowest is the inverse

Size = tuple[int, int]  # (width, height) in pixels


@dataclass(frozen=True)
class Window:
    """Where in an image a view looks. box: xyxy in whole pixels of the upright image, not empty."""

    box: tuple[int, int, int, int]
    mirrored: bool = False

    @property
    def size(self) -> Size:
        """(width, height) in pixels."""
        return self.box[2] - self.box[0], self.box[3] - self.box[1]


@dataclass(frozen=True)
class View:
    """A window into an image, which depends only on the image's row and size, and on the view.

    name: two views have the same name exactly if they do the same, so that it identifies cached results. window: the
    window of the image in a row, which has this width and height.
    """

    name: str
    window: Callable[[int, Size], Window]

    def __call__(self, row: int, image: Image.Image) -> Image.Image:
        """Return what the view shows. An image that is shown whole is not copied."""
        window = self.window(row, image.size)
        shown = image if window.box == (0, 0, *image.size) else image.crop(window.box)
        return ImageOps.mirror(shown) if window.mirrored else shown


PLAIN = View("plain", lambda row, size: Window((0, 0, *size)))
FLIP = View("flip", lambda row, size: Window((0, 0, *size), mirrored=True))


def make_views(count: int, seed: int) -> tuple[View, ...]:
    """The image, its mirror image, then random crops; the first views don't depend on count.

    Raises ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"views must be at least 1, not {count}")
    return (PLAIN, FLIP, *(crop_view(number, seed) for number in range(2, count)))[:count]


def resolve_num_views(configured: int | None, num_images: int) -> int:
    """The configured number of views, or if None: four for up to 10,000 images and fewer beyond."""
    return configured or min(_MAX_VIEWS, max(1, _MAX_TOTAL // max(1, num_images)))


def crop_view(number: int, seed: int) -> View:
    """A random resized crop (arXiv 1409.4842), mirrored with probability 0.5. number: distinguishes crops of one seed.

    The area is 0.5 to 1 of the image's, the aspect 3/4 to 4/3 of the image's own, not absolute: backbones squash images
    to one size, and so a panorama is cropped like any other image.
    """

    def window(row: int, size: Size) -> Window:
        rng = np.random.default_rng([seed, number, row])
        width, height = size
        area = rng.uniform(_SMALLEST_AREA, 1)
        # Drawn from the aspects that fit into the image, so that no draw is repeated.
        widest = np.log(min(_WIDEST, 1 / area))
        aspect = np.exp(rng.uniform(-widest, widest))
        w = max(1, round(width * np.sqrt(area * aspect)))
        h = max(1, round(height * np.sqrt(area / aspect)))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        return Window((x, y, x + w, y + h), mirrored=bool(rng.random() < 0.5))

    return View(f"crop {number} of seed {seed}", window)
