"""The two sets of a run: the images that are trained on, and the gallery that is searched."""

import math

import numpy as np

from forclip.config import DataConfig, GalleryRule, SourceConfig
from forclip.data.sources import load_source
from forclip.data.verdicts import merge_verdicts, read_verdicts
from forclip.types import Annotations, Ints


def load_sets(data: DataConfig) -> tuple[Annotations, Annotations]:
    """Training images, with the verdicts on them, and gallery images. Raises ValueError as the loader does, and for a
    set that would be empty."""
    train, gallery = _load(data)
    if data.verdicts is not None:
        train = merge_verdicts(train, gallery, read_verdicts(data.verdicts, data.train.image_folder))
    return train, gallery


def _load(data: DataConfig) -> tuple[Annotations, Annotations]:
    train = load_source(data.train, data.cache)
    if isinstance(data.gallery, SourceConfig):
        return train, load_source(data.gallery, data.cache)
    if len(train) < 2:
        raise ValueError(f"{data.train.annotations}: {len(train)} image(s) can't be split into training and gallery")
    searched = np.arange(1, len(train), 2) if data.gallery is None else gallery_rows(train, data.gallery)
    return train.take(np.setdiff1d(np.arange(len(train)), searched)), train.take(searched)


def gallery_source(data: DataConfig) -> SourceConfig:
    """Where the gallery's images come from."""
    return data.gallery if isinstance(data.gallery, SourceConfig) else data.train


def gallery_rows(images: Annotations, rule: GalleryRule) -> Ints:
    """In ascending order; at least one, and at least one is left. Raises ValueError for an unknown id in a list."""
    if rule.image_ids is None:
        assert rule.fraction is not None
        count = min(max(1, math.floor(rule.fraction * len(images))), len(images) - 1)
        return np.sort(np.random.default_rng(rule.seed).permutation(len(images))[:count]).astype(np.int64)
    try:
        lines = rule.image_ids.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{rule.image_ids}: not readable as a list of image ids: {error}") from None
    row = {image_id: k for k, image_id in enumerate(images.image_ids)}
    listed = {line.strip(): None for line in lines if line.strip()}
    for image_id in listed:
        if image_id not in row:
            raise ValueError(f"{rule.image_ids}: no image has the id {image_id!r}")
    if not 0 < len(listed) < len(images):
        raise ValueError(f"{rule.image_ids}: lists {len(listed)} of {len(images)} images; both sets need one at least")
    return np.sort(np.array([row[image_id] for image_id in listed], np.int64))
