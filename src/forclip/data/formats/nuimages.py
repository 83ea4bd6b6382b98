"""nuImages: the annotated keyframes of one version, from its relational tables of JSON."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from forclip.data.formats.common import LabelledObject, UnusableEntry, annotations_of_objects, box_problem
from forclip.data.formats.file_names import FileNames
from forclip.data.formats.json_file import (
    Entries,
    EntryKind,
    Fields,
    Notes,
    Undecoded,
    read_box,
    read_entries,
    read_id,
    read_json,
    read_text,
)
from forclip.data.images.picture_types import picture_suffixes
from forclip.data.left_out import none_usable
from forclip.types import Annotations, SkippedEntry

# Each category's class name and synonyms. The names are ours; the synonyms of a category that is a collection follow
# the annotators' instructions (nuscenes-devkit, docs/instructions_nuscenes.md). The categories are nuImages' 23 objects
# and 2 surfaces, and those that nuScenes adds for lidar.
READABLE_NAMES: dict[str, tuple[str, ...]] = {
    "animal": ("animal", "dog", "cat", "bird"),
    "human.pedestrian.adult": ("adult pedestrian", "adult", "pedestrian"),
    "human.pedestrian.child": ("child", "child pedestrian", "kid"),
    "human.pedestrian.construction_worker": ("construction worker", "road worker"),
    "human.pedestrian.personal_mobility": ("personal mobility vehicle", "kick scooter", "skateboard", "segway"),
    "human.pedestrian.police_officer": ("police officer", "policeman", "policewoman"),
    "human.pedestrian.stroller": ("stroller", "baby carriage", "pram"),
    "human.pedestrian.wheelchair": ("wheelchair", "person in a wheelchair"),
    "movable_object.barrier": ("road barrier", "traffic barrier", "concrete barrier"),
    "movable_object.debris": ("road debris", "debris", "trash bag on the road"),
    "movable_object.pushable_pullable": ("push cart", "shopping cart", "wheelbarrow", "wheeled garbage bin"),
    "movable_object.trafficcone": ("traffic cone", "safety cone"),
    "static_object.bicycle_rack": ("bicycle rack", "bike rack"),
    "vehicle.bicycle": ("bicycle", "bike"),
    "vehicle.bus.bendy": ("bendy bus", "articulated bus"),
    "vehicle.bus.rigid": ("bus", "rigid bus"),
    "vehicle.car": ("car", "sedan", "van", "SUV"),
    "vehicle.construction": ("construction vehicle", "excavator", "crane truck"),
    "vehicle.emergency.ambulance": ("ambulance", "ambulance vehicle"),
    "vehicle.emergency.police": ("police vehicle", "police car"),
    "vehicle.motorcycle": ("motorcycle", "motorbike", "moped"),
    "vehicle.trailer": ("trailer", "truck trailer"),
    "vehicle.truck": ("truck", "lorry", "pickup truck"),
    "flat.driveable_surface": ("driveable surface", "road"),
    "flat.other": ("other flat surface",),
    "flat.sidewalk": ("sidewalk", "footpath"),
    "flat.terrain": ("terrain", "grass"),
    "noise": ("noise",),
    "static.manmade": ("man-made structure", "building", "wall"),
    "static.other": ("other static object",),
    "static.vegetation": ("vegetation", "tree", "bush"),
    "vehicle.ego": ("ego vehicle",),
}

# The nuScenes detection benchmark drops nine of the same 23 classes as rare: "some of these only have a handful of
# samples" (nuscenes-devkit, python-sdk/nuscenes/eval/detection/README.md, the rows "void / ignore"). Making them the
# novel classes is our choice: we know of no published split of nuImages into base and novel classes, and have not seen
# nuImages' own counts.
NUIMAGES_NOVEL = (
    "animal",
    "personal mobility vehicle",
    "stroller",
    "wheelchair",
    "road debris",
    "push cart",
    "bicycle rack",
    "ambulance",
    "police vehicle",
)


def readable_names(dotted: str) -> tuple[str, tuple[str, ...]]:
    """The class name and the synonyms of a category.

    An unknown category is named by its last part, with its parents in a synonym: `vehicle.emergency.fire_truck` becomes
    `fire truck`, also `fire truck (emergency vehicle)`.
    """
    if dotted in READABLE_NAMES:
        name, *synonyms = READABLE_NAMES[dotted]
        return name, tuple(synonyms)
    *parents, name = dotted.replace("_", " ").split(".")
    return name, (f"{name} ({' '.join(reversed(parents))})",) if parents else ()


def is_background(dotted: str) -> bool:
    """Whether a category is a surface or similar, which has masks but no boxes."""
    return dotted in ("noise", "vehicle.ego") or dotted.startswith(("flat.", "static."))


# The columns in use; others are skipped unread, masks among them. `gc=False` saves the garbage collector's bookkeeping:
# sample_data has 26 rows for each annotated image, 1.7 million in v1.0-train.
class _Row(msgspec.Struct, gc=False):
    token: str


class _Category(_Row, gc=False):
    name: str


class _Sample(_Row, gc=False):
    key_camera_token: str | None = None


class _SampleData(_Row, gc=False):
    """is_key_frame: None if the file doesn't say."""

    sample_token: str
    filename: str
    is_key_frame: bool | None


class _ObjectAnn(_Row, gc=False):
    """bbox: left, top, right, bottom in pixels, or None."""

    sample_data_token: str
    category_token: str
    bbox: tuple[float, float, float, float] | None


Row = TypeVar("Row", bound=_Row)


def load_nuimages(folder: Path, image_root: Path) -> Annotations:
    """Load the annotated keyframes, sorted by id (the token of their sample_data), with classes sorted by name.

    folder: the tables of one version, such as v1.0-train. image_root: what file names are relative to. Boxes are amodal
    (they include occluded parts) and cut at the image's edge. A surface is a class only if an object is annotated as
    one. Categories with the same readable name are one class. Schema: nuscenes-devkit, docs/schema_nuimages.md. Rows
    that can't be used are listed in `skipped`; a label whose box can't be used is kept without it. Raises ValueError,
    naming the file, if a table is missing or no JSON list, or if no image can be used.
    """
    skipped: list[SkippedEntry] = []
    objects = _read_table(folder / "object_ann.json", _ObjectAnn, _mend_object, skipped)
    categories = _read_table(folder / "category.json", _Category, _mend_category, skipped)
    frames = _read_keyframes(folder, skipped)
    paths = _find_images(frames, image_root, skipped)
    name_of, synonyms = _name_categories(categories, {a.category_token for a in objects.values}, skipped)
    row = {frames.values[k].token: r for r, k in enumerate(paths)}
    left_out = {
        "image": frames.lost.union(frame.token for frame in frames.values),
        "category": categories.lost.union(category.token for category in categories.values),
    }
    labelled: list[LabelledObject] = []
    for k, a in enumerate(objects.values):
        if a.sample_data_token not in row:
            known = a.sample_data_token in left_out["image"]
            reason = "its image is left out" if known else "sample_data_token of no keyframe image"
            skipped.append(objects.skip(k, reason, a.sample_data_token))
        elif a.category_token not in name_of:
            known = a.category_token in left_out["category"]
            reason = "its category is left out" if known else "unknown category_token"
            skipped.append(objects.skip(k, reason, a.category_token))
        else:
            box = a.bbox
            if box is not None and (problem := box_problem(box)):
                skipped.append(objects.skip(k, problem, list(box), used_in_part=True))
                box = None
            labelled.append((row[a.sample_data_token], name_of[a.category_token], box))
    found = annotations_of_objects(
        tuple(row), tuple(paths.values()), labelled, tuple(synonyms), tuple(synonyms.values())
    )
    return replace(found, skipped=tuple(skipped))


def _name_categories(
    categories: Entries[_Category], used: set[str], skipped: list[SkippedEntry]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """The class name of each category by its token, and the synonyms of each class, sorted. used: tokens of objects."""
    name_of: dict[str, str] = {}
    synonyms: dict[str, tuple[str, ...]] = {}
    for k, category in enumerate(categories.values):
        if is_background(category.name) and category.token not in used:
            continue
        name, others = readable_names(category.name)
        if not name.strip():
            skipped.append(categories.skip(k, "no name", category.name))
        elif name_of.setdefault(category.token, name) != name:
            skipped.append(categories.skip(k, "token occurs twice", category.name))
        else:
            synonyms[name] = tuple(dict.fromkeys((*synonyms.get(name, ()), *others)))
    return name_of, dict(sorted(synonyms.items()))


def _read_keyframes(folder: Path, skipped: list[SkippedEntry]) -> Entries[_SampleData]:
    """The image that each sample names, otherwise all images among its keyframes (the lidar has a keyframe, too)."""
    samples = _read_table(folder / "sample.json", _Sample, _mend_sample, skipped)
    rows = _read_table(folder / "sample_data.json", _SampleData, _mend_sample_data, skipped)
    sample_of = {frame.token: frame.sample_token for frame in rows.values}
    key_of: dict[str, str] = {}
    for k, sample in enumerate(samples.values):
        if not sample.key_camera_token:
            continue
        if sample_of.get(sample.key_camera_token) == sample.token:
            key_of.setdefault(sample.token, sample.key_camera_token)
        else:
            reason = "key_camera_token of no image of the sample"
            skipped.append(samples.skip(k, reason, sample.key_camera_token, used_in_part=True))
    kept: list[int] = []
    for k, frame in enumerate(rows.values):
        key = key_of.get(frame.sample_token)
        if key is not None:
            is_used = frame.token == key
        elif Path(frame.filename).suffix.lower() not in picture_suffixes():
            is_used = False
        elif frame.is_key_frame is None:
            # Keyframes are in the folder samples, other frames in sweeps.
            is_used = frame.filename.replace("\\", "/").startswith("samples/")
        else:
            is_used = frame.is_key_frame
        if is_used:
            kept.append(k)
    return replace(rows, values=[rows.values[k] for k in kept], positions=[rows.positions[k] for k in kept])


def _find_images(frames: Entries[_SampleData], image_root: Path, skipped: list[SkippedEntry]) -> dict[int, Path]:
    """The path of each frame that can be used, by its position in `frames`, sorted by token."""
    names = FileNames(image_root)
    paths: dict[int, Path] = {}
    first: dict[str, int] = {}
    for k, frame in enumerate(frames.values):
        try:
            path = names.resolve(frame.filename)
        except UnusableEntry as error:
            skipped.append(frames.skip(k, error.reason, error.value))
            continue
        other = first.setdefault(frame.token, k)
        if other == k:
            paths[k] = path
        elif frames.values[other].filename != frame.filename:
            skipped.append(frames.skip(k, "token occurs twice", frame.filename))
    if frames.values and not paths:
        raise none_usable(frames.file, f"{len(frames.values)} keyframe images", skipped)
    order = sorted(paths, key=lambda k: frames.values[k].token)
    return {k: paths[k] for k in order}


def _read_table(
    file: Path, schema: type[Row], mend: Callable[[Fields, Notes], Iterator[Row]], skipped: list[SkippedEntry]
) -> Entries[Row]:
    kind = EntryKind(file.stem, file.stem, schema, mend, "token")
    expected = "a table of a version of nuImages, such as v1.0-train"
    content = read_json(file, list[schema], expected)  # type: ignore[valid-type]
    if not isinstance(content, Undecoded):
        return Entries(file, kind, content, range(len(content)))
    rows = content.entries()
    if rows is None:
        raise ValueError(f"{file}: is not {expected}, but an object or a single value")
    return read_entries(file, rows, kind, skipped)


def _mend_category(fields: Fields, notes: Notes) -> Iterator[_Category]:
    yield _Category(_token(fields, "token"), read_text(fields, "name"))


def _mend_sample(fields: Fields, notes: Notes) -> Iterator[_Sample]:
    key = fields.get("key_camera_token")
    if key is not None and not isinstance(key, int | str):
        notes.append(("key_camera_token is no text", key))
        key = None
    yield _Sample(_token(fields, "token"), None if key is None else str(key))


def _mend_sample_data(fields: Fields, notes: Notes) -> Iterator[_SampleData]:
    token, is_key_frame = _token(fields, "token"), fields.get("is_key_frame")
    if is_key_frame is not None and is_key_frame not in (0, 1):
        notes.append(("is_key_frame is not true or false", is_key_frame))
        is_key_frame = None
    # A frame whose sample is unknown may still say that it is a keyframe.
    sample = fields.get("sample_token")
    name = read_text(fields, "filename")
    yield _SampleData(token, str(sample), name, None if is_key_frame is None else bool(is_key_frame))


def _mend_object(fields: Fields, notes: Notes) -> Iterator[_ObjectAnn]:
    try:
        box = read_box(fields.get("bbox"))
    except UnusableEntry as error:
        notes.append((error.reason, error.value))
        box = None
    token = fields.get("token")
    # The token of an object is used in messages only.
    yield _ObjectAnn(str(token), _token(fields, "sample_data_token"), _token(fields, "category_token"), box)


def _token(fields: Fields, field: str) -> str:
    return str(read_id(fields, field))
