"""From how much a vector looks at each position to a box in the image."""

import numpy as np
from scipy import ndimage

from forclip.types import Bools, Floats

THRESHOLD = 0.1  # of the strongest position: chosen by benchmarks/pointing.py, on base classes alone


def region_boxes(places: Floats, grid: tuple[int, int], threshold: float = THRESHOLD) -> Floats:
    """The box round the strongest position and what is connected to it and weighs at least `threshold` as much.

    Between the centres of neighbouring positions weights go in a straight line, so that a box ends where they cross the
    threshold; outside the outermost centres they stay as they are. places: [M, P] not negative, row-major over grid
    (rows, columns). Returns [M, 4] xyxy as fractions of width and height.
    """
    rows, columns = grid
    maps = places.reshape(-1, rows, columns)
    level = threshold * maps.max((1, 2), keepdims=True)
    region = _round_the_peak(maps, maps >= level)
    left, right = _extent(maps, region, level)
    top, bottom = _extent(maps.swapaxes(1, 2), region.swapaxes(1, 2), level)
    return np.stack([left, top, right, bottom], 1).astype(np.float32)


def boxes_in_images(boxes: Floats, frames: Floats) -> Floats:
    """Boxes [M, 4] in what a model was given, as fractions of the pictures that this was made of.

    frames: [M, 4], as Backbone.frame says where it lies in each picture. What lies beyond a picture is cut off.
    """
    corners = frames[:, :2]
    moved: Floats = np.tile(corners, 2) + boxes * np.tile(frames[:, 2:] - corners, 2)
    return moved.clip(0, 1).astype(np.float32)


def _round_the_peak(maps: Floats, strong: Bools) -> Bools:
    """Of the strong positions those connected to each map's strongest: [M, rows, columns]."""
    # Connected within a map, never across maps: one call labels them all.
    within = np.zeros((3, 3, 3), bool)
    within[1] = ndimage.generate_binary_structure(2, 1)
    components, _ = ndimage.label(strong, within)
    strongest = maps.reshape(len(maps), -1).argmax(1)
    peak = np.take_along_axis(components.reshape(len(maps), -1), strongest[:, None], 1)
    region: Bools = components == peak[:, :, None]
    return region


def _extent(maps: Floats, region: Bools, level: Floats) -> tuple[Floats, Floats]:
    """Where each region begins and ends along the last axis, as fractions of its length: [M] each."""
    count = maps.shape[-1]
    ends = (np.arange(count) + 0.5 + _reach(maps, level)) / count
    begins = (np.arange(count) + 0.5 - _reach(maps[..., ::-1], level)[..., ::-1]) / count
    return np.where(region, begins, 1).min((1, 2)), np.where(region, ends, 0).max((1, 2))


def _reach(maps: Floats, level: Floats) -> Floats:
    """How far beyond its centre a strong position's weight stays at the level or above, towards the next one, in
    positions; up to the edge of the image behind the last one."""
    following = maps[..., 1:]
    fall = maps[..., :-1] - following
    crossed = (maps[..., :-1] - level) / np.where(fall > 0, fall, 1)
    # A next one that is strong itself reaches further: this one need not say how far.
    reach = np.where(following >= level, 0, crossed)
    return np.concatenate([reach, np.full_like(maps[..., :1], 0.5)], -1)


def overlaps(box: Floats, boxes: Floats) -> Floats:
    """Intersection over union of one box [4] with each of these [B, 4]: [B]; 0 where neither has an area."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.clip(sides, 0, None).prod(1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - common
    found: Floats = common / np.where(union > 0, union, 1)
    return found
