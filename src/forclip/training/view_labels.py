"""Labels of views: a crop or a tile shows only some of an image's objects."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from forclip.data.images.box_frames import upright_boxes
from forclip.data.images.decode import image_size
from forclip.data.images.views import FLIP, PLAIN, View
from forclip.progress import notify
from forclip.types import Annotations, Bools, Floats, Ints

_VISIBLE = 0.5  # of an object's area: from here on, a view shows the object


def label_views(images: Annotations, views: Sequence[View], rows: Ints | None = None) -> tuple[Bools, Bools]:
    """Label each view of each image by the boxes that lie in it.

    A view shows a class if it contains at least half of the area of one of its boxes. It does not show a class whose
    boxes all lie outside. A label is not verified if the view has only a smaller part of a box. A label without a box
    counts as a box around the whole image. Of a box that leaves its image, only the part inside counts; a box that lies
    outside is ignored, with a notice. Labels that are not verified for an image are not for its views.

    rows: [I], of each image where the views were made, on which random crops depend; None if no image was left out
    since. Returns labels and verified, [V, I, C] each. An image that can't be read has its own labels in each view.
    """
    whole = np.stack([images.labels] * len(views)), np.stack([images.verified_mask] * len(views))
    partial = [v for v, view in enumerate(views) if view not in (PLAIN, FLIP)]
    if not partial:
        return whole
    labels, verified = whole
    images = upright_boxes(images)
    found = [image_size(path) for path in images.paths]
    readable = np.array([size is not None for size in found])
    sizes = [size or (1, 1) for size in found]
    rows = np.arange(len(images)) if rows is None else rows
    images = _inside(images, np.array(sizes, np.float32), readable)
    owners, classes, boxes = _boxes_of_labels(images, np.array(sizes, np.float32))
    for v in partial:
        windows = [views[v].window(row, size).box for row, size in zip(rows.tolist(), sizes, strict=True)]
        visible = _visible_share(boxes, np.array(windows, np.float32)[owners])
        shown, cut = visible >= _VISIBLE, (visible > 0) & (visible < _VISIBLE)
        labels[v][readable] = False
        labels[v][owners[shown & readable[owners]], classes[shown & readable[owners]]] = True
        only_cut = np.zeros_like(labels[v])
        only_cut[owners[cut], classes[cut]] = True
        verified[v] &= labels[v] | ~only_cut | ~readable[:, None]
    return labels, verified


def _inside(images: Annotations, sizes: Floats, readable: Bools) -> Annotations:
    """Clip boxes to their images, and remove those that lie outside. sizes: [I, 2], width and height."""
    limits = sizes[images.box_images]
    start, end = images.boxes[:, :2], images.boxes[:, 2:]
    outside = ((start >= limits) | (end <= 0)).any(1) & readable[images.box_images]
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        image, name = images.image_ids[images.box_images[first]], images.class_names[images.box_classes[first]]
        notify(
            f"{outside.sum()} of {len(outside)} boxes lie outside their images (such as {name!r} of {image}) and are "
            "ignored; a label without another box counts for the whole image. `forclip data check` lists them"
        )
    clipped = np.concatenate([start.clip(min=0), np.minimum(end, limits)], 1)
    owners, classes = images.box_images[~outside], images.box_classes[~outside]
    return replace(images, boxes=clipped[~outside], box_images=owners, box_classes=classes)


def _boxes_of_labels(images: Annotations, sizes: Floats) -> tuple[Ints, Ints, Floats]:
    """Return row, class and box of each box, and a box around the whole image for each label without one."""
    boxless = images.labels.copy()
    boxless[images.box_images, images.box_classes] = False
    rows, classes = boxless.nonzero()
    around = np.concatenate([np.zeros_like(sizes), sizes], 1)[rows]
    return (
        np.concatenate([images.box_images, rows]),
        np.concatenate([images.box_classes, classes]),
        np.concatenate([images.boxes, around]),
    )


def _visible_share(boxes: Floats, windows: Floats) -> Floats:
    """Return the share of each box's area that lies in its window. Both [B, 4], xyxy in pixels."""
    start, end = boxes[:, :2], np.maximum(boxes[:, 2:], boxes[:, :2] + 0.1)  # a box without area is a thin one
    low, high = np.maximum(start, windows[:, :2]), np.minimum(end, windows[:, 2:])
    area = (end - start).prod(1)
    share: Floats = ((high - low).clip(min=0).prod(1) / area).astype(np.float32)
    return share
