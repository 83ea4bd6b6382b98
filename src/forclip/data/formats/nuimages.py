"""nuImages: the annotated keyframes of one version, from its relational tables of JSON."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from forclip.data.formats.folder import IMAGE_SUFFIXES
from forclip.data.formats.json_file import EntriesOf, entry_at, read_json, shown
from forclip.data.formats.paths import inside
from forclip.types import Annotations

# The name, then other names. Where a category is a collection, some of what the annotators' instructions list as part
# of it (nuscenes-devkit, docs/instructions_nuscenes.md). The names are ours; the taxonomy is nuImages' 23 object
# categories and its 2 surfaces, and what nuScenes adds to them for lidar.
READABLE: dict[str, tuple[str, ...]] = {
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

# Which classes count as rare is not our choice: the nuScenes detection benchmark says of the same 23 classes that "some
# of these only have a handful of samples" and removes nine as rare (nuscenes-devkit,
# python-sdk/nuscenes/eval/detection/README.md, the rows "void / ignore"). That they are the novel ones here is ours:
# no split of nuImages into base and novel classes is known to us, the FOR paper's among them. We have not seen
# nuImages' own counts, and the benchmark judged by nuScenes'; with the data at hand, a rule on counts can replace this.
_REMOVED_AS_RARE = (
    "animal",
    "human.pedestrian.personal_mobility",
    "human.pedestrian.stroller",
    "human.pedestrian.wheelchair",
    "movable_object.debris",
    "movable_object.pushable_pullable",
    "static_object.bicycle_rack",
    "vehicle.emergency.ambulance",
    "vehicle.emergency.police",
)
NUIMAGES_NOVEL: tuple[str, ...] = tuple(READABLE[dotted][0] for dotted in _REMOVED_AS_RARE)


def readable(dotted: str) -> tuple[str, tuple[str, ...]]:
    """A category's name and its other names.

    One we don't know is called by its last part, its parents as a hint: `vehicle.emergency.fire_truck` becomes
    `fire truck`, also `fire truck (emergency vehicle)`.
    """
    if dotted in READABLE:
        name, *others = READABLE[dotted]
        return name, tuple(others)
    *parents, name = dotted.replace("_", " ").split(".")
    return name, (f"{name} ({' '.join(reversed(parents))})",) if parents else ()


def is_background(dotted: str) -> bool:
    """Whether a category names a surface or the like, of which there are masks but no boxes."""
    return dotted in ("noise", "vehicle.ego") or dotted.startswith(("flat.", "static."))


# The columns that are needed; all others, masks among them, are skipped unread. Without the garbage collector's
# bookkeeping, because sample_data has 26 rows for each annotated image: 1.7 million in v1.0-train.
class _Row(msgspec.Struct, gc=False):
    token: str


class _Category(_Row, gc=False):
    name: str


class _Sample(_Row, gc=False):
    key_camera_token: str | None = None


class _SampleData(_Row, gc=False):
    sample_token: str
    filename: str
    is_key_frame: bool


class _ObjectAnn(_Row, gc=False):
    sample_data_token: str
    category_token: str
    bbox: tuple[float, float, float, float]


Row = TypeVar("Row", bound=_Row)

_EXPECTED = {"is_key_frame": "true or false", "bbox": "xmin, ymin, xmax, ymax"}


def load_nuimages(folder: Path, image_root: Path) -> Annotations:
    """Images sorted by id, which is the token of their sample_data; classes by readable name, with synonyms.

    folder: one version's tables, such as v1.0-train; image_root: what file names are relative to. Only keyframes are
    annotated, so the sweeps before and after them are left out, and so are the lidar's. Boxes are amodal where an
    object is occluded, cut at the image's edge. Surfaces are no classes unless an object is annotated as one.
    After nuscenes-devkit, docs/schema_nuimages.md. Raises ValueError, naming the file and the entry, for a table that
    is missing or malformed, a token that refers to nothing, a box that is none, two categories with one readable name,
    or a file name that leaves image_root.
    """
    frames = sorted(_keyframes(folder), key=lambda frame: frame.token)
    annotations = _read_table(folder / "object_ann.json", list[_ObjectAnn])
    categories = _classes(folder / "category.json", {a.category_token for a in annotations})
    row = {frame.token: k for k, frame in enumerate(frames)}
    column = {category.token: k for k, category in enumerate(categories)}
    owners = [_owner(folder / "object_ann.json", a, row, column) for a in annotations]
    pairs = np.array(owners, np.int64).reshape(-1, 2)
    labels = np.zeros((len(frames), len(categories)), bool)
    labels[pairs[:, 0], pairs[:, 1]] = True
    entries = folder / "sample_data.json"
    return Annotations(
        image_ids=tuple(frame.token for frame in frames),
        paths=tuple(inside(image_root, f.filename, entries, f"sample_data {f.token}") for f in frames),
        class_names=tuple(readable(c.name)[0] for c in categories),
        labels=labels,
        boxes=np.array([a.bbox for a in annotations], np.float32).reshape(-1, 4),
        box_images=pairs[:, 0],
        box_classes=pairs[:, 1],
        synonyms=tuple(readable(c.name)[1] for c in categories),
    )


def _read_table(file: Path, table: type[list[Row]]) -> list[Row]:
    missing = "no such table; is its folder one version of nuImages, such as v1.0-train?"
    rows = read_json(file, table, missing, partial(_mistyped, file))
    first: dict[str, int] = {}
    for position, found in enumerate(rows):
        if first.setdefault(found.token, position) != position:
            entries = f"entries {first[found.token]} and {position}"
            raise ValueError(f"{file}: token {found.token!r} is there twice, in {entries}")
    return rows


def _mistyped(file: Path, error: str, entries_of: EntriesOf) -> ValueError:
    """msgspec says what it expected where, such as `$[7].bbox[2]`; we add whose it is and what is there."""
    place = re.search(r"at `\$\[(\d+)\](?:\.(\w+))?", error)
    if place is None:
        return ValueError(f"{file}: no table of nuImages is like this: {error}")
    position = int(place[1])
    row = entry_at(entries_of(None), position)
    if row is None:
        return ValueError(f"{file}: entry {position} can't be used: {error}")
    if not isinstance(row, Mapping):
        return ValueError(f"{file}: entry {position} is no object: {shown(row)}")
    missing = re.search(r"missing required field `(\w+)`", error)
    field = missing[1] if missing else place[2]
    if field == "token":
        return ValueError(f"{file}: entry {position} has no token of text: {shown(row)}")
    named = f"{file}: {file.stem} {shown(row.get('token'))} (entry {position})"
    if field not in row:
        return ValueError(f"{named} has no {field}")
    return ValueError(f"{named} has the {field} {shown(row[field])}, not {_EXPECTED.get(field, 'a text')}")


def _keyframes(folder: Path) -> list[_SampleData]:
    """The one annotated image of each sample: that which the sample names, or else its camera images of the keyframe.

    The lidar has a keyframe too, so `is_key_frame` alone is not enough.
    """
    file = folder / "sample_data.json"
    samples = _read_table(folder / "sample.json", list[_Sample])
    named = {sample.token: sample.key_camera_token for sample in samples}
    frames: list[_SampleData] = []
    for frame in _read_table(file, list[_SampleData]):
        if frame.sample_token not in named:
            raise ValueError(
                f"{file}: sample_data {frame.token} names sample_token {frame.sample_token!r}, which is not there"
            )
        key = named[frame.sample_token]
        if frame.token == key or (not key and frame.is_key_frame and _is_image(frame)):
            frames.append(frame)
    sample_of = {frame.token: frame.sample_token for frame in frames}
    for sample in samples:
        if sample.key_camera_token and sample_of.get(sample.key_camera_token) != sample.token:
            raise ValueError(
                f"{folder / 'sample.json'}: sample {sample.token} names key_camera_token {sample.key_camera_token!r}, "
                "which is no sample_data of it"
            )
    return frames


def _is_image(frame: _SampleData) -> bool:
    return Path(frame.filename).suffix.lower() in IMAGE_SUFFIXES


def _classes(file: Path, used: set[str]) -> list[_Category]:
    """The categories that are classes, sorted by readable name. used: the tokens that an object is annotated with."""
    categories = _read_table(file, list[_Category])
    kept: dict[str, _Category] = {}
    for category in categories:
        if is_background(category.name) and category.token not in used:
            continue
        name, _ = readable(category.name)
        if not name.strip():
            raise ValueError(f"{file}: category {category.token} has no name, but {category.name!r}")
        if name in kept:
            raise ValueError(f"{file}: categories {kept[name].name!r} and {category.name!r} are both called {name!r}")
        kept[name] = category
    return [kept[name] for name in sorted(kept)]


def _owner(file: Path, annotation: _ObjectAnn, row: dict[str, int], column: dict[str, int]) -> tuple[int, int]:
    """The row and column of labels. Raises ValueError for an unknown token, and for a box that is none."""
    if annotation.sample_data_token not in row:
        raise ValueError(
            f"{file}: object_ann {annotation.token} names sample_data_token {annotation.sample_data_token!r}, "
            "which is no keyframe image"
        )
    if annotation.category_token not in column:
        raise ValueError(
            f"{file}: object_ann {annotation.token} names category_token {annotation.category_token!r}, "
            "which is not there"
        )
    left, top, right, bottom = annotation.bbox
    # No picture is as large as the bound.
    if right < left or bottom < top or not all(abs(v) < 1e9 for v in annotation.bbox):
        raise ValueError(
            f"{file}: object_ann {annotation.token} has the box {list(annotation.bbox)}, not xmin, ymin, xmax, ymax"
        )
    return row[annotation.sample_data_token], column[annotation.category_token]
