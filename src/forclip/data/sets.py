"""The two sets of a run: the training images, and the gallery that is searched."""

import math

import numpy as np

from forclip.config import DataConfig, GalleryRule, SourceConfig, read_names
from forclip.data.sources import load_source
from forclip.data.verdicts import merge_verdicts, read_verdicts
from forclip.types import Annotations, Ints


def load_sets(data: DataConfig) -> tuple[Annotations, Annotations]:
    """Load the training images, with the verdicts merged into their labels, and the gallery images.

    Raises ValueError as the loaders do, and if one of the sets would be empty.
    """
    train = load_source(data.train, data.cache)
    if isinstance(data.gallery, SourceConfig):
        gallery = load_source(data.gallery, data.cache)
    else:
        if len(train) < 2:
            message = f"{len(train)} image(s) can't be split into training and gallery"
            raise ValueError(f"{data.train.annotations}: {message}")
        rows = np.arange(1, len(train), 2) if data.gallery is None else gallery_rows(train, data.gallery)
        train, gallery = train.take(np.setdiff1d(np.arange(len(train)), rows)), train.take(rows)
    if data.verdicts is not None:
        train = merge_verdicts(train, gallery, read_verdicts(data.verdicts, data.train.image_folder))
    return train, gallery


def gallery_rows(images: Annotations, rule: GalleryRule) -> Ints:
    """The rows of the gallery's images, ascending; at least one row is chosen and at least one is left.

    Raises ValueError for a file of ids that is unreadable, has an unknown id, or lists none or all of the images.
    """
    if rule.image_ids is None:
        assert rule.fraction is not None
        count = min(max(1, math.floor(rule.fraction * len(images))), len(images) - 1)
        return np.sort(np.random.default_rng(rule.seed).permutation(len(images))[:count]).astype(np.int64)
    row = {image_id: k for k, image_id in enumerate(images.image_ids)}
    listed = dict.fromkeys(read_names(rule.image_ids))
    for image_id in listed:
        if image_id not in row:
            raise ValueError(f"{rule.image_ids}: no image has the id {image_id!r}")
    if not 0 < len(listed) < len(images):
        raise ValueError(f"{rule.image_ids}: lists {len(listed)} of {len(images)} images; each set needs at least one")
    return np.sort(np.array([row[image_id] for image_id in listed], np.int64))
