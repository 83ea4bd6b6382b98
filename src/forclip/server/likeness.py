"""What to ask by for more images like one of the store, or like a place in it."""

import numpy as np

from forclip.embedding.regions import overlaps
from forclip.server.gallery import Described, Gallery
from forclip.server.pictures import decoded, picture_bytes
from forclip.server.ranker import Ranker
from forclip.server.schemas import Box
from forclip.types import Floats

_SAME_PLACE = 0.3  # of two places' union that they share


def like_image(ranker: Ranker, gallery: Gallery, image: Described, box: Box | None) -> Floats:
    """As Ranker.ranked takes it: all vectors of the image; of a place the stored vector that looks there, or, where
    none does, all vectors of the crop. Raises Refused, 409 or 415, where that takes a picture that changed or can't be
    read.

    The stored vector comes first because a model that saw whole pictures only finds less by small crops of them.
    """
    vectors, places = gallery.vectors(image.key)
    if box is None:
        return vectors
    shared = overlaps(np.array([box.x0, box.y0, box.x1, box.y1], np.float32), places)
    nearest = int(np.argmax(shared))
    return vectors[nearest] if shared[nearest] >= _SAME_PLACE else _of_crop(ranker, image, box)


def _of_crop(ranker: Ranker, image: Described, box: Box) -> Floats:
    """Of at least a pixel's width and height."""
    picture = decoded(picture_bytes(image.file), 415, "the picture")
    width, height = picture.size
    left, top = int(box.x0 * width), int(box.y0 * height)
    right, bottom = max(left + 1, round(box.x1 * width)), max(top + 1, round(box.y1 * height))
    return ranker.picture_vectors(picture.crop((left, top, right, bottom)))
