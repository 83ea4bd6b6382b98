"""Overlapping crops at half the picture's size: what a closer look sees."""

from PIL import Image

ZOOM = 2
_OFFSETS = (0.0, 0.25, 0.5)
NUM_CROPS = len(_OFFSETS) ** 2


def zoomed_crops(image: Image.Image) -> list[Image.Image]:
    """Nine windows of half the width and height, each overlapping its neighbours by half, in rows."""
    w, h = image.size
    corners = [(round(x * w), round(y * h)) for y in _OFFSETS for x in _OFFSETS]
    size = (max(1, w // ZOOM), max(1, h // ZOOM))
    return [image.crop((x, y, x + size[0], y + size[1])) for x, y in corners]
