"""Image-level labels in a CSV file: a spreadsheet of which image shows what, without boxes."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import numpy as np

from forclip.data.formats.paths import inside
from forclip.types import Annotations

_YES_NO = {"1": True, "true": True, "0": False, "false": False}


def load_csv(file: Path, image_folder: Path) -> Annotations:
    """Images sorted by id, classes by name. No boxes.

    The header names the columns; others than these are ignored. image: a path relative to image_folder, on as many
    rows as it takes; label: one class, or nothing; or labels: any number, separated by | or ;. id: the image's id,
    else its path. present: 1, true, 0 or false. With it the labels are federated: only the pairs that are listed are
    verified; without it all others are verified absences.
    UTF-8, with or without a byte order mark. Raises ValueError, naming the file and the line, for a file that is
    missing or malformed, a header without these columns, an id of two images or an image with two ids, a pair that is
    both present and absent, or an image path that leaves the folder.
    """
    table = _Table()
    header, rows = read_table(file)
    for number, cells in rows:
        _add(table, file, number, dict(zip(header, cells, strict=True)), image_folder)
    if not table.paths:
        raise ValueError(f"{file}: lists no image")
    ids = sorted(table.paths)
    names = sorted({label for _, label in table.present})
    row = {image_id: k for k, image_id in enumerate(ids)}
    column = {name: k for k, name in enumerate(names)}
    labels = np.zeros((len(ids), len(names)), bool)
    verified = np.zeros_like(labels)
    for (image_id, label), present in table.present.items():
        labels[row[image_id], column[label]] = present
        verified[row[image_id], column[label]] = True
    return Annotations(
        image_ids=tuple(ids),
        paths=tuple(table.paths[i] for i in ids),
        class_names=tuple(names),
        labels=labels,
        boxes=np.zeros((0, 4), np.float32),
        box_images=np.zeros(0, np.int64),
        box_classes=np.zeros(0, np.int64),
        verified=verified if "present" in header else None,
    )


@dataclass
class _Table:
    """What was read so far: paths by image id, ids by path, and whether an image shows a class, by id and name."""

    paths: dict[str, Path] = field(default_factory=dict)
    ids: dict[Path, str] = field(default_factory=dict)
    present: dict[tuple[str, str], bool] = field(default_factory=dict)


def read_table(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and the rows that hold anything, with the number of the line each ends on. Raises ValueError as
    load_csv does for a file that is missing or malformed, or a header without its columns."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}: line {line} is not UTF-8; save the file as CSV in UTF-8") from None
    except OSError as error:
        raise ValueError(f"{file}: not readable: {error}") from None
    rows = _rows(file, text)
    number, cells = next(rows, (1, []))
    header = [cell.strip().lower() for cell in cells]
    _check_header(file, number, header)
    return header, list(_as_wide_as(file, header, rows))


def _rows(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    # The line ends are left for csv to interpret: one inside quotes belongs to a cell.
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    try:
        yield from ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
    except csv.Error as error:
        raise ValueError(f"{file}: line {reader.line_num} is not readable as CSV: {error}") from None


def _as_wide_as(
    file: Path, header: list[str], rows: Iterator[tuple[int, list[str]]]
) -> Iterator[tuple[int, list[str]]]:
    for number, cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"{file}: line {number} has {len(cells)} cells, but the header has {len(header)}")
        yield number, cells


def _check_header(file: Path, number: int, header: list[str]) -> None:
    has_labels = ("label" in header) + ("labels" in header)
    if "image" not in header or has_labels != 1:
        raise ValueError(
            f"{file}: line {number}, the header, needs a column image and one of label or labels: {header}"
        )
    for name in ("image", "label", "labels", "id", "present"):
        if header.count(name) > 1:
            raise ValueError(f"{file}: line {number}, the header, has the column {name} twice")


def _add(table: _Table, file: Path, number: int, cells: dict[str, str], image_folder: Path) -> None:
    where = f"{file}: line {number}"
    path = inside(image_folder, cells["image"].strip(), file, f"line {number}")
    image_id = cells.get("id", "").strip() if "id" in cells else path.relative_to(image_folder).as_posix()
    if not image_id:
        raise ValueError(f"{where} has no id")
    if table.paths.setdefault(image_id, path) != path:
        raise ValueError(f"{where} gives the id {image_id!r} to {cells['image']!r}, but another image has it")
    if table.ids.setdefault(path, image_id) != image_id:
        raise ValueError(f"{where} gives the id {image_id!r} to {cells['image']!r}, which has another")
    present = is_present(where, cells)
    for label in labels_of(cells):
        if table.present.setdefault((image_id, label), present) != present:
            raise ValueError(f"{where} says of {label!r} in {cells['image']!r} the opposite of an earlier line")


def labels_of(cells: dict[str, str]) -> list[str]:
    """Of one row, by column."""
    said = [cells["label"]] if "label" in cells else re.split(r"[|;]", cells["labels"])
    return [label.strip() for label in said if label.strip()]


def is_present(where: str, cells: dict[str, str]) -> bool:
    """Of one row, by column. where: the file and line, for the ValueError that what is neither yes nor no raises."""
    said = cells.get("present", "1").strip().lower()
    # An image without a label needs no word on whether it is there.
    if not said and not labels_of(cells):
        return True
    if said not in _YES_NO:
        raise ValueError(f"{where} has {cells['present']!r} under present, not 1, true, 0 or false")
    return _YES_NO[said]
