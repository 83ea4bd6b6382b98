"""The pointing game (arXiv 1608.00507): whether a method's place in an image hits the object. NumPy only.

Boxes are xyxy and points xy, as fractions of an image's width and height.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forclip.embedding.regions import overlaps
from forclip.types import Annotations, Bools, Floats, Ints

CORRECT = 0.5  # CorLoc's overlap, as Pascal VOC's


@dataclass(frozen=True)
class Pair:
    """A class and an image that holds it. image, column: of the labels; boxes: [B, 4], all that are known of it."""

    image: int
    column: int
    boxes: Floats


@dataclass(frozen=True)
class Hits:
    """What was hit, as fractions. peak: share of the strongest positions that lie in a box of the class; centre: the
    place's own centre does; correct: the place overlaps one of them by CORRECT or more; overlap: with the best one."""

    peak: float
    centre: float
    correct: float
    overlap: float


def pairs_with_boxes(images: Annotations, sizes: Ints) -> list[Pair]:
    """Every class of every image that has a box of it, by image and class. sizes: [images, 2], width and height."""
    fractions = images.boxes / np.tile(sizes, 2)[images.box_images]
    key = images.box_images * len(images.class_names) + images.box_classes
    found = []
    for one in np.unique(key):
        image, column = divmod(int(one), len(images.class_names))
        found.append(Pair(image, column, fractions[key == one].astype(np.float32)))
    return found


def evaluate_region(heat: Floats, grid: tuple[int, int], place: Floats, boxes: Floats) -> Hits:
    """heat: [P], how much each position of the grid counts, row-major; place: [4]; boxes: [B, 4] of the class."""
    centre: Floats = place.reshape(2, 2).mean(0)
    overlap = float(overlaps(place, boxes).max())
    peak = float(inside(peaks(heat, grid), boxes).mean())
    return Hits(peak, float(inside(centre[None], boxes)[0]), float(overlap >= CORRECT), overlap)


def peaks(heat: Floats, grid: tuple[int, int]) -> Floats:
    """Centres of the strongest positions, [M, 2]: several where they are equally strong."""
    rows, columns = grid
    row, column = np.divmod(np.flatnonzero(heat == heat.max()), columns)
    return np.stack([(column + 0.5) / columns, (row + 0.5) / rows], 1).astype(np.float32)


def inside(points: Floats, boxes: Floats) -> Bools:
    """Which points [M, 2] lie in one of these boxes [B, 4], edges included."""
    x, y = points[:, :1], points[:, 1:]
    within: Bools = (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])
    hit: Bools = np.logical_or.reduce(within, 1)
    return hit


def covered(boxes: Floats) -> float:
    """The share of the image that lies in one of these boxes [B, 4]: how often a point drawn at random hits."""
    edges = np.clip(boxes, 0, 1)
    xs, ys = np.unique(edges[:, ::2]), np.unique(edges[:, 1::2])
    middles = np.stack(np.meshgrid((xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2), -1).reshape(-1, 2)
    areas = np.outer(np.diff(ys), np.diff(xs)).ravel()
    return float(areas[inside(middles.astype(np.float32), edges)].sum())


def class_mean(values: Sequence[float], columns: Sequence[int]) -> float:
    """The mean over classes of the mean over a class's pairs. values, columns: of each pair. Raises ValueError for
    none."""
    if not len(values):
        raise ValueError("there is no pair of an image and a class to take a mean over")
    _, owner = np.unique(columns, return_inverse=True)
    sums = np.bincount(owner, np.asarray(values, np.float64))
    return float((sums / np.bincount(owner)).mean())
