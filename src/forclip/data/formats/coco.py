"""Images, categories and boxes in one JSON file: COCO's instances (cocodataset.org/#format-data) and LVIS v1.

LVIS has COCO's photos with 1,203 classes, of which only some are checked in each photo (arXiv 1908.03195).
"""

import os
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from forclip.data.formats.common import LARGEST_COORDINATE
from forclip.data.formats.json_file import JsonFormat, read_json, shown
from forclip.data.images.box_frames import sizes_of
from forclip.types import Annotations, Floats, Ints

Id = int | str

_ID = "a whole number or a text"
FORMAT = JsonFormat(
    name="a COCO or LVIS instances file",
    id_field="id",
    nouns={"images": "image", "annotations": "annotation", "categories": "category"},
    expected={
        "id": _ID,
        "image_id": _ID,
        "category_id": _ID,
        "bbox": "x, y, width, height",
        "iscrowd": "0 or 1",
        "synonyms": "a list of texts",
        "frequency": "a text; r, c or f in LVIS",
        "neg_category_ids": "a list of category ids",
    },
)


class Image(Struct, gc=False, kw_only=True):
    """file_name: relative to the image folder, or empty if the file has none. width, height: may be anything."""

    id: Id
    file_name: str = ""
    width: Any = None
    height: Any = None


class Category(Struct, gc=False, kw_only=True):
    """synonyms, frequency: fields of LVIS that a COCO file may have too."""

    id: Id
    name: str
    synonyms: tuple[str, ...] = ()
    frequency: str = ""


class Instance(Struct, gc=False, kw_only=True):
    """One object. bbox: x, y, width, height in pixels. All other fields are skipped, polygons among them.

    COCO calls it an annotation, but `forclip.types.Annotations` is something else.
    """

    id: Id
    image_id: Id
    category_id: Id
    bbox: tuple[float, float, float, float] | UnsetType = UNSET
    iscrowd: int | bool | None = 0


class CocoFile(Struct, kw_only=True):
    images: Sequence[Image]
    categories: Sequence[Category]
    annotations: Sequence[Instance]


class LvisImage(Image, gc=False, kw_only=True):
    """neg_category_ids: categories that are certainly not in the image; they say which labels are verified."""

    coco_url: str = ""
    neg_category_ids: tuple[Id, ...]


class LvisCategory(Category, gc=False, kw_only=True):
    frequency: Literal["r", "c", "f", ""] = ""


class LvisFile(CocoFile, kw_only=True):
    images: Sequence[LvisImage]
    categories: Sequence[LvisCategory]


def load_coco(annotation_file: Path, image_folder: Path) -> Annotations:
    """Load images sorted by id, with classes sorted by name. A crowd annotation labels its image but gives no box.

    Synonyms and frequencies are taken if the file has them. Raises ValueError, naming the file and the entry, for a
    missing or malformed file, a repeated id, a class without a name or with another's name, an annotation of an unknown
    image or category, a box that is not four finite numbers below 1e9 or
    has a negative size, or a file name that leaves the folder.
    """
    content = read_json(annotation_file, CocoFile, FORMAT)
    names = [image.file_name for image in content.images]
    check_file_names(annotation_file, content.images, names)
    return build_annotations(annotation_file, content, [image_folder / name for name in names], readable_name=str)


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

    paths: list[Path] = []
    for image, name in zip(content.images, names, strict=True):
        subfolder, _, file = name.rpartition("/")
        is_flat = image.coco_url and file in listed("") and file not in listed(subfolder)
        paths.append(image_folder / (file if is_flat else name))
    # "crab_(animal)" becomes "crab (animal)".
    return build_annotations(annotation_file, content, paths, lambda name: name.replace("_", " ").strip())


def _name_in_url(image: LvisImage) -> str:
    """The folder and the file name in a URL, such as "train2017/000000391895.jpg". Empty if it is no URL."""
    try:
        path = urlsplit(image.coco_url).path
    except ValueError:
        return ""
    return "/".join(unquote(path).strip("/").split("/")[-2:])


# A name from the root, from a drive, with Windows' separators, or with `..`. No file system allows NUL in a name. Of
# the halves of surrogate pairs, only those that stand for a byte that is not UTF-8 can be part of a name.
_OUTSIDE = re.compile(r"^/|^[A-Za-z]:|[\\\0\ud800-\udc7f\udd00-\udfff]|(?:^|/)\.\.(?:/|$)")


def check_file_names(file: Path, images: Sequence[Image], names: Sequence[str]) -> None:
    """Raise ValueError for an empty file name or one that leads out of the image folder. names: one per image."""
    for position, (image, name) in enumerate(zip(images, names, strict=True)):
        if not name.strip():
            raise FORMAT.entry_error(file, "images", position, image.id, "has no file name")
        if _OUTSIDE.search(name):
            problem = f"has the file name {shown(name)}, not a path inside the image folder with / between its parts"
            raise FORMAT.entry_error(file, "images", position, image.id, problem)


def build_annotations(
    file: Path, content: CocoFile, paths: Sequence[Path], readable_name: Callable[[str], str]
) -> Annotations:
    """Convert a file's entries to arrays; of an LvisFile, only positive labels and stated negatives are verified.

    paths: one per image of the file. readable_name: converts a name in the file to a class name or synonym.
    Raises ValueError, naming the file and the entry, as `load_coco` does.
    """
    # Ids of images and categories as texts, because image ids become texts.
    FORMAT.check_unique(file, "images", (str(image.id) for image in content.images))
    FORMAT.check_unique(file, "categories", (str(category.id) for category in content.categories))
    FORMAT.check_unique(file, "annotations", (annotation.id for annotation in content.annotations))
    names = _class_names(file, content.categories, readable_name)
    # Numbers before texts, because the two don't compare.
    image_order = sorted(range(len(paths)), key=lambda k: (isinstance(i := content.images[k].id, str), i))
    class_order = sorted(range(len(names)), key=names.__getitem__)
    row = {content.images[k].id: r for r, k in enumerate(image_order)}
    column = {content.categories[k].id: c for c, k in enumerate(class_order)}
    image_rows = _lookup(file, content.annotations, "image_id", row)
    class_columns = _lookup(file, content.annotations, "category_id", column)
    boxes, boxed = _boxes(file, content.annotations)
    labels = np.zeros((len(row), len(column)), bool)
    labels[image_rows, class_columns] = True
    verified = None
    if isinstance(content, LvisFile):
        verified = labels.copy()
        for position, image in enumerate(content.images):
            for unknown in (i for i in image.neg_category_ids if i not in column):
                problem = f"names {shown(unknown)} in neg_category_ids, which is not in the file"
                raise FORMAT.entry_error(file, "images", position, image.id, problem)
        rows = [row[image.id] for image in content.images for _ in image.neg_category_ids]
        verified[rows, [column[i] for image in content.images for i in image.neg_category_ids]] = True
    categories = [content.categories[k] for k in class_order]
    synonyms: tuple[tuple[str, ...], ...] = ()
    if any(category.synonyms for category in categories):  # without repetition
        named = ((readable_name(c.name), dict.fromkeys(map(readable_name, c.synonyms))) for c in categories)
        synonyms = tuple(tuple(s for s in others if s != name and s.strip()) for name, others in named)
    return Annotations(
        image_ids=tuple(str(content.images[k].id) for k in image_order),
        paths=tuple(paths[k] for k in image_order),
        class_names=tuple(names[k] for k in class_order),
        labels=labels,
        boxes=boxes,
        box_images=image_rows[boxed],
        box_classes=class_columns[boxed],
        box_sizes=sizes_of((content.images[k].width, content.images[k].height) for k in image_order),
        verified=verified,
        synonyms=synonyms,
        frequencies=tuple(c.frequency for c in categories) if any(c.frequency for c in categories) else (),
    )


def _class_names(file: Path, categories: Sequence[Category], readable_name: Callable[[str], str]) -> list[str]:
    """One readable name per category, in the file's order."""
    first: dict[str, Category] = {}
    for position, category in enumerate(categories):
        name = readable_name(category.name)
        if not name.strip():
            raise FORMAT.entry_error(file, "categories", position, category.id, "has no name")
        if name in first:
            other = f"category {shown(first[name].id)} {shown(first[name].name)}"
            problem = f"is named {shown(category.name)}, the same class name as that of {other}"
            raise FORMAT.entry_error(file, "categories", position, category.id, problem)
        first[name] = category
    return list(first)


def _lookup(file: Path, annotations: Sequence[Instance], field: str, index: dict[Id, int]) -> Ints:
    """[annotations]. The index of the id in a field of each annotation."""
    found = np.fromiter((index.get(getattr(a, field), -1) for a in annotations), np.int64, len(annotations))
    if (found < 0).any():
        position = int(np.argmax(found < 0))
        unknown = annotations[position]
        problem = f"names {field} {shown(getattr(unknown, field))}, which is not in the file"
        raise FORMAT.entry_error(file, "annotations", position, unknown.id, problem)
    return found


def _boxes(file: Path, annotations: Sequence[Instance]) -> tuple[Floats, Ints]:
    """[B, 4] xyxy in pixels and [B] the positions of the annotations that have a box and are no crowd."""
    count = len(annotations)
    boxed = np.flatnonzero(np.fromiter((isinstance(a.bbox, tuple) for a in annotations), bool, count))
    numbers = chain.from_iterable(a.bbox for a in annotations if isinstance(a.bbox, tuple))
    boxes = np.fromiter(numbers, np.float64, 4 * len(boxed)).reshape(-1, 4)
    impossible = ~(np.abs(boxes) < LARGEST_COORDINATE).all(1) | (boxes[:, 2:] < 0).any(1)
    if impossible.any():
        position = int(boxed[np.argmax(impossible)])
        box = boxes[np.argmax(impossible)].tolist()
        problem = f"has the bbox {box}, not finite x and y in pixels with a width and a height of at least 0"
        raise FORMAT.entry_error(file, "annotations", position, annotations[position].id, problem)
    boxes[:, 2:] += boxes[:, :2]
    crowd = np.fromiter((bool(a.iscrowd) for a in annotations), bool, count)[boxed]
    return boxes[~crowd].astype(np.float32), boxed[~crowd]
