"""Views of a picture: itself, its mirror image, and random crops that are the same each time they are asked for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

_MOST_VIEWS, _VIEWS_IN_ALL = 4, 40_000
_SMALLEST_AREA = 0.5  # of the picture's
_WIDEST = 4 / 3  # of the picture's own aspect; the narrowest is its inverse


@dataclass(frozen=True)
class View:
    """A change of a picture that depends on nothing but the picture's row and the view.

    name: equal for two views exactly if they do the same, so that what was made from one can be told by it.
    """

    name: str
    change: Callable[[int, Image.Image], Image.Image]

    def __call__(self, row: int, image: Image.Image) -> Image.Image:
        return self.change(row, image)


PLAIN = View("plain", lambda row, image: image)
FLIP = View("flip", lambda row, image: ImageOps.mirror(image))


def make_views(count: int, seed: int) -> tuple[View, ...]:
    """The picture, its mirror image, then crops. Fewer views are the first of more. Raises ValueError below one."""
    if count < 1:
        raise ValueError(f"views must be at least 1, not {count}")
    return (PLAIN, FLIP, *(crop_view(number, seed) for number in range(2, count)))[:count]


def resolve_num_views(given: int | None, num_images: int) -> int:
    """The number of views that a configuration asks for, by its rule where it gives none."""
    return given or min(_MOST_VIEWS, max(1, _VIEWS_IN_ALL // max(1, num_images)))


def crop_view(number: int, seed: int) -> View:
    """A random resized crop (arXiv 1409.4842), mirrored every other time. number: tells crops of one seed apart.

    Area in 0.5..1 and aspect in 3/4..4/3 are relative to the picture's own: backbones squash pictures to a square, so
    this is what their tokens see, and a panorama is cropped as any other picture is.
    """

    def change(row: int, image: Image.Image) -> Image.Image:
        rng = np.random.default_rng([seed, number, row])
        cropped = image.crop(_crop_box(rng, *image.size))
        return ImageOps.mirror(cropped) if rng.random() < 0.5 else cropped

    return View(f"crop {number} of seed {seed}", change)


def _crop_box(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    """xyxy in pixels. The aspect is drawn from what fits into the picture, so that no draw has to be repeated."""
    area = rng.uniform(_SMALLEST_AREA, 1)
    widest = np.log(min(_WIDEST, 1 / area))
    aspect = np.exp(rng.uniform(-widest, widest))
    w = max(1, round(width * np.sqrt(area * aspect)))
    h = max(1, round(height * np.sqrt(area / aspect)))
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    return x, y, x + w, y + h


ZOOM = 2
_OFFSETS = (0.0, 0.25, 0.5)
NUM_CROPS = len(_OFFSETS) ** 2


def zoomed_crops(image: Image.Image) -> list[Image.Image]:
    """Nine windows of half the width and height, each overlapping its neighbours by half, in rows."""
    w, h = image.size
    corners = [(round(x * w), round(y * h)) for y in _OFFSETS for x in _OFFSETS]
    size = (max(1, w // ZOOM), max(1, h // ZOOM))
    return [image.crop((x, y, x + size[0], y + size[1])) for x, y in corners]
