"""COCO-format instances: images, categories and boxes in one JSON file (cocodataset.org/#format-data)."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from forclip.types import Annotations


def load_coco(annotation_file: Path, image_folder: Path) -> Annotations:
    """Images sorted by id, classes by name. Crowd annotations label the image but give no box.

    Raises ValueError, naming the file and the entry, for a missing or malformed file, an image or category twice, an
    annotation of an unknown image or category, a box that is not four finite numbers, or a file name that leaves the
    folder.
    """
    content = _read_json(annotation_file)
    images = sorted(_entries(annotation_file, content, "images"), key=lambda i: (str(type(i["id"])), i["id"]))
    categories = sorted(_entries(annotation_file, content, "categories"), key=lambda c: str(c.get("name")))
    row = _positions(annotation_file, "image", images)
    column = _positions(annotation_file, "category", categories)
    for category in categories:
        if not isinstance(category.get("name"), str) or not category["name"].strip():
            raise ValueError(f"{annotation_file}: category {category['id']} has no name")
    _refuse_repeated(annotation_file, "category name", (category["name"] for category in categories))
    labels = np.zeros((len(images), len(categories)), bool)
    boxes: list[list[float]] = []
    owners: list[tuple[int, int]] = []
    for annotation in _entries(annotation_file, content, "annotations"):
        owner = _owner(annotation_file, annotation, row, column)
        labels[owner] = True
        if "bbox" in annotation and not annotation.get("iscrowd", 0):
            boxes.append(_xyxy(annotation_file, annotation))
            owners.append(owner)
    pairs = np.array(owners, np.int64).reshape(-1, 2)
    return Annotations(
        image_ids=tuple(str(i["id"]) for i in images),
        paths=tuple(_inside(annotation_file, image_folder, i) for i in images),
        class_names=tuple(c["name"] for c in categories),
        labels=labels,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        box_images=pairs[:, 0],
        box_classes=pairs[:, 1],
    )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{file}: no such annotation file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: a COCO file holds an object, not a {type(content).__name__}")
    return content


def _entries(file: Path, content: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise ValueError(f"{file}: no list under {key!r}; is it a COCO instances file?")
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("id"), int | str):
            raise ValueError(f"{file}: entry {position} of {key!r} has no id: {str(entry)[:80]}")
    return entries


def _positions(file: Path, what: str, entries: list[dict[str, Any]]) -> dict[Any, int]:
    # As strings, because that is what ids become.
    _refuse_repeated(file, f"{what} id", (str(entry["id"]) for entry in entries))
    return {entry["id"]: k for k, entry in enumerate(entries)}


def _refuse_repeated(file: Path, what: str, values: Iterable[str]) -> None:
    repeated = next((value for value, count in Counter(values).items() if count > 1), None)
    if repeated is not None:
        raise ValueError(f"{file}: {what} {repeated!r} is there twice")


def _owner(file: Path, annotation: dict[str, Any], row: dict[Any, int], column: dict[Any, int]) -> tuple[int, int]:
    for key, known in (("image_id", row), ("category_id", column)):
        named = annotation.get(key)
        if isinstance(named, list | dict) or named not in known:
            raise ValueError(f"{file}: annotation {annotation['id']} names {key} {named!r}, which is not there")
    return row[annotation["image_id"]], column[annotation["category_id"]]


def _xyxy(file: Path, annotation: dict[str, Any]) -> list[float]:
    box = annotation["bbox"]
    numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    # No picture is as large as the bound; NaN and infinity are not below it either.
    if not numbers or not all(abs(v) < 1e9 for v in box) or box[2] < 0 or box[3] < 0:
        raise ValueError(f"{file}: annotation {annotation['id']} has the box {box!r}, not x, y, width, height")
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _inside(file: Path, folder: Path, image: dict[str, Any]) -> Path:
    """The image's path. A file name may name sub-folders, but never climb out of the image folder."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{file}: image {image['id']} has no file_name")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{file}: image {image['id']} has a file_name outside the image folder: {name!r}")
    return folder / name
