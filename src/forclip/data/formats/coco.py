"""Images, categories and boxes in one JSON file: COCO's instances (cocodataset.org/#format-data) and LVIS v1.

LVIS has COCO's photos with 1,203 classes, of which only some are checked in each photo (arXiv 1908.03195).
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from forclip.data.formats.coco_entries import Category, Image, Instance, LvisImage, name_in_url, read_coco, read_lvis
from forclip.data.formats.common import LARGEST_COORDINATE, UnusableEntry, box_problem
from forclip.data.formats.file_names import FileNames
from forclip.data.formats.json_file import Entries, Id
from forclip.data.images.box_frames import sizes_of
from forclip.data.left_out import none_usable
from forclip.types import Annotations, Bools, Floats, Ints, SkippedEntry

AnyImage = TypeVar("AnyImage", Image, LvisImage)
Index = dict[Id, int]  # rows or columns by id


def load_coco(annotation_file: Path, image_folder: Path) -> Annotations:
    """Load images sorted by id, with classes sorted by name. A crowd annotation labels its image but gives no box.

    Synonyms and frequencies are taken if the file has them. Categories with the same name are one class. Entries that
    can't be used are listed in `skipped`; a label whose box can't be used is kept without it. Raises ValueError, naming
    the file, if it is missing, is no JSON, has no list of images, or if none of its images can be used.
    """
    skipped: list[SkippedEntry] = []
    images, categories, instances = read_coco(annotation_file, skipped)
    names = FileNames(image_folder)
    paths = _find_images(images, lambda image: names.resolve(image.file_name), skipped)
    return _build(images, paths, categories, instances, str, skipped)


def load_lvis(annotation_file: Path, image_folder: Path) -> Annotations:
    """Load images sorted by id, with classes sorted by readable name.

    A label is verified if it is positive or in the image's `neg_category_ids`. `not_exhaustive_category_ids` (not every
    instance of a positive class is marked) changes nothing. An image is found by its URL, as train2017/x.jpg or as
    x.jpg below the folder, or by its file name if it has no URL. Leaves out and raises as `load_coco` does.
    """
    skipped: list[SkippedEntry] = []
    images, categories, instances = read_lvis(annotation_file, skipped)
    names = FileNames(image_folder)

    def find(image: LvisImage) -> Path:
        # URLs first: in files that have both, such as lvis-api's sample, file names are those of COCO 2014.
        name = name_in_url(image.coco_url) or image.file_name
        file = name.rpartition("/")[2]
        is_flat = image.coco_url and names.match(file) and not names.match(name)
        return names.resolve(file if is_flat else name)

    paths = _find_images(images, find, skipped)
    negatives = [images.values[k].neg_category_ids for k in paths]
    # "crab_(animal)" becomes "crab (animal)".
    return _build(images, paths, categories, instances, lambda name: name.replace("_", " ").strip(), skipped, negatives)


def _find_images(
    images: Entries[AnyImage], find: Callable[[AnyImage], Path], skipped: list[SkippedEntry]
) -> dict[int, Path]:
    """The path of each image that can be used, by its position in `images`, sorted by the images' ids."""
    paths: dict[int, Path] = {}
    first: dict[str, int] = {}
    for k, image in enumerate(images.values):
        try:
            path = find(image)
        except UnusableEntry as error:
            skipped.append(images.skip(k, error.reason, error.value))
            continue
        other = first.setdefault(str(image.id), k)  # as texts, because image ids become texts
        if other == k:
            paths[k] = path
        elif not _equal(images.values[other], image):
            skipped.append(images.skip(k, "image id occurs twice", f"{image.id}, {path.name}"))
    given = len(images.values) + len(images.lost)
    if given and not paths:
        raise none_usable(images.file, f"{given} images", skipped)
    # Numbers before texts, because the two don't compare.
    order = sorted(paths, key=lambda k: (isinstance(i := images.values[k].id, str), i))
    return {k: paths[k] for k in order}


def _equal(first: AnyImage, second: AnyImage) -> bool:
    """Whether two images of one id say the same of what is used."""
    names = ("file_name", "coco_url", "neg_category_ids")
    return all(getattr(first, name, None) == getattr(second, name, None) for name in names)


def _build(
    images: Entries[AnyImage],
    paths: dict[int, Path],
    categories: Entries[Category],
    instances: Entries[Instance],
    readable_name: Callable[[str], str],
    skipped: list[SkippedEntry],
    negatives: Sequence[tuple[Id, ...]] | None = None,
) -> Annotations:
    """Convert entries to arrays, and add those that can't be used to `skipped`.

    paths: of the images to use, by position, in the order of rows. readable_name: converts a name in the file to a
    class name or synonym. negatives: one per path, the categories that are certainly not in the image; if given, only
    positive labels and these are verified.
    """
    row = {images.values[k].id: r for r, k in enumerate(paths)}
    used = (*(a.category_id for a in instances.values), *(i for ids in negatives or () for i in ids))
    members = _group_categories(categories, readable_name, used, skipped)
    column = {category.id: c for c, of_class in enumerate(members.values()) for category in of_class}
    image_rows = _look_up([a.image_id for a in instances.values], row)
    class_columns = _look_up([a.category_id for a in instances.values], column)
    unknown = np.flatnonzero((image_rows < 0) | (class_columns < 0)).tolist()
    if unknown:
        in_file = [_ids_in_file(entries) for entries in (images, categories)]
        for k in unknown:
            is_image = image_rows[k] < 0
            field = "image_id" if is_image else "category_id"
            value = getattr(instances.values[k], field)
            known = str(value) in in_file[0 if is_image else 1]
            reason = f"its {'image' if is_image else 'category'} is left out" if known else f"unknown {field}"
            skipped.append(instances.skip(k, reason, value if value != "" else "an empty text"))
    usable = (image_rows >= 0) & (class_columns >= 0)
    labels = np.zeros((len(row), len(members)), bool)
    labels[image_rows[usable], class_columns[usable]] = True
    boxes, boxed = _boxes(instances, usable, skipped)
    verified = None
    if negatives is not None:
        verified = labels.copy()
        rows = np.repeat(np.arange(len(row)), [len(ids) for ids in negatives])
        columns = _look_up([i for ids in negatives for i in ids], column)
        verified[rows[columns >= 0], columns[columns >= 0]] = True
        positions, flat = list(paths), [i for ids in negatives for i in ids]
        for j in np.flatnonzero(columns < 0).tolist():
            reason = "neg_category_ids names an unknown category"
            skipped.append(images.skip(positions[rows[j]], reason, flat[j], used_in_part=True))
    synonyms = tuple(_synonyms(name, of_class, readable_name) for name, of_class in members.items())
    frequencies = tuple(next((c.frequency for c in of_class if c.frequency), "") for of_class in members.values())
    return Annotations(
        image_ids=tuple(map(str, row)),
        paths=tuple(paths.values()),
        class_names=tuple(members),
        labels=labels,
        boxes=boxes,
        box_images=image_rows[boxed],
        box_classes=class_columns[boxed],
        box_sizes=sizes_of((images.values[k].width, images.values[k].height) for k in paths),
        verified=verified,
        synonyms=synonyms if any(synonyms) else (),
        frequencies=frequencies if any(frequencies) else (),
        skipped=tuple(skipped),
    )


def _ids_in_file(entries: Entries[Any]) -> set[str]:
    return {*entries.lost, *(str(entry.id) for entry in entries.values)}


def _group_categories(
    categories: Entries[Category], readable_name: Callable[[str], str], used: Iterable[Id], skipped: list[SkippedEntry]
) -> dict[str, list[Category]]:
    """The categories of each class, by its name, sorted by name. used: ids of the categories that some image has."""
    parents = _unused_parents(categories.values, used)
    members: dict[str, list[Category]] = {}
    name_of: dict[str, str] = {}  # by id
    for k, category in enumerate(categories.values):
        name, category_id = readable_name(category.name), str(category.id)
        if not name.strip():
            skipped.append(categories.skip(k, "no name", category.name))
        elif name_of.setdefault(category_id, name) != name:
            skipped.append(categories.skip(k, "category id occurs twice", category.name))
        elif category_id in parents:
            skipped.append(categories.skip(k, "parent category that no object has", category.name))
        else:
            members.setdefault(name, []).append(category)
    return dict(sorted(members.items()))


def _unused_parents(categories: Sequence[Category], used: Iterable[Id]) -> set[str]:
    """Ids of categories that only group the others, as Roboflow adds one: at the top, above others, and unused."""
    above = {c.supercategory for c in categories if isinstance(c.supercategory, str) and c.supercategory != c.name}
    with_parent = {c.name for c in categories if c.supercategory not in (None, "", "none")}
    parents = {str(c.id) for c in categories if c.name in above - with_parent}
    return parents.difference(map(str, used)) if parents else set()


def _synonyms(name: str, members: Sequence[Category], readable_name: Callable[[str], str]) -> tuple[str, ...]:
    """The other names of a class, without repetition."""
    others = dict.fromkeys(readable_name(synonym) for category in members for synonym in category.synonyms)
    return tuple(other for other in others if other != name and other.strip())


def _look_up(ids: Sequence[Id], index: Index) -> Ints:
    """[ids]. The index of each id, -1 for an unknown one. The number 7 and the text "7" are the same id."""
    found = np.fromiter((index.get(i, -1) for i in ids), np.int64, len(ids))
    if (found < 0).any():
        by_text = {str(i): row for i, row in index.items()}
        for k in np.flatnonzero(found < 0).tolist():
            found[k] = by_text.get(str(ids[k]), -1)
    return found


def _boxes(instances: Entries[Instance], usable: Bools, skipped: list[SkippedEntry]) -> tuple[Floats, Ints]:
    """[B, 4] xyxy in pixels and [B] the positions of the usable instances that have a box and are no crowd."""
    values, count = instances.values, len(instances.values)
    boxed = np.flatnonzero(np.fromiter((a.bbox is not None and not a.iscrowd for a in values), bool, count) & usable)
    numbers = chain.from_iterable(values[k].bbox or () for k in boxed.tolist())
    boxes = np.fromiter(numbers, np.float64, 4 * len(boxed)).reshape(-1, 4)
    with np.errstate(invalid="ignore"):  # inf - inf
        boxes[:, 2:] += boxes[:, :2]
    # Written so that NaN is wrong too.
    kept = (np.abs(boxes) < LARGEST_COORDINATE).all(1) & (boxes[:, 2:] >= boxes[:, :2]).all(1)
    for k, box in zip(boxed[~kept].tolist(), boxes[~kept].tolist(), strict=True):
        skipped.append(instances.skip(k, box_problem(box), list(values[k].bbox or ()), used_in_part=True))
    return boxes[kept].astype(np.float32), boxed[kept]
