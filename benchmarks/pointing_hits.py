"""The pointing game (arXiv 1608.00507): whether a method's region in an image hits the object. NumPy only.

Boxes are xyxy and points xy, as fractions of an image's width and height.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forclip.embedding.regions import overlaps
from forclip.types import Annotations, Bools, Floats, Ints

CORRECT = 0.5  # the overlap that counts as correct localisation (CorLoc), as in Pascal VOC


@dataclass(frozen=True)
class Pair:
    """An image and a class that it shows. image, column: of the labels; boxes: [B, 4], all known boxes of the class."""

    image: int
    column: int
    boxes: Floats


@dataclass(frozen=True)
class Hits:
    """How well a region hits, as fractions.

    peak: the share of the strongest positions that lie in a box of the class. centre: whether the region's centre does.
    correct: whether the region overlaps a box by CORRECT or more. overlap: the overlap (IoU) with the best box.
    """

    peak: float
    centre: float
    correct: float
    overlap: float


def pairs_with_boxes(images: Annotations, sizes: Ints) -> list[Pair]:
    """List every class of every image that has a box of it, by image and class. sizes: [images, 2] width and height."""
    fractions = images.boxes / np.tile(sizes, 2)[images.box_images]
    pair_of_box = images.box_images * len(images.class_names) + images.box_classes
    pairs = []
    for pair in np.unique(pair_of_box):
        image, column = divmod(int(pair), len(images.class_names))
        pairs.append(Pair(image, column, fractions[pair_of_box == pair].astype(np.float32)))
    return pairs


def evaluate_region(heat: Floats, grid: tuple[int, int], region: Floats, boxes: Floats) -> Hits:
    """Evaluate one region.

    heat: [P], the strength of each position of the grid (rows, columns), row-major; region: [4], a box; boxes: [B, 4]
    of the class.
    """
    centre: Floats = region.reshape(2, 2).mean(0)
    overlap = float(overlaps(region, boxes).max())
    peak = float(inside(peaks(heat, grid), boxes).mean())
    return Hits(peak, float(inside(centre[None], boxes)[0]), float(overlap >= CORRECT), overlap)


def peaks(heat: Floats, grid: tuple[int, int]) -> Floats:
    """[M, 2], the centres of the strongest positions: several if they are equally strong."""
    rows, columns = grid
    row, column = np.divmod(np.flatnonzero(heat == heat.max()), columns)
    return np.stack([(column + 0.5) / columns, (row + 0.5) / rows], 1).astype(np.float32)


def inside(points: Floats, boxes: Floats) -> Bools:
    """[M], whether each of the points [M, 2] lies in one of the boxes [B, 4], edges included."""
    x, y = points[:, :1], points[:, 1:]
    within: Bools = (boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])
    hit: Bools = np.logical_or.reduce(within, 1)
    return hit


def covered(boxes: Floats) -> float:
    """The share of the image that lies in one of the boxes [B, 4]: how often a random point hits."""
    edges = np.clip(boxes, 0, 1)
    xs, ys = np.unique(edges[:, ::2]), np.unique(edges[:, 1::2])
    centres = np.stack(np.meshgrid((xs[1:] + xs[:-1]) / 2, (ys[1:] + ys[:-1]) / 2), -1).reshape(-1, 2)
    areas = np.outer(np.diff(ys), np.diff(xs)).ravel()
    return float(areas[inside(centres.astype(np.float32), edges)].sum())


def class_mean(values: Sequence[float], columns: Sequence[int]) -> float:
    """The mean over classes of the mean over a class's pairs. values, columns: one per pair.

    Raises ValueError for no pair.
    """
    if not len(values):
        raise ValueError("there is no pair of an image and a class to take a mean over")
    _, owner = np.unique(columns, return_inverse=True)
    sums = np.bincount(owner, np.asarray(values, np.float64))
    return float((sums / np.bincount(owner)).mean())
