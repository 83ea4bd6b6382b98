"""Convert boxes of label files to the frame of the upright images.

Some tools label the pixels as they are stored, others the upright image that a viewer shows. The width and height in
the label file tell which, where the orientation exchanges them. They also tell if an image was resized since.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from forclip.data.images.decode import ImageHeader, read_header
from forclip.types import Annotations, Floats, Ints

_LARGEST = 1e9  # pixels; no image is as wide


def upright_boxes(images: Annotations) -> Annotations:
    """Convert boxes to pixels of the upright images, from the header of each image that has a box."""
    if images.box_sizes is None:
        return images
    headers: list[ImageHeader | None] = [None] * len(images)
    for row in np.unique(images.box_images):
        headers[row] = read_header(images.paths[row])
    return convert_boxes(images, headers)


def convert_boxes(images: Annotations, headers: Sequence[ImageHeader | None]) -> Annotations:
    """As `upright_boxes`, with the headers already read. headers: one per image; boxes of an image without one stay.

    A label file's boxes refer to the upright image where its width and height are the upright image's and not the
    stored one's. Where both are equal (half turns, squares) or none is given, the boxes are like those of most turned
    images of the set where that is clear, and refer to the stored pixels if there are none. Boxes of an image that was
    resized since, with the same ratio of its sides, are resized too.
    """
    if images.box_sizes is None:
        return images
    turned = {row: header for row, header in enumerate(headers) if header is not None and header.orientation != 1}
    is_upright: dict[int, bool] = {}
    for row, header in turned.items():
        size = tuple(images.box_sizes[row].tolist())
        frames = header.stored_size, (header.width, header.height)
        fits = [size == frame for frame in frames]
        if not any(fits):
            fits = [_scale(size, frame) is not None for frame in frames]
        if fits[0] != fits[1]:
            is_upright[row] = fits[1]
    usual = sum(is_upright.values()) * 2 > len(is_upright)
    boxes = images.boxes.copy()
    for position, row in enumerate(images.box_images.tolist()):
        header = headers[row]
        if header is None:
            continue
        labelled_stored = row in turned and not is_upright.get(row, usual)
        size = header.stored_size if labelled_stored else (header.width, header.height)
        scale = _scale(tuple(images.box_sizes[row].tolist()), size)
        if scale is not None:
            boxes[position] *= np.array([*scale, *scale], np.float32)
        if labelled_stored:
            boxes[position] = turn_boxes(boxes[position][None], header.orientation, header.stored_size)[0]
    return replace(images, boxes=boxes, box_sizes=None)


def _scale(given: tuple[int, int], size: tuple[int, int]) -> tuple[float, float] | None:
    """Return how many pixels of an image of this size are one pixel of its given size, in width and height.

    None if the size is not given, or if the sides have another ratio: then the image was not just resized.
    """
    if not all(given):
        return None
    across, down = size[0] / given[0], size[1] / given[1]
    rounded_by = abs(across - down) * max(given) / max(across, down, 1)
    return (across, down) if rounded_by <= 1 else None


def turn_boxes(boxes: Floats, orientation: int, size: tuple[int, int]) -> Floats:
    """Convert boxes [B, 4] xyxy from pixels of a stored image of this width and height to those of the upright one.

    orientation: EXIF's value, 1 to 8.
    """
    width, height = size
    x, y = boxes[:, 0::2], boxes[:, 1::2]
    if orientation in (2, 3, 7, 8):  # mirrored along the stored width
        x = width - x[:, ::-1]
    if orientation in (3, 4, 6, 7):
        y = height - y[:, ::-1]
    across, down = (y, x) if orientation >= 5 else (x, y)
    return np.stack([across, down], 2).reshape(-1, 4).astype(np.float32)


def sizes_of(given: Iterable[tuple[Any, Any]]) -> Ints:
    """`Annotations.box_sizes` from widths and heights, numbers or texts; what is no positive number becomes 0, 0."""
    sizes = [(_to_number(width), _to_number(height)) for width, height in given]
    return np.array([pair if all(pair) else (0, 0) for pair in sizes], np.int64).reshape(-1, 2)


def _to_number(value: Any) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return round(number) if 0 < number < _LARGEST else 0
