"""LVIS v1: COCO's photos with 1,203 classes, of which only some are checked in each photo (arXiv 1908.03195)."""

import os
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from forclip.data.formats.coco import FORMAT, LvisFile, LvisImage, build_annotations, check_file_names
from forclip.data.formats.json_file import read_json
from forclip.types import Annotations


def load_lvis(annotation_file: Path, image_folder: Path) -> Annotations:
    """Load images sorted by id, with classes sorted by readable name.

    A label is verified if it is positive or in the image's `neg_category_ids`. `not_exhaustive_category_ids` (not every
    instance of a positive class is marked) changes nothing. An image is found by its URL, as train2017/x.jpg or as
    x.jpg below the folder, or by its file name if it has no URL. Raises ValueError as `load_coco` does, and if an image
    has no `neg_category_ids`.
    """
    content = read_json(annotation_file, LvisFile, FORMAT)
    # URLs first: in files that have both, such as lvis-api's sample, file names are those of COCO 2014.
    names = [_name_in_url(image) or image.file_name for image in content.images]
    check_file_names(annotation_file, content.images, names)

    @cache  # lists each folder once: checking 100,000 files one by one takes minutes on a network drive
    def listed(subfolder: str) -> frozenset[str]:
        try:
            return frozenset(os.listdir(image_folder / subfolder))
        except OSError:  # no such folder; reading the image will report it
            return frozenset()

    def locate(image: LvisImage, name: str) -> Path:
        subfolder, _, file = name.rpartition("/")
        is_flat = image.coco_url and file in listed("") and file not in listed(subfolder)
        return image_folder / (file if is_flat else name)

    paths = [locate(image, name) for image, name in zip(content.images, names, strict=True)]
    # "crab_(animal)" becomes "crab (animal)".
    return build_annotations(annotation_file, content, paths, lambda name: name.replace("_", " ").strip())


def _name_in_url(image: LvisImage) -> str:
    """The folder and the file name in a URL, such as "train2017/000000391895.jpg". Empty if it is no URL."""
    try:
        path = urlsplit(image.coco_url).path
    except ValueError:
        return ""
    return "/".join(unquote(path).strip("/").split("/")[-2:])
