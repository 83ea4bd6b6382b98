"""What is read of COCO's and LVIS' annotation files, as types, and what is said where a file holds something else."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from msgspec import UNSET, Struct, UnsetType

from forclip.data.json_file import EntriesOf, entry_at, read_json, shown

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
