"""nuImages: the annotated keyframes of one version, from its relational tables of JSON."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from forclip.data.folder import IMAGE_SUFFIXES
from forclip.data.inside import inside
from forclip.data.nuimages_names import is_background, readable
from forclip.types import Annotations


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
    annotations = _read_table(folder / "object_ann.json", msgspec.json.Decoder(list[_ObjectAnn]))
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


def _read_table(file: Path, decoder: msgspec.json.Decoder[list[Row]]) -> list[Row]:
    try:
        rows = decoder.decode(file.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{file}: no such table; is its folder one version of nuImages, such as v1.0-train?") from None
    except msgspec.ValidationError as error:
        raise ValueError(f"{file}: not as nuImages' schema says: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as JSON: {error}") from None
    repeated = _first_repeated(row.token for row in rows)
    if repeated is not None:
        raise ValueError(f"{file}: token {repeated!r} is there twice")
    return rows


def _keyframes(folder: Path) -> list[_SampleData]:
    """The one annotated image of each sample: that which the sample names, or else its camera images of the keyframe.

    The lidar has a keyframe too, so `is_key_frame` alone is not enough.
    """
    file = folder / "sample_data.json"
    samples = _read_table(folder / "sample.json", msgspec.json.Decoder(list[_Sample]))
    named = {sample.token: sample.key_camera_token for sample in samples}
    frames: list[_SampleData] = []
    for frame in _read_table(file, msgspec.json.Decoder(list[_SampleData])):
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
    categories = _read_table(file, msgspec.json.Decoder(list[_Category]))
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


def _first_repeated(tokens: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for token in tokens:
        if token in seen:
            return token
        seen.add(token)
    return None
