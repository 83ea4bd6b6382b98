"""Views of an image: itself, its mirror image, and random crops that are the same in every epoch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

_MAX_VIEWS, _MAX_TOTAL = 4, 40_000
_SMALLEST_AREA = 0.5  # relative to the image
_WIDEST = 4 / 3  # relative to the image's aspect; the narrowest is the inverse


@dataclass(frozen=True)
class View:
    """A deterministic change of an image, which depends only on the image's row and the view.

    name: two views have the same name exactly if they do the same, so that it identifies cached results.
    """

    name: str
    change: Callable[[int, Image.Image], Image.Image]

    def __call__(self, row: int, image: Image.Image) -> Image.Image:
        return self.change(row, image)


PLAIN = View("plain", lambda row, image: image)
FLIP = View("flip", lambda row, image: ImageOps.mirror(image))


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
    to a square, and so a panorama is cropped like any other image.
    """

    def change(row: int, image: Image.Image) -> Image.Image:
        rng = np.random.default_rng([seed, number, row])
        width, height = image.size
        area = rng.uniform(_SMALLEST_AREA, 1)
        # Drawn from the aspects that fit into the image, so that no draw is repeated.
        widest = np.log(min(_WIDEST, 1 / area))
        aspect = np.exp(rng.uniform(-widest, widest))
        w = max(1, round(width * np.sqrt(area * aspect)))
        h = max(1, round(height * np.sqrt(area / aspect)))
        x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        cropped = image.crop((x, y, x + w, y + h))
        return ImageOps.mirror(cropped) if rng.random() < 0.5 else cropped

    return View(f"crop {number} of seed {seed}", change)


_OFFSETS = (0.0, 0.25, 0.5)
NUM_CROPS = len(_OFFSETS) ** 2


def zoomed_crops(image: Image.Image) -> list[Image.Image]:
    """Nine windows of half the width and height, row by row; neighbours overlap by half."""
    w, h = image.size
    corners = [(round(x * w), round(y * h)) for y in _OFFSETS for x in _OFFSETS]
    size = (max(1, w // 2), max(1, h // 2))
    return [image.crop((x, y, x + size[0], y + size[1])) for x, y in corners]
