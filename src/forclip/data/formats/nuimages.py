"""nuImages: the annotated keyframes of one version, from its relational tables of JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from forclip.data.formats.common import LabelledObject, annotations_of_objects, check_corners, path_inside
from forclip.data.formats.json_file import JsonFormat, read_json
from forclip.data.images.picture_types import picture_suffixes
from forclip.types import Annotations

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
    sample_token: str
    filename: str
    is_key_frame: bool


class _ObjectAnn(_Row, gc=False):
    sample_data_token: str
    category_token: str
    bbox: tuple[float, float, float, float]


Row = TypeVar("Row", bound=_Row)
Value = TypeVar("Value")


def load_nuimages(folder: Path, image_root: Path) -> Annotations:
    """Load the annotated keyframes, sorted by id (the token of their sample_data), with classes sorted by name.

    folder: the tables of one version, such as v1.0-train. image_root: what file names are relative to. Boxes are amodal
    (they include occluded parts) and cut at the image's edge. A surface is a class only if an object is annotated as
    one. Schema: nuscenes-devkit, docs/schema_nuimages.md. Raises ValueError, naming the file and the entry, for a
    missing or malformed table, a repeated or unknown token, a box that is not four finite corners in order, two
    categories with the same readable name, or a file name that leaves image_root.
    """
    file, sample_data = folder / "object_ann.json", folder / "sample_data.json"
    frames = sorted(_read_keyframes(folder), key=lambda frame: frame.token)
    annotations = _read_table(file, list[_ObjectAnn])
    used, categories = {a.category_token for a in annotations}, folder / "category.json"
    classes: dict[str, _Category] = {}  # by readable name
    for category in _read_table(categories, list[_Category]):
        if is_background(category.name) and category.token not in used:
            continue
        name, _ = readable_names(category.name)
        if not name.strip():
            raise ValueError(f"{categories}: category {category.token} has no name, but {category.name!r}")
        if name in classes:
            both = f"{classes[name].name!r} and {category.name!r}"
            raise ValueError(f"{categories}: categories {both} are both called {name!r}")
        classes[name] = category
    name_of = {category.token: name for name, category in classes.items()}
    row = {frame.token: k for k, frame in enumerate(frames)}
    objects: list[LabelledObject] = []
    for a in annotations:
        check_corners(a.bbox, f"{file}: object_ann {a.token}")
        image = _find(file, a, "sample_data_token", row, "keyframe image")
        objects.append((image, _find(file, a, "category_token", name_of, "category"), a.bbox))
    return annotations_of_objects(
        [frame.token for frame in frames],
        [path_inside(image_root, f.filename, f"{sample_data}: sample_data {f.token}") for f in frames],
        objects,
        sorted(classes),
        tuple(readable_names(category.name)[1] for _, category in sorted(classes.items())),
    )


def _read_table(file: Path, schema: type[list[Row]]) -> list[Row]:
    kind = JsonFormat(
        name="a table of a version of nuImages, such as v1.0-train",
        id_field="token",
        nouns={None: file.stem},
        expected={"is_key_frame": "true or false", "bbox": "xmin, ymin, xmax, ymax"},
    )
    rows = read_json(file, schema, kind)
    kind.check_unique(file, None, (row.token for row in rows))
    return rows


def _read_keyframes(folder: Path) -> list[_SampleData]:
    """The image that each sample names, otherwise all images among its keyframes (the lidar has a keyframe, too)."""
    file = folder / "sample_data.json"
    key_of = {sample.token: sample.key_camera_token for sample in _read_table(folder / "sample.json", list[_Sample])}
    frames: list[_SampleData] = []
    for frame in _read_table(file, list[_SampleData]):
        key = _find(file, frame, "sample_token", key_of, "sample")
        is_image = Path(frame.filename).suffix.lower() in picture_suffixes()
        if frame.token == key or (not key and frame.is_key_frame and is_image):
            frames.append(frame)
    own_frames = {(frame.sample_token, frame.token) for frame in frames}
    for sample, key in key_of.items():
        if key and (sample, key) not in own_frames:
            message = f"sample {sample} names key_camera_token {key!r}, which is no sample_data of it"
            raise ValueError(f"{folder / 'sample.json'}: {message}")
    return frames


def _find(file: Path, entry: _Row, field: str, value_of: Mapping[str, Value], noun: str) -> Value:
    """The value of the token in a field of an entry."""
    token = getattr(entry, field)
    if token not in value_of:
        raise ValueError(f"{file}: {file.stem} {entry.token} names {field} {token!r}, which is no {noun}")
    return value_of[token]
