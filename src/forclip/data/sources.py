"""Load images and labels of any known format, and the two sets of a run.

To add a format: write a loader in forclip.data.formats, add its name to forclip.config.Format, and a case to
`load_source`; add a case to `format_of` if the format can be recognised.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from forclip.config import DataConfig, SourceConfig, read_names
from forclip.data.annotation_cache import cached_annotations
from forclip.data.formats.coco import load_coco, load_lvis
from forclip.data.formats.csv_labels import load_csv
from forclip.data.formats.cvat import load_cvat
from forclip.data.formats.folder import load_image_folder
from forclip.data.formats.label_studio import load_label_studio
from forclip.data.formats.nuimages import load_nuimages
from forclip.data.formats.recognise import label_studio_file_in, refuse_unread_labels
from forclip.data.formats.voc import load_voc
from forclip.data.formats.yolo import load_yolo
from forclip.data.formats.yolo_dataset import ALL_SPLITS
from forclip.data.images.image_sizes import ImageSizes, image_sizes
from forclip.data.left_out import and_left_out, warn_left_out
from forclip.data.local_copy import local_copy
from forclip.data.source_copy import SourceCopy
from forclip.data.source_format import format_of
from forclip.data.verdicts import merge_verdicts, read_verdicts
from forclip.location import is_at_url
from forclip.types import Annotations


def load_sets(data: DataConfig) -> tuple[Annotations, Annotations]:
    """Load the training images, with the verdicts merged into their labels, and the gallery images.

    Raises ValueError as the loaders do, if one of the sets would be empty, and for a gallery's file of ids that is
    unreadable or has an unknown id.
    """
    train, rule = load_source(data.train, data.cache), data.gallery
    if isinstance(rule, SourceConfig):
        gallery = load_source(rule, data.cache)
    else:
        if len(train) < 2:
            file = data.train.annotations
            problem = f"{len(train)} image(s) can't be split in two: name the images to search in data.gallery"
            raise ValueError(f"{file}: {problem}{and_left_out(train.skipped)}")
        if rule is None:
            rows = np.arange(1, len(train), 2)
        elif rule.fraction is not None:
            count = min(max(1, math.floor(rule.fraction * len(train))), len(train) - 1)
            rows = np.sort(np.random.default_rng(rule.seed).permutation(len(train))[:count])
        else:
            assert rule.image_ids is not None
            row = {image_id: k for k, image_id in enumerate(train.image_ids)}
            listed = dict.fromkeys(read_names(rule.image_ids))
            if unknown := [image_id for image_id in listed if image_id not in row]:
                raise ValueError(f"{rule.image_ids}: no image has the id {unknown[0]!r}")
            if not 0 < len(listed) < len(train):
                problem = f"lists {len(listed)} of {len(train)} images; each set needs at least one"
                raise ValueError(f"{rule.image_ids}: {problem}")
            rows = np.sort([row[image_id] for image_id in listed])
        train, gallery = train.take(np.setdiff1d(np.arange(len(train)), rows)), train.take(rows)
    for name, images in (("training", train), ("gallery", gallery)):
        if not len(images):
            file = (rule if name == "gallery" and isinstance(rule, SourceConfig) else data.train).annotations
            raise ValueError(f"{file}: has no image, so there is no {name} set")
    if data.verdicts is not None:
        with local_copy(data.verdicts) as file:
            verdicts, skipped = read_verdicts(file, data.train.image_folder)
        warn_left_out(data.verdicts, skipped)
        train = merge_verdicts(train, gallery, verdicts)
        train = replace(train, skipped=(*train.skipped, *skipped))
    return train, gallery


def load_source(source: SourceConfig, cache: Path | None = None) -> Annotations:
    """Load a source. cache: a folder for compact copies of JSON files, or None; those at URLs are not kept.

    Issues a LeftOutWarning if entries of the source can't be used. Raises ValueError as the format's loader does, and
    for an option that the format doesn't have.
    """
    with SourceCopy(source) as copy:
        if copy.is_unlabelled_folder:
            loaded = load_image_folder(source.annotations)
        elif copy.source is source:
            loaded = _load(source, cache)
        else:
            loaded = copy.at_urls(_load(copy.source, None, copy.image_sizes))
    warn_left_out(source.annotations, loaded.skipped, source.images)
    return loaded


def with_all_splits(source: SourceConfig) -> SourceConfig:
    """The source with all splits of a YOLO dataset, of which training takes train, unless it names a subset."""
    if source.subset is not None:
        return source
    if is_at_url(source.annotations):
        with SourceCopy(source, only_recognise=True) as copy:
            is_yolo = format_of(copy.source) == "yolo"
    else:
        is_yolo = source.annotations.exists() and format_of(source) == "yolo"
    return replace(source, subset=ALL_SPLITS) if is_yolo else source


def _load(source: SourceConfig, cache: Path | None, sizes: ImageSizes = image_sizes) -> Annotations:
    annotations, images, kind = source.annotations, source.image_folder, format_of(source)
    if source.subset is not None and kind not in ("yolo", "voc", "cvat"):
        raise ValueError(f"{annotations}: only yolo, voc and cvat data have a subset, not {kind}: {source.subset!r}")
    if kind == "folder" and source.format == "auto":
        refuse_unread_labels(annotations)
    if source.images is not None and (kind == "folder" or (kind == "yolo" and annotations.is_file())):
        raise ValueError(f"{annotations}: {kind} data define where images are; remove `images: {source.images}`")
    match kind:
        case "coco" | "lvis":
            load = load_coco if kind == "coco" else load_lvis
            return cached_annotations(annotations, images, kind, load, cache)
        case "nuimages":
            return load_nuimages(annotations, images)
        case "yolo":
            return load_yolo(annotations, source.subset, source.images, sizes)
        case "voc":
            return load_voc(annotations, source.subset, source.images)
        case "csv":
            return load_csv(annotations, images)
        case "cvat":
            return load_cvat(annotations, source.subset, source.images)
        case "labelstudio":
            return load_label_studio(label_studio_file_in(annotations) or annotations, images, sizes)
        case _:
            return load_image_folder(annotations)
