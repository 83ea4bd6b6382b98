"""Select images, and write them as COCO JSON, CSV, FiftyOne folder or file list."""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from forclip.atomic_write import created_folders
from forclip.data.images.decode import fetch, read_image
from forclip.data.images.frame_location import split_frame
from forclip.index.protocol import SearchIndex
from forclip.location import Location, absolute, location_text, parse_location, without_range
from forclip.path_text import path_to_text
from forclip.search.request import SearchRequest, run_search
from forclip.search.searcher import AnySearcher
from forclip.types import Floats

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Item:
    """One image of a selection.

    width, height: in pixels of the upright image; box: xyxy as fractions of them; score: a cosine; present: the user's
    verdict on whether the image shows the label; own: the user's columns by name; name: the file's name in the export,
    None for that of the path.
    """

    image_id: str
    path: Location
    width: int
    height: int
    score: float | None = None
    probability: float | None = None
    box: Box | None = None
    present: bool | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None

    @property
    def pixel_box(self) -> Box | None:
        """The box as x, y, width, height in pixels, clipped to the image. Raises ValueError for an unknown size."""
        if self.box is None:
            return None
        if not (self.width > 0 and self.height > 0):
            raise ValueError(f"{self.image_id}: the store does not know its size in pixels: index it again")
        x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in self.box)
        x, y = round(x0 * self.width, 2), round(y0 * self.height, 2)
        return x, y, round(x1 * self.width - x, 2), round(y1 * self.height - y, 2)


@dataclass(frozen=True)
class Selection:
    """Images to export.

    label: what the images show, empty where unknown. root: the folder that file names are relative to; None: names are
    absolute. Raises ValueError for an image outside the root.
    """

    items: tuple[Item, ...]
    label: str = ""
    root: Location | None = None

    def __post_init__(self) -> None:
        for item in self.items:
            self.name_of(item)

    def name_of(self, item: Item) -> str:
        """The image's file name in the export, with / as separator and escapes for bytes that are not UTF-8."""
        if item.name is not None:
            return item.name
        name = without_range(location_text(absolute(item.path))).replace(os.sep, "/")
        if self.root is None:
            return name
        root = location_text(absolute(self.root)).replace(os.sep, "/").rstrip("/")
        if not name.startswith(f"{root}/"):
            raise ValueError(f"{name}: is not inside the root {root}")
        return name.removeprefix(f"{root}/")


def select_search(
    searcher: AnySearcher, request: SearchRequest, label: str | None = None, root: Location | None = None
) -> Selection:
    """Select the results of a search. label: None for the request in one line."""
    answer = run_search(searcher, request)
    rows = {r.image_id: {"score": r.score, "probability": answer.probability(r), "box": r.box} for r in answer.results}
    return Selection(_items(searcher.index, rows), request.label if label is None else label, root)


def select_ids(
    index: SearchIndex,
    image_ids: Sequence[str],
    label: str = "",
    root: Location | None = None,
    query: Floats | None = None,
) -> Selection:
    """Select images by id or path, each once. Raises ValueError for an image that is not stored.

    query: a text's unit vector [dim]; the images are then sorted best first, with the score and box that it gives each.
    """
    image_ids = index.store.ids_of(image_ids)
    items = _items(index, {i: {} for i in image_ids})
    if query is not None:
        results = index.search_among(image_ids, query)
        items = _items(index, {r.image_id: {"score": r.score, "box": r.box} for r in results})
    return Selection(items, label, root)


def _items(index: SearchIndex, fields: Mapping[str, Mapping[str, Any]]) -> tuple[Item, ...]:
    """Items in the given order. fields: other fields of Item by image id. Raises ValueError for an unknown image."""
    files = index.store.files(list(fields))
    if missing := [image_id for image_id in fields if image_id not in files]:
        raise ValueError(f"{index.name}: has no image {missing[0]!r}")
    paths = {i: parse_location(index.store.resolve(file.uri)) for i, file in files.items()}
    return tuple(Item(i, paths[i], files[i].width, files[i].height, **others) for i, others in fields.items())


def write_coco(selection: Selection, to: Path) -> None:
    """Write a COCO instances file (cocodataset.org/#format-data): boxes are suggestions, each with its score.

    Boxes, width and height refer to the upright images. Ids count from 1 in the selection's order. `score` is the
    cosine; `probability` is present where it is known.
    """
    category = [{"id": 1, "name": selection.label, "supercategory": ""}] if selection.label else []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, item in enumerate(selection.items, start=1):
        name = selection.name_of(item)
        images.append({"id": number, "file_name": name, "width": item.width, "height": item.height})
        if category and (box := item.pixel_box) is not None:
            ids = {"id": len(annotations) + 1, "image_id": number, "category_id": 1}
            area = round(box[2] * box[3], 2)
            annotations.append({**ids, "bbox": list(box), "area": area, "iscrowd": 0, "score": item.score})
            if item.probability is not None:
                annotations[-1]["probability"] = item.probability
    root = "" if selection.root is None else location_text(selection.root)
    frame = "Boxes, width and height refer to upright images: EXIF orientation is applied."
    description = f"forclip: boxes are suggestions, not checked by a person. {frame}"
    info = {"description": description, "image_folder": root, "box_frame": "upright"}
    content = {"info": info, "images": images, "annotations": annotations, "categories": category}
    to.write_text(json.dumps(content, indent=1), encoding="utf-8")


COLUMNS = ("image", "label", "present", "rank", "score", "probability", "x", "y", "width", "height", "id")
# A spreadsheet runs a cell that starts like this as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(selection: Selection, to: Path) -> None:
    """Write a UTF-8 CSV file to review: fill `present` with 1 or 0 where it is empty.

    x, y, width, height are the suggested box in pixels of the upright image. The user's own columns follow. Text that a
    spreadsheet would run as a formula gets a leading apostrophe, a relative file name a leading `./`.
    """
    own = list(dict.fromkeys(name for item in selection.items for name in item.own))
    with to.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        # A user column with the name of one of ours would replace it wherever the file is read.
        writer.writerow([*COLUMNS, *(_harmless(f"own.{name}" if name in COLUMNS else name) for name in own)])
        for rank, item in enumerate(selection.items, start=1):
            name = selection.name_of(item)
            image = f"./{name}" if name.startswith(_FORMULA) else name
            present = "" if item.present is None else int(item.present)
            scores = ["" if n is None else f"{n:.4f}" for n in (item.score, item.probability)]
            cells = [image, _harmless(selection.label), present, rank, *scores, *(item.pixel_box or ("",) * 4)]
            writer.writerow([*cells, *map(_harmless, (item.image_id, *(item.own.get(name) for name in own)))])


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


_UNSAFE = re.compile(r'[\x00-\x1f\\/:*?"<>|]')  # in file names, on some system


def copy_picture(item: Item, to: Path) -> None:
    """Copy an item's picture file, or write a video's frame. Raises ValueError where that fails, naming the file."""
    if split_frame(item.path):
        read_image(item.path).save(to, "JPEG", quality=95)
        return
    try:
        if isinstance(item.path, Path):
            shutil.copyfile(item.path, to)
        else:
            to.write_bytes(fetch(item.path))
    except OSError as error:
        raise ValueError(f"{item.path}: can't be copied: {error.strerror}") from None


def exported_name(rank: int, path: Location) -> tuple[str, str]:
    """The name and the ending of a copied picture. A video's frame becomes a JPEG with the time in its name."""
    if frame := split_frame(path):
        stem, suffix = f"{os.path.splitext(frame[0].name)[0]}_{frame[1]:.3f}s".replace(".", "-"), ".jpg"
    else:
        stem, suffix = os.path.splitext(path.name)
    # Two folders may hold the same name.
    return f"{rank:06d}_{_UNSAFE.sub('_', path_to_text(stem))}", _UNSAFE.sub("_", path_to_text(suffix))


def write_frames(selection: Selection, to: Path, copy: Callable[[Item, Path], None] = copy_picture) -> list[str]:
    """Write the frames of videos among a selection's images to a folder.

    Returns the file name of each image there, empty for images that have a file of their own.
    """
    names = []
    for rank, item in enumerate(selection.items, start=1):
        names.append("".join(exported_name(rank, item.path)) if split_frame(item.path) else "")
        if names[-1]:
            to.mkdir(parents=True, exist_ok=True)
            copy(item, to / names[-1])
    return names


def write_fiftyone(selection: Selection, to: Path, copy: Callable[[Item, Path], None] = copy_picture) -> None:
    """Write a folder that FiftyOne imports (FiftyOneImageDetectionDataset): `data/` and `labels.json`, written last.

    The layout follows docs.voxel51.com, "Importing data": `classes`, and under `labels` for each file of `data/`, by
    its name without the ending, detections with `label`, `bounding_box` (x, y, width, height as fractions of the
    upright image), `confidence` and `attributes`. copy: copies one picture; its errors are passed on.
    """
    data = to / "data"
    data.mkdir(parents=True)
    labels: dict[str, Any] = {}
    for rank, item in enumerate(selection.items, start=1):
        name, suffix = exported_name(rank, item.path)
        copy(item, data / f"{name}{suffix}")
        labels[name] = None
        if selection.label and item.box is not None:
            x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in item.box)
            box, confidence = [x0, y0, x1 - x0, y1 - y0], item.score if item.probability is None else item.probability
            attributes = {"score": item.score, "image_id": item.image_id}  # `id` is FiftyOne's own
            detection = {"label": 0, "bounding_box": box, "confidence": confidence, "attributes": attributes}
            labels[name] = [detection]  # the label is the position in `classes`
    content = {"classes": [selection.label] if selection.label else [], "labels": labels}
    (to / "labels.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def write_files(selection: Selection, to: Path) -> None:
    """Write a list of file names, one per line. Raises ValueError for a name that contains a line break."""
    names = [selection.name_of(item) for item in selection.items]
    if broken := [name for name in names if "\n" in name or "\r" in name]:
        raise ValueError(f"{broken[0]!r}: a file list cannot hold a name with a line break")
    to.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


Writer = Callable[[Selection, Path], None]
FORMATS: dict[str, Writer] = {"coco": write_coco, "csv": write_csv, "fiftyone": write_fiftyone, "files": write_files}


def frames_folder(to: Path) -> Path:
    """Where an export puts the frames of videos: next to it."""
    return to.with_name(f"{to.stem}_frames")


def export(selection: Selection, format: str, to: Path) -> None:
    """Write a selection in a format of FORMATS. An export that fails leaves nothing at the target.

    Frames of videos become JPEG files in the folder `frames_folder(to)`, which the export names; in FiftyOne's format
    they are among the other pictures.

    Raises:
        ValueError: for an unknown format, a target that exists already (it may hold someone's work), an empty
            selection, and as the format's writer does.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; known formats: {', '.join(FORMATS)}")
    if to.exists():
        raise ValueError(f"{to}: exists already; choose another name")
    if not selection.items:
        raise ValueError(f"nothing to export: no image matches {selection.label!r}")
    try:
        with created_folders(to.parent), TemporaryDirectory(prefix=".", dir=to.parent) as folder:
            written, frames, frames_to = Path(folder) / to.name, Path(folder) / "frames", frames_folder(to)
            if format != "fiftyone" and any(split_frame(item.path) for item in selection.items):
                if frames_to.exists():
                    raise ValueError(f"{frames_to}: exists already; choose another name for the export")
                names = write_frames(selection, frames)
                named = zip(selection.items, names, strict=True)
                items = tuple(replace(i, path=frames_to / name) if name else i for i, name in named)
                selection = replace(selection, items=items)
            FORMATS[format](selection, written)
            if frames.exists():
                frames.rename(frames_to)
            written.rename(to)
    except OSError as error:
        raise ValueError(f"{to}: can't be written: {error.strerror or error}") from None
