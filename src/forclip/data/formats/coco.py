"""COCO-format instances: images, categories and boxes in one JSON file (cocodataset.org/#format-data)."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from forclip.data.formats.json_file import EntriesOf, entry_at, read_json, shown
from forclip.types import Annotations, Bools, Floats, Ints

Id = int | str
Box = tuple[float, float, float, float]

_NOUNS = {"images": "image", "annotations": "annotation", "categories": "category"}
_EXPECTED = {
    "id": "a whole number or a text",
    "image_id": "a whole number or a text",
    "category_id": "a whole number or a text",
    "bbox": "x, y, width, height",
    "iscrowd": "0 or 1",
    "synonyms": "a list of texts",
    "neg_category_ids": "a list of category ids",
}


class Image(Struct, gc=False, kw_only=True):
    """file_name: below the image folder, or empty where the file has none."""

    id: Id
    file_name: str = ""


class Category(Struct, gc=False, kw_only=True):
    """synonyms, frequency: LVIS' fields, which a COCO file may have as well."""

    id: Id
    name: str
    synonyms: tuple[str, ...] = ()
    frequency: str = ""


class Instance(Struct, gc=False, kw_only=True):
    """One annotation. bbox: x, y, width, height in pixels. Polygons and all else are skipped, never made into objects.

    Not named Annotation, so that nobody takes it for one of `forclip.types.Annotations`.
    """

    id: Id
    image_id: Id
    category_id: Id
    bbox: Box | UnsetType = UNSET
    iscrowd: int | bool | None = 0


class CocoFile(Struct, kw_only=True):
    images: Sequence[Image]
    categories: Sequence[Category]
    annotations: Sequence[Instance]


class LvisImage(Image, gc=False, kw_only=True):
    """neg_category_ids: what is certainly not in the image. Required: without it nothing says what was checked."""

    coco_url: str = ""
    neg_category_ids: tuple[Id, ...]


class LvisCategory(Category, gc=False, kw_only=True):
    frequency: Literal["r", "c", "f", ""] = ""


class LvisFile(CocoFile, kw_only=True):
    images: Sequence[LvisImage]
    categories: Sequence[LvisCategory]


File = TypeVar("File", bound=CocoFile)


def read_annotations(file: Path, schema: type[File]) -> File:
    """Raises ValueError, naming the file and the entry, where it can't be read, is no JSON or has other types."""
    return read_json(file, schema, "no such annotation file", partial(_mistyped, file))


def entry_error(file: Path, key: str, position: int, entry_id: object, problem: str) -> ValueError:
    """key: the list, such as "images"; position: the entry's place in it; problem: goes on after the entry's name."""
    return ValueError(f"{file}: {_NOUNS[key]} {shown(entry_id)} (entry {position} of {key!r}) {problem}")


def repeated_id(file: Path, key: str, entry_id: Id, positions: tuple[int, int]) -> ValueError:
    """positions: the two entries of the list that have the id."""
    first, second = positions
    noun = _NOUNS[key]
    return ValueError(f"{file}: {noun} id {shown(entry_id)} is there twice, in entries {first} and {second} of {key!r}")


def _mistyped(file: Path, error: str, entries_of: EntriesOf) -> ValueError:
    """msgspec says what it expected where, such as `$.annotations[7].bbox[2]`; we add whose it is and what is there."""
    place = re.search(r"at `\$\.(\w+)(?:\[(\d+)\](?:\.(\w+))?)?", error)
    missing = re.search(r"missing required field `(\w+)`", error)
    if place is None and missing is None:
        return ValueError(f"{file}: an annotation file holds an object, not what is here: {error}")
    if place is None or place[2] is None:
        key = place[1] if place else missing[1] if missing else ""
        return ValueError(f"{file}: no list under {key!r}; is it an instances file?")
    key, position = place[1], int(place[2])
    field = missing[1] if missing else place[3]
    entry = entry_at(entries_of(key), position)
    if entry is None:
        return ValueError(f"{file}: entry {position} of {key!r} can't be used: {error}")
    if not isinstance(entry, Mapping):
        return ValueError(f"{file}: entry {position} of {key!r} is no object: {shown(entry)}")
    if field == "id":
        return ValueError(f"{file}: entry {position} of {key!r} has no id of text or whole number: {shown(entry)}")
    if field not in entry:
        return entry_error(file, key, position, entry.get("id"), f"has no {field}")
    problem = f"has the {field} {shown(entry[field])}, not {_expected(field, error)}"
    return entry_error(file, key, position, entry.get("id"), problem)


def _expected(field: str, error: str) -> str:
    return "r, c or f" if "enum" in error else _EXPECTED.get(field, "a text")


_LARGEST = 1e9  # No picture is as large; NaN and infinity are not below it either.
# From a root, from a drive, by Windows' separators, or up and out. No file system has a name with a NUL, and of the
# halves of surrogate pairs only those that stand for a byte that is no UTF-8 can be part of one.
_NO_NAME_INSIDE = re.compile(r"^/|^[A-Za-z]:|[\\\0\ud800-\udc7f\udd00-\udfff]|(?:^|/)\.\.(?:/|$)")


def load_coco(annotation_file: Path, image_folder: Path) -> Annotations:
    """Images sorted by id, classes by name. Crowd annotations label the image but give no box.

    Synonyms and frequencies, which are LVIS' fields, are taken where there are any. Raises ValueError, naming the file
    and the entry, for a missing or malformed file, an id twice, a class without a name or with another's, an annotation
    of an unknown image or category, a box that is not four finite numbers, or a file name that leaves the folder.
    """
    content = read_annotations(annotation_file, CocoFile)
    names = [image.file_name for image in content.images]
    refuse_names_outside(annotation_file, content.images, names)
    return assemble(annotation_file, content, [image_folder / name for name in names], readable=str)


def refuse_names_outside(file: Path, images: Sequence[Image], names: Sequence[str]) -> None:
    """names: one per image. A name may lead into sub-folders, but never out of the image folder."""
    for position, (image, name) in enumerate(zip(images, names, strict=True)):
        if not name.strip():
            raise entry_error(file, "images", position, image.id, "has no file name")
        if _NO_NAME_INSIDE.search(name):
            problem = f"has the file name {shown(name)}, not a path inside the image folder with / between its parts"
            raise entry_error(file, "images", position, image.id, problem)


def assemble(
    file: Path,
    content: CocoFile,
    paths: Sequence[Path],
    readable: Callable[[str], str],
    negatives: Sequence[Sequence[Id]] | None = None,
) -> Annotations:
    """A file's entries as arrays.

    paths: one per image of the file; readable: from a name in the file to a class name or synonym; negatives: for each
    image of the file the categories that are certainly not in it, or None where all that is not there is negative.
    Raises ValueError, naming the file and the entry, for an id twice, a class without a name or with another's, an
    annotation or negative of an unknown image or category, or a box of impossible numbers.
    """
    _refuse_repeated_ids(file, content)
    names = _class_names(file, content.categories, readable)
    # Numbers before texts, which don't compare with them.
    image_order = sorted(range(len(paths)), key=lambda k: (isinstance(i := content.images[k].id, str), i))
    class_order = sorted(range(len(names)), key=names.__getitem__)
    row = {content.images[k].id: r for r, k in enumerate(image_order)}
    column = {content.categories[k].id: c for c, k in enumerate(class_order)}
    image_rows, class_columns = _owners(file, content.annotations, row, column)
    boxes, boxed = _boxes(file, content.annotations)
    labels = np.zeros((len(row), len(column)), bool)
    labels[image_rows, class_columns] = True
    categories = [content.categories[k] for k in class_order]
    return Annotations(
        image_ids=tuple(str(content.images[k].id) for k in image_order),
        paths=tuple(paths[k] for k in image_order),
        class_names=tuple(names[k] for k in class_order),
        labels=labels,
        boxes=boxes,
        box_images=image_rows[boxed],
        box_classes=class_columns[boxed],
        verified=None if negatives is None else _verified(file, content.images, negatives, labels, row, column),
        synonyms=_synonyms(categories, readable),
        frequencies=tuple(c.frequency for c in categories) if any(c.frequency for c in categories) else (),
    )


def _refuse_repeated_ids(file: Path, content: CocoFile) -> None:
    # Those of images and categories as texts, because that is what image ids become.
    _refuse_repeated(file, "images", (str(image.id) for image in content.images))
    _refuse_repeated(file, "categories", (str(category.id) for category in content.categories))
    _refuse_repeated(file, "annotations", (annotation.id for annotation in content.annotations))


def _refuse_repeated(file: Path, key: str, ids: Iterable[Id]) -> None:
    ids = list(ids)
    if len(set(ids)) == len(ids):
        return
    first: dict[Id, int] = {}
    for position, entry_id in enumerate(ids):
        if entry_id in first:
            raise repeated_id(file, key, entry_id, (first[entry_id], position))
        first[entry_id] = position


def _class_names(file: Path, categories: Sequence[Category], readable: Callable[[str], str]) -> list[str]:
    """One readable name per category, in the file's order."""
    first: dict[str, Category] = {}
    for position, category in enumerate(categories):
        name = readable(category.name)
        if not name.strip():
            raise entry_error(file, "categories", position, category.id, "has no name")
        if name in first:
            other = f"category {shown(first[name].id)} {shown(first[name].name)}"
            problem = f"is named {shown(category.name)} and {other}, which is the same class name"
            raise entry_error(file, "categories", position, category.id, problem)
        first[name] = category
    return list(first)


def _synonyms(categories: Sequence[Category], readable: Callable[[str], str]) -> tuple[tuple[str, ...], ...]:
    """For each category its other names, each once, in the file's order; nothing at all where no category has any."""
    if not any(category.synonyms for category in categories):
        return ()
    named = ((readable(c.name), dict.fromkeys(map(readable, c.synonyms))) for c in categories)
    return tuple(tuple(s for s in synonyms if s != name and s.strip()) for name, synonyms in named)


def _owners(
    file: Path, annotations: Sequence[Instance], row: dict[Id, int], column: dict[Id, int]
) -> tuple[Ints, Ints]:
    """Row and column of each annotation."""
    count = len(annotations)
    rows = np.fromiter((row.get(a.image_id, -1) for a in annotations), np.int64, count)
    columns = np.fromiter((column.get(a.category_id, -1) for a in annotations), np.int64, count)
    for field, found in (("image_id", rows), ("category_id", columns)):
        if (found < 0).any():
            position = int(np.argmax(found < 0))
            lost = annotations[position]
            problem = f"names {field} {shown(getattr(lost, field))}, which is not there"
            raise entry_error(file, "annotations", position, lost.id, problem)
    return rows, columns


def _boxes(file: Path, annotations: Sequence[Instance]) -> tuple[Floats, Ints]:
    """[B, 4] xyxy in pixels, and [B] whose they are: the annotations that have a box and are no crowd."""
    count = len(annotations)
    boxed = np.flatnonzero(np.fromiter((isinstance(a.bbox, tuple) for a in annotations), bool, count))
    numbers = chain.from_iterable(a.bbox for a in annotations if isinstance(a.bbox, tuple))
    boxes = np.fromiter(numbers, np.float64, 4 * len(boxed)).reshape(-1, 4)
    impossible = ~(np.abs(boxes) < _LARGEST).all(1) | (boxes[:, 2:] < 0).any(1)
    if impossible.any():
        position = int(boxed[np.argmax(impossible)])
        box = list(boxes[np.argmax(impossible)].tolist())
        problem = f"has the bbox {box}, not finite numbers of pixels with a width and height that are not negative"
        raise entry_error(file, "annotations", position, annotations[position].id, problem)
    boxes[:, 2:] += boxes[:, :2]
    crowd = np.fromiter((bool(a.iscrowd) for a in annotations), bool, count)[boxed]
    return boxes[~crowd].astype(np.float32), boxed[~crowd]


def _verified(
    file: Path,
    images: Sequence[Image],
    negatives: Sequence[Sequence[Id]],
    labels: Bools,
    row: dict[Id, int],
    column: dict[Id, int],
) -> Bools:
    """[images, classes]: the positives, and the negatives that the file names."""
    counts = np.fromiter(map(len, negatives), np.int64, len(negatives))
    rows = np.repeat(np.fromiter((row[image.id] for image in images), np.int64, len(images)), counts)
    columns = np.fromiter((column.get(i, -1) for i in chain.from_iterable(negatives)), np.int64, len(rows))
    if (columns < 0).any():
        position, unknown = next((k, i) for k, ids in enumerate(negatives) for i in ids if i not in column)
        problem = f"names {shown(unknown)} in neg_category_ids, which is not there"
        raise entry_error(file, "images", position, images[position].id, problem)
    verified = labels.copy()
    verified[rows, columns] = True
    return verified
