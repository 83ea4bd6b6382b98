"""Write a selection of images for other tools: COCO JSON, CSV, CVAT, FiftyOne, Label Studio, YOLO or file list."""

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from forclip.atomic_write import created_folders
from forclip.data.images.frame_location import split_frame
from forclip.location import as_location, location_text
from forclip.search.export_cvat import write_cvat
from forclip.search.export_label_studio import write_label_studio
from forclip.search.export_pictures import CopyPicture, copy_picture, exported_name, stage_pictures, write_frames
from forclip.search.export_record import exported_ids, record_file, write_record
from forclip.search.export_split import PARTS, one_part, with_parts
from forclip.search.export_yolo import write_yolo
from forclip.search.selection import Selection
from forclip.upload import Named, written_to


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
    to.write_text(json.dumps(content), encoding="utf-8")


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


def write_fiftyone(selection: Selection, to: Path, copy: CopyPicture = copy_picture) -> None:
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
    (to / "labels.json").write_text(json.dumps(content), encoding="utf-8")


def write_files(selection: Selection, to: Path) -> None:
    """Write a list of file names, one per line. Raises ValueError for a name that contains a line break."""
    if broken := broken_names(selection):
        raise ValueError(next(iter(broken.values())))
    to.write_text("".join(f"{selection.name_of(item)}\n" for item in selection.items), encoding="utf-8")


def broken_names(selection: Selection) -> dict[str, str]:
    """Why a file list cannot hold some images, by image id."""
    names = ((item, selection.name_of(item)) for item in selection.items)
    broken = [item for item, name in names if "\n" in name or "\r" in name]
    return {i.image_id: f"{i.path.name!r}: a file list cannot hold a name with a line break" for i in broken}


Writer = Callable[[Selection, Path], None]
FORMATS: dict[str, Writer] = {
    "coco": write_coco,
    "csv": write_csv,
    "cvat": write_cvat,
    "fiftyone": write_fiftyone,
    "files": write_files,
    "labelstudio": write_label_studio,
    "yolo": write_yolo,
}
# Formats that copy the pictures to a folder. They take the copying function as a third argument.
FOLDER_WRITERS: dict[str, Callable[[Selection, Path, CopyPicture], None]] = {
    "cvat": write_cvat,
    "fiftyone": write_fiftyone,
    "yolo": write_yolo,
}
_SPLIT_INSIDE = ("cvat", "yolo")  # formats that hold both parts of a split in one file or folder


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    counts: the number of images by the file or folder that holds them, empty if no image is new. parts: by part, empty
    unless the export is split. frames: the folders with frames of videos. left_out: by image id why an image is not
    there: its picture can't be read, or the format cannot hold its name.
    """

    counts: Mapping[Path, int] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)
    frames: tuple[Path, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line, such as "12 images (10 train, 2 val): cat_train.json, cat_val.json"."""
        if not self.counts:
            return "no image is new"
        parts = ", ".join(f"{count} {part}" for part, count in self.parts.items())
        frames = "".join(f"; frames of videos: {folder}" for folder in self.frames)
        total, files = sum(self.counts.values()), ", ".join(map(str, self.counts))
        count = "1 image" if total == 1 else f"{total} images"
        left_out = f"; {len(self.left_out)} left out" if self.left_out else ""
        return f"{count}{f' ({parts})' if parts else ''}: {files}{frames}{left_out}"


def frames_folder(to: Path) -> Path:
    """Where an export puts the frames of videos: next to it."""
    return to.with_name(f"{to.stem}_frames")


def export(
    selection: Selection, format: str, to: str | Path, *, split: float | None = None, new: bool = False
) -> Exported:
    """Write a selection in a format of FORMATS. An export that fails leaves nothing at the target.

    An image whose picture is needed and can't be read is left out and named in the result, as is one whose name the
    format cannot hold.

    to: a file; for fiftyone and yolo a folder, for cvat a folder or a file that ends in .xml; a folder's name that ends
    in .zip makes a zip file. It may be in a bucket, as in s3://bucket/cat.json. split: the share of images to train on,
    such as 0.8; the others are to validate on. An image's part depends on its id alone. cvat and yolo hold both parts;
    other formats become two files, such as cat_train.json and cat_val.json, or two folders in the target.
    new: leave out images that earlier exports to this target hold; where it exists, the new ones go to cat-2.json and
    so on. A hidden file next to the target lists the ids of its images.

    Frames of videos become JPEG files in the folder `frames_folder(to)`, which the export names; in formats with
    pictures they are among these.

    Raises:
        ValueError: for an unknown format, a target that exists already (it may hold someone's work), an empty
            selection, a split that is not between 0 and 1, and as the format's writer does.
    """
    place = Path(to)
    with written_to(place, read=(record_file(place),)) as (target, named):
        written = _export(selection, format, target, split, new, named)
        counts = {named(path): count for path, count in written.counts.items()}
        return replace(written, counts=counts, frames=tuple(map(named, written.frames)))


def _export(selection: Selection, format: str, target: Path, split: float | None, new: bool, named: Named) -> Exported:
    """As `export`. named: what the path of a file that is written is called in the export."""
    to = target
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; known formats: {', '.join(FORMATS)}")
    if not selection.items:
        raise ValueError(f"nothing to export: no image matches {selection.label!r}")
    before: frozenset[str] = frozenset()
    if new:
        before = exported_ids(to)
        selection = replace(selection, items=tuple(i for i in selection.items if i.image_id not in before))
        if not selection.items:
            return Exported()
    if split is not None:
        selection = with_parts(selection, split)
    number = 1
    while new and any(path.exists() for path in (to, *_divide(selection, format, to))):
        number += 1
        to = target.with_name(f"{target.stem}-{number}{target.suffix}")
    divided = _divide(selection, format, to)
    for path in (to, *divided):
        if path.exists():
            raise ValueError(f"{path}: exists already; choose another name")
    left_out = broken_names(selection) if format == "files" else {}
    try:
        with created_folders(to.parent), TemporaryDirectory(prefix=".", dir=to.parent) as folder:
            needed = (item for item in selection.items if has_pictures(format, to) or split_frame(item.path))
            place, missing = stage_pictures(needed, Path(folder) / "pictures")
            (temporary := Path(folder) / "written").mkdir()
            left_out |= missing
            selection = selection.without(left_out)
            if not selection.items:
                raise ValueError(f"nothing to export: {next(iter(left_out.values()))}")
            divided = _divide(selection, format, to)
            moves: dict[Path, Path] = {}
            for path, part in divided.items():
                moves |= _write(part, format, path, temporary, place, named)
            if any(path.parent == to for path in divided):
                to.mkdir()
            record = Path(folder) / "record.json"
            write_record(record, before.union(item.image_id for item in selection.items))
            for written, path in moves.items():
                written.rename(path)
            record.replace(record_file(target))
    except OSError as error:
        raise ValueError(f"{to}: can't be written: {error.strerror or error}") from None
    counts = {path: len(part.items) for path, part in divided.items()}
    parts = {} if split is None else {part: len(one_part(selection, part).items) for part in PARTS}
    return Exported(counts, parts, tuple(path for path in moves.values() if path not in divided), left_out)


def has_pictures(format: str, to: Path) -> bool:
    """Whether an export to this target copies all pictures."""
    return format in FOLDER_WRITERS and not (format == "cvat" and to.suffix.lower() == ".xml")


def _divide(selection: Selection, format: str, to: Path) -> dict[Path, Selection]:
    """What each file or folder of an export holds."""
    parts = [part for part in PARTS if any(item.part == part for item in selection.items)]
    if not parts or format in _SPLIT_INSIDE:
        return {to: selection}
    if format in FOLDER_WRITERS and to.suffix != ".zip":
        return {to / part: one_part(selection, part) for part in parts}
    return {to.with_name(f"{to.stem}_{part}{to.suffix}"): one_part(selection, part) for part in parts}


def _write(
    selection: Selection, format: str, to: Path, folder: Path, place: CopyPicture, named: Named
) -> dict[Path, Path]:
    """Write one file or folder, and the frames of its videos, below a temporary folder. Returns where each belongs.

    place: moves the picture of an item to its place.
    """
    written, moves = folder / to.name, {}
    if not has_pictures(format, to) and any(split_frame(item.path) for item in selection.items):
        frames, frames_to = folder / f"{to.name}_frames", frames_folder(to)
        if frames_to.exists():
            raise ValueError(f"{frames_to}: exists already; choose another name for the export")
        pairs = zip(selection.items, write_frames(selection, frames, place), strict=True)
        items = tuple(replace(i, path=as_location(named(frames_to / name))) if name else i for i, name in pairs)
        selection, moves = replace(selection, items=items), {frames: frames_to}
    if not has_pictures(format, to):
        FORMATS[format](selection, written)
    elif to.suffix == ".zip":
        FOLDER_WRITERS[format](selection, folder / to.stem, place)
        shutil.make_archive(str(written.with_suffix("")), "zip", folder / to.stem)
    else:
        FOLDER_WRITERS[format](selection, written, place)
    return {**moves, written: to}
