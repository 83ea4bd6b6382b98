"""LVIS v1: COCO's photos with 1,203 classes, of which only some are checked in each photo (arXiv 1908.03195)."""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from forclip.data.formats.coco import LvisFile, LvisImage, assemble, read_annotations, refuse_names_outside
from forclip.types import Annotations


def load_lvis(annotation_file: Path, image_folder: Path) -> Annotations:
    """Images sorted by id, classes by readable name. A label is verified where it is positive or a stated negative.

    `not_exhaustive_category_ids` says that a positive may have more instances than are marked; it stays positive, and
    makes no negative. Pictures are found below the folder as train2017/x.jpg or as x.jpg by their URL, by file_name
    without one. Raises ValueError as `load_coco` does, and where two readable names are the same or an image doesn't
    say its negatives.
    """
    content = read_annotations(annotation_file, LvisFile)
    # The URL first: where both are there, as in lvis-api's sample, the file name is of COCO's release of 2014.
    names = [_name_in_url(image) or image.file_name for image in content.images]
    refuse_names_outside(annotation_file, content.images, names)
    paths = _places(image_folder, content.images, names)
    negatives = [image.neg_category_ids for image in content.images]
    return assemble(annotation_file, content, paths, readable, negatives)


def readable(name: str) -> str:
    """ "crab_(animal)" is "crab (animal)"."""
    return name.replace("_", " ").strip()


def _name_in_url(image: LvisImage) -> str:
    """ "train2017/000000391895.jpg": a set of COCO's and the picture's name in it. Empty where it is no URL."""
    try:
        path = urlsplit(image.coco_url).path
    except ValueError:
        return ""
    return "/".join(unquote(path).strip("/").split("/")[-2:])


def _places(folder: Path, images: Sequence[LvisImage], names: Sequence[str]) -> list[Path]:
    @cache  # Each folder is listed once: asking for 100,000 files one by one takes minutes on a network drive.
    def listed(subfolder: str) -> frozenset[str]:
        return _listed(folder / subfolder)

    return [
        folder / (_nested_or_flat(name, listed) if image.coco_url else name)
        for image, name in zip(images, names, strict=True)
    ]


def _nested_or_flat(name: str, listed: Callable[[str], frozenset[str]]) -> str:
    """The name with its sub-folder, unless the picture is there only without."""
    subfolder, _, file = name.rpartition("/")
    nested = file in listed(subfolder)
    return file if not nested and file in listed("") else name


def _listed(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:  # Not there, or no folder: then nothing is in it, and the reader of pictures will say so.
        return frozenset()
