"""The entries of COCO's and LVIS' files: what the formats say, and what other tools write instead."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from msgspec import Meta, Struct

from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.json_file import (
    Entries,
    EntryKind,
    Fields,
    Id,
    Notes,
    Undecoded,
    read_box,
    read_entries,
    read_id,
    read_json,
    read_text,
    shown,
)
from forclip.data.formats.recognise import refuse_foreign_tool
from forclip.data.formats.run_lengths import box_of_run_lengths
from forclip.types import SkippedEntry

Text = Annotated[str, Meta(min_length=1)]
Box = tuple[float, float, float, float]


class Image(Struct, gc=False, kw_only=True):
    """file_name: relative to the image folder, or another tool's name of the file. width, height: may be anything."""

    id: Id
    file_name: Text
    width: Any = None
    height: Any = None


class LvisImage(Struct, gc=False, kw_only=True):
    """neg_category_ids: categories that are certainly not in the image; they say which labels are verified."""

    id: Id
    file_name: str = ""
    coco_url: str = ""
    neg_category_ids: tuple[Id, ...]
    width: Any = None
    height: Any = None


class Category(Struct, gc=False, kw_only=True):
    """synonyms, frequency: fields of LVIS that a COCO file may have too."""

    id: Id
    name: Text
    synonyms: tuple[str, ...] = ()
    frequency: str = ""
    supercategory: Any = None


class Instance(Struct, gc=False, kw_only=True):
    """One object. bbox: x, y, width, height in pixels, or None. All other fields are skipped, polygons among them.

    COCO calls it an annotation, but `forclip.types.Annotations` is something else.
    """

    id: Id | None = None
    image_id: Id
    category_id: Id
    bbox: Box | None
    iscrowd: Literal[0, 1] | bool | None = 0


class BoxedInstance(Instance, gc=False, kw_only=True):
    """An instance as the format defines it. One without a box may have a polygon instead, so it is read by itself."""

    bbox: Box


class _CocoFile(Struct, kw_only=True):
    images: Sequence[Image]
    categories: Sequence[Category]
    annotations: Sequence[BoxedInstance]


class _LvisFile(Struct, kw_only=True):
    images: Sequence[LvisImage]
    categories: Sequence[Category]
    annotations: Sequence[BoxedInstance]


def read_coco(file: Path, skipped: list[SkippedEntry]) -> tuple[Entries[Image], Entries[Category], Entries[Instance]]:
    """Read a COCO file, and add the entries that can't be decoded to `skipped`.

    Raises ValueError, naming the file, for one that is no JSON or has no list of images.
    """
    content = read_json(file, _CocoFile, _EXPECTED)
    if isinstance(content, _CocoFile):
        images = _all(file, _IMAGES, content.images)
        return images, _all(file, _CATEGORIES, content.categories), _all(file, _INSTANCES, content.annotations)
    lists = _lists(file, content)
    return (
        read_entries(file, lists["images"], _IMAGES, skipped),
        read_entries(file, lists["categories"], _CATEGORIES, skipped),
        read_entries(file, lists["annotations"], _INSTANCES, skipped),
    )


def read_lvis(
    file: Path, skipped: list[SkippedEntry]
) -> tuple[Entries[LvisImage], Entries[Category], Entries[Instance]]:
    """Read an LVIS file as `read_coco` reads a COCO file."""
    content = read_json(file, _LvisFile, _EXPECTED)
    if isinstance(content, _LvisFile):
        images = _all(file, _LVIS_IMAGES, content.images)
        return images, _all(file, _CATEGORIES, content.categories), _all(file, _INSTANCES, content.annotations)
    lists = _lists(file, content)
    return (
        read_entries(file, lists["images"], _LVIS_IMAGES, skipped),
        read_entries(file, lists["categories"], _CATEGORIES, skipped),
        read_entries(file, lists["annotations"], _INSTANCES, skipped),
    )


def name_in_url(url: str) -> str:
    """The folder and the file name in a URL, such as "train2017/000000391895.jpg". Empty if it is no URL."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return ""
    return "/".join(unquote(path).strip("/").split("/")[-2:])


def _mend_image(fields: Fields, notes: Notes) -> Iterator[Image]:
    size = {"width": fields.get("width"), "height": fields.get("height")}
    yield Image(id=read_id(fields, "id"), file_name=_read_file_name(fields), **size)


def _mend_lvis_image(fields: Fields, notes: Notes) -> Iterator[LvisImage]:
    negatives: list[Id] = []
    given = fields.get("neg_category_ids")
    if not isinstance(given, list):
        notes.append(("no list of neg_category_ids", "" if given is None else given))
    for value in given if isinstance(given, list) else ():
        try:
            negatives.append(read_id({"category_id": value}, "category_id"))
        except UnusableEntry:
            notes.append(("neg_category_ids holds something that is no id", value))
    url, name = fields.get("coco_url"), fields.get("file_name")
    has_url = isinstance(url, str) and bool(name_in_url(url))
    yield LvisImage(
        id=read_id(fields, "id"),
        file_name="" if has_url and not isinstance(name, str) else _read_file_name(fields),
        coco_url=str(url) if has_url else "",
        neg_category_ids=tuple(negatives),
        width=fields.get("width"),
        height=fields.get("height"),
    )


def _read_file_name(fields: Fields) -> str:
    """The file name, or a URL of the image."""
    name = fields.get("file_name")
    if isinstance(name, str) and name.strip():
        return name
    for url in (fields.get("coco_url"), fields.get("flickr_url")):
        if isinstance(url, str) and name_in_url(url):
            return url
    raise UnusableEntry("no file_name", "" if name is None else shown(name))


def _mend_category(fields: Fields, notes: Notes) -> Iterator[Category]:
    synonyms, frequency = fields.get("synonyms") or [], fields.get("frequency") or ""
    if isinstance(synonyms, str):
        synonyms = [synonyms]
    if not isinstance(synonyms, list) or not all(isinstance(synonym, str) for synonym in synonyms):
        notes.append(("synonyms are no list of texts", synonyms))
        synonyms = []
    if not isinstance(frequency, str):
        notes.append(("frequency is no text", frequency))
        frequency = ""
    name = read_text(fields, "name")
    try:
        name.encode()
    except UnicodeEncodeError:  # half a surrogate pair; no tokenizer reads it
        raise UnusableEntry("name is no valid text", shown(name)) from None
    yield Category(
        id=read_id(fields, "id"),
        name=name,
        synonyms=tuple(synonyms),
        frequency=frequency,
        supercategory=fields.get("supercategory"),
    )


def _mend_instance(fields: Fields, notes: Notes) -> Iterator[Instance]:
    """Also a panoptic annotation, whose segments are objects of their own."""
    segments = fields.get("segments_info")
    if isinstance(segments, list):
        for segment in segments:
            try:
                if not isinstance(segment, dict):
                    raise UnusableEntry("segment is no object", shown(segment))
                yield _read_instance({**segment, "image_id": fields.get("image_id")}, notes)
            except UnusableEntry as error:
                notes.append((f"a segment: {error.reason}", error.value))
    elif "category_id" not in fields and "caption" in fields:
        raise UnusableEntry("a caption, which names no category", shown(fields["caption"]))
    else:
        yield _read_instance(fields, notes)


def _read_instance(fields: Fields, notes: Notes) -> Instance:
    try:
        box = read_box(fields.get("bbox")) or _box_of_mask(fields.get("segmentation"))
    except UnusableEntry as error:
        notes.append((error.reason, error.value))
        box = None
    crowd = str(fields.get("iscrowd")).lower()
    if crowd not in _CROWD:
        notes.append(("iscrowd is not 0 or 1", fields["iscrowd"]))
    entry_id = fields.get("id")
    return Instance(
        id=entry_id if isinstance(entry_id, int | str) else None,
        image_id=read_id(fields, "image_id"),
        category_id=read_id(fields, "category_id"),
        bbox=box,
        iscrowd=_CROWD.get(crowd, False),
    )


def _box_of_mask(segmentation: object) -> Box | None:
    """x, y, width, height around run lengths, or polygons of at least three points [x, y, x, y, ...], or None."""
    if not isinstance(segmentation, list):
        return box_of_run_lengths(segmentation)
    polygons = segmentation if all(isinstance(polygon, list) for polygon in segmentation) else [segmentation]
    xs: list[float] = []
    ys: list[float] = []
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2 or not all(type(v) in (int, float) for v in polygon):
            return None
        xs += polygon[::2]
        ys += polygon[1::2]
    return (min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)) if xs else None


def _all(file: Path, kind: EntryKind[Any], values: Sequence[Any]) -> Entries[Any]:
    return Entries(file, kind, values, range(len(values)))


def _lists(file: Path, content: Undecoded) -> dict[str, list[Any]]:
    """The three lists of a file that is not as the format says. Raises ValueError for another kind of file."""
    fields = content.fields()
    if fields is None or "images" not in fields:
        refuse_foreign_tool(file)
        raise ValueError(f"{file}: is not {_EXPECTED}, but {_describe(content)}")
    lists: dict[str, list[Any]] = {}
    for key in ("images", "annotations", "categories"):
        found = Undecoded.list_in(fields, key)
        if found is None:
            raise ValueError(f"{file}: is not {_EXPECTED}: {key!r} is no list")
        lists[key] = found
    return lists


def _describe(content: Undecoded) -> str:
    """What a file is that is no COCO file, as far as its first entry or its keys say."""
    fields, entries = content.fields(), content.entries()
    if fields is not None:
        known = ", ".join(sorted(map(shown, fields))[:8])
        return f"an object without a list 'images'; its keys: {known or 'none'}"
    if entries is None:
        return "a single value"
    first = Undecoded(entries[0]).fields() if entries else None
    for keys, kind in _LISTS.items():
        if first is not None and keys <= first.keys():
            return kind
    return f"a list of {len(entries)} entries, not an object with images, annotations and categories"


_CROWD = dict.fromkeys(("0", "0.0", "false", "none", ""), False) | dict.fromkeys(("1", "1.0", "true", "2"), True)
_EXPECTED = "a COCO or LVIS instances file"
_IMAGES = EntryKind("image", "images", Image, _mend_image)
_LVIS_IMAGES = EntryKind("image", "images", LvisImage, _mend_lvis_image)
_CATEGORIES = EntryKind("category", "categories", Category, _mend_category)
_INSTANCES = EntryKind[Instance]("annotation", "annotations", BoxedInstance, _mend_instance)
_LISTS = {  # files that are one list, by keys of its first entry
    frozenset({"image_id", "score"}): "detection results, which name no images and no classes",
    frozenset({"image_id", "caption"}): "captions, which name no images and no classes",
    frozenset({"token"}): "a table of nuImages; give the folder of the tables",
}
