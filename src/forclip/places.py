"""From how much a vector looks at each position to a box in the image."""

import numpy as np
from scipy import ndimage

from forclip.types import Floats

_RELATIVE_THRESHOLD = 0.5  # of the strongest position


def place_boxes(places: Floats, grid: tuple[int, int]) -> Floats:
    """The box round the strongest position and all positions connected to it that weigh at least half as much.

    places: [M, P] not negative, row-major over grid (rows, columns). Returns [M, 4] xyxy as fractions of width and
    height.
    """
    rows, columns = grid
    maps = places.reshape(-1, rows, columns)
    strong = maps >= _RELATIVE_THRESHOLD * maps.max((1, 2), keepdims=True)
    # Connected within a map, never across maps: one call labels them all.
    within = np.zeros((3, 3, 3), bool)
    within[1] = ndimage.generate_binary_structure(2, 1)
    components, _ = ndimage.label(strong, within)
    peak = np.take_along_axis(components.reshape(len(maps), -1), places.argmax(1)[:, None], 1)
    region = components == peak[:, :, None]
    top, bottom = _extent(region.any(2))
    left, right = _extent(region.any(1))
    boxes = np.stack([left / columns, top / rows, right / columns, bottom / rows], 1)
    return boxes.astype(np.float32)


def _extent(occupied: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and one past the last true entry of each row. occupied: [M, K] bool, each row with a true entry."""
    return occupied.argmax(1), occupied.shape[1] - occupied[:, ::-1].argmax(1)
