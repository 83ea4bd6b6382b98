"""Regions of vectors: from the weight of each position to a box in the image."""

import numpy as np
from scipy import ndimage

from forclip.types import Bools, Floats

THRESHOLD = 0.1  # of the strongest position's weight: chosen by benchmarks/pointing.py, on base classes only


def region_boxes(weights: Floats, grid: tuple[int, int], threshold: float = THRESHOLD) -> Floats:
    """Find the box around each map's strongest position and the strong positions connected to it.

    Strong means at least `threshold` times the strongest weight. Weights are interpolated linearly between the centres
    of neighbouring positions, and a box ends where they fall below the threshold; beyond the outermost centres they
    are constant. weights: [M, P], not negative, row-major over grid (rows, columns). Returns [M, 4], xyxy as fractions
    of width and height.
    """
    rows, columns = grid
    maps = weights.reshape(-1, rows, columns)
    level = threshold * maps.max((1, 2), keepdims=True)
    region = _connected_to_peak(maps, maps >= level)
    left, right = _extent(maps, region, level)
    top, bottom = _extent(maps.swapaxes(1, 2), region.swapaxes(1, 2), level)
    return np.stack([left, top, right, bottom], 1).astype(np.float32)


def boxes_in_images(boxes: Floats, frames: Floats) -> Floats:
    """Convert boxes [M, 4] from fractions of a model's input to fractions of the images, and clip them.

    frames: [M, 4], where the input's edges lie in each image, as `Backbone.frame` returns it.
    """
    corners = frames[:, :2]
    converted: Floats = np.tile(corners, 2) + boxes * np.tile(frames[:, 2:] - corners, 2)
    return converted.clip(0, 1).astype(np.float32)


def _connected_to_peak(maps: Floats, strong: Bools) -> Bools:
    """Keep the strong positions that are connected to each map's strongest one. [M, rows, columns]."""
    # The structure connects positions within a map, never across maps: one call labels them all.
    within = np.zeros((3, 3, 3), bool)
    within[1] = ndimage.generate_binary_structure(2, 1)
    components, _ = ndimage.label(strong, within)
    strongest = maps.reshape(len(maps), -1).argmax(1)
    peak = np.take_along_axis(components.reshape(len(maps), -1), strongest[:, None], 1)
    region: Bools = components == peak[:, :, None]
    return region


def _extent(maps: Floats, region: Bools, level: Floats) -> tuple[Floats, Floats]:
    """Return where each region begins and ends along the last axis, as fractions of its length: [M] each."""
    count = maps.shape[-1]
    ends = (np.arange(count) + 0.5 + _reach(maps, level)) / count
    begins = (np.arange(count) + 0.5 - _reach(maps[..., ::-1], level)[..., ::-1]) / count
    return np.where(region, begins, 1).min((1, 2)), np.where(region, ends, 0).max((1, 2))


def _reach(maps: Floats, level: Floats) -> Floats:
    """Return how far after its centre a strong position's weight stays at the level, in positions.

    After the last position, this is the edge of the image.
    """
    following = maps[..., 1:]
    fall = maps[..., :-1] - following
    crossed = (maps[..., :-1] - level) / np.where(fall > 0, fall, 1)
    # If the following position is strong too, that one determines the region's end.
    reach = np.where(following >= level, 0, crossed)
    return np.concatenate([reach, np.full_like(maps[..., :1], 0.5)], -1)


def overlaps(box: Floats, boxes: Floats) -> Floats:
    """Return the intersection over union of a box [4] with each of boxes [B, 4]: [B]; 0 for boxes without area."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.clip(sides, 0, None).prod(1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - common
    iou: Floats = common / np.where(union > 0, union, 1)
    return iou
