"""Regions of vectors, from the weight of each position: a box in the image, or a heatmap."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from forclip.data.images.views import Size, Window
from forclip.models.retrieval_model import RetrievalModel
from forclip.types import Bools, Floats

Box = tuple[float, float, float, float]  # xyxy, fractions of width and height
_SAME_VECTOR = 0.9999  # cosine of a vector with itself, rounded to half precision
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
    # The structure connects positions within a map, never across maps: one call labels them all.
    within = np.zeros((3, 3, 3), bool)
    within[1] = ndimage.generate_binary_structure(2, 1)
    components, _ = ndimage.label(maps >= level, within)
    peak = np.take_along_axis(components.reshape(len(maps), -1), weights.argmax(1)[:, None], 1)
    region = components == peak[:, :, None]
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


def window_fractions(window: Window, size: Size) -> Box:
    """Return the box of a window as fractions of the image's width and height. size: the image's, in pixels."""
    (x0, y0, x1, y1), (width, height) = window.box, size
    return x0 / width, y0 / height, x1 / width, y1 / height


def _extent(maps: Floats, region: Bools, level: Floats) -> tuple[Floats, Floats]:
    """Return where each region begins and ends along the last axis, as fractions of its length: [M] each."""
    count = maps.shape[-1]
    ends = (np.arange(count) + 0.5 + _reach(maps, level)) / count
    begins = (np.arange(count) + 0.5 - _reach(maps[..., ::-1], level)[..., ::-1]) / count
    return np.where(region, begins, 1).min((1, 2)), np.where(region, ends, 0).max((1, 2))


def _reach(maps: Floats, level: Floats) -> Floats:
    """Return how far after its centre a strong position's weight stays at the level, in positions, up to the edge."""
    these, following = maps[..., :-1], maps[..., 1:]
    # If the following position is strong too, that one determines the region's end.
    is_end = (these >= level) & (following < level)
    reach = np.divide(these - level, these - following, out=np.zeros_like(these), where=is_end)
    return np.concatenate([reach, np.full_like(maps[..., :1], 0.5)], -1)


def overlaps(box: Floats, boxes: Floats) -> Floats:
    """Return the intersection over union of a box [4] with each of boxes [B, 4]: [B]; 0 for boxes without area."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.clip(sides, 0, None).prod(1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - common
    iou: Floats = common / np.where(union > 0, union, 1)
    return iou


@dataclass(frozen=True)
class Heatmap:
    """values: [rows, columns], 0..1, the strongest position's is 1. frame: where the map's edges lie in the image, as
    `Backbone.frame` returns it. agreement: cosine between the requested vector and the one that the map belongs to."""

    values: Floats
    frame: Box
    agreement: float


@torch.inference_mode()
def compute_heatmap(model: RetrievalModel, image: Image.Image, vector: Floats) -> Heatmap:
    """Embed the image again and return the heatmap of its vector that is nearest to a stored one, [dim] unit.

    A stored vector is rounded, and may be the mean of several merged vectors, so it need not equal any of them. With
    tiles, the map covers the part of the image, the whole or a tile, that the nearest vector comes from.
    """
    backbone, head = model.backbone, model.head
    best = -np.inf
    for view in model.views:
        tokens = backbone.encode_tokens(backbone.preprocess(view(0, image))[None].to(backbone.device)).float()
        cosines = head(tokens)[0] @ torch.from_numpy(vector).to(tokens)
        if (agreement := float(cosines.max())) > best:
            best, shown = agreement, view
            weights = head.position_weights(tokens)[0, int(cosines.argmax())].reshape(head.grid)
        if best > _SAME_VECTOR:
            break
    window = shown.window(0, image.size)
    values: Floats = weights.cpu().numpy()
    frame = backbone.frame(*window.size)
    if window.size != image.size:
        # What pads a tile must not cover its neighbours.
        values, frame = _within_frame(values, frame), window_fractions(window, image.size)
    # A vector may come from a tile's padding alone.
    scaled: Floats = values / (values.max() or 1)
    return Heatmap(scaled, frame, best)


def _within_frame(values: Floats, frame: Box) -> Floats:
    """Resample a map [rows, columns], whose edges lie at the frame, to one whose edges lie at 0..1."""
    if frame == (0, 0, 1, 1):
        return values
    centres = []
    for count, start, end in zip(values.shape, (frame[1], frame[0]), (frame[3], frame[2]), strict=True):
        centres.append(((np.arange(count) + 0.5) / count - start) / (end - start) * count - 0.5)
    resampled: Floats = ndimage.map_coordinates(values, np.meshgrid(*centres, indexing="ij"), order=1, mode="nearest")
    return resampled
