"""Image-level labels in a CSV file: which image shows what, without boxes."""

import csv
import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np

from forclip.config import read_text
from forclip.data.formats.common import path_inside
from forclip.types import Annotations

_PRESENT = {"": None, "1": True, "true": True, "0": False, "false": False}
_COLUMNS = ("image", "label", "labels", "id", "present")


@dataclass(frozen=True)
class LabelRow:
    """One row of the file. where: the file and line, for messages; present: whether the image shows the labels, or
    None if the cell is empty."""

    where: str
    image: str
    image_id: str | None
    labels: list[str]
    present: bool | None


def load_csv(file: Path, image_folder: Path) -> Annotations:
    """Load images sorted by id, with classes sorted by name, without boxes.

    The header names the columns, in any order; other columns are ignored.

    - image: a path relative to image_folder. An image may have several rows.
    - label: one class, or nothing; or labels: several, separated by | or ;.
    - id (optional): the image's id; the default is its path.
    - present (optional): 1, true, 0 or false. With this column only the listed pairs are verified (a federated
      dataset); without it all classes that an image doesn't list are absent.

    The file is UTF-8, with or without a byte order mark. Raises ValueError, naming the file and the line, for a missing
    or malformed file, a header without these columns, an id of two images, an image with two ids, a pair that is both
    present and absent, or an image path that leaves the folder.
    """
    header, rows = read_label_rows(file)
    paths: dict[str, Path] = {}
    id_of: dict[Path, str] = {}
    present: dict[tuple[str, str], bool] = {}
    for row in rows:
        path = path_inside(image_folder, row.image, row.where)
        image_id = path.relative_to(image_folder).as_posix() if row.image_id is None else row.image_id
        if not image_id:
            raise ValueError(f"{row.where} has no id")
        if paths.setdefault(image_id, path) != path:
            raise ValueError(f"{row.where} gives the id {image_id!r} to {row.image!r}, but another image has it")
        if id_of.setdefault(path, image_id) != image_id:
            raise ValueError(f"{row.where} gives the id {image_id!r} to {row.image!r}, which has another")
        if row.labels and row.present is None:
            raise ValueError(f"{row.where} has '' under present, not 1, true, 0 or false")
        for label in row.labels:
            if present.setdefault((image_id, label), bool(row.present)) != row.present:
                raise ValueError(f"{row.where} contradicts an earlier line about {label!r} in {row.image!r}")
    if not paths:
        raise ValueError(f"{file}: lists no image")
    ids, names = sorted(paths), sorted({label for _, label in present})
    row_of = {image_id: k for k, image_id in enumerate(ids)}
    column_of = {name: k for k, name in enumerate(names)}
    labels, verified = np.zeros((2, len(ids), len(names)), bool)
    for (image_id, label), shown in present.items():
        position = row_of[image_id], column_of[label]
        labels[position], verified[position] = shown, True
    return Annotations(
        image_ids=tuple(ids),
        paths=tuple(paths[i] for i in ids),
        class_names=tuple(names),
        labels=labels,
        verified=verified if "present" in header else None,
    )


def read_label_rows(file: Path) -> tuple[list[str], list[LabelRow]]:
    """Read the header and the rows that are not blank. Without a column `present`, all labels are present.

    Raises ValueError, naming the file and the line, for a missing or malformed file or header, or a cell of `present`
    that is neither yes nor no.
    """
    # csv itself must see the line ends: one inside quotes belongs to a cell.
    reader = csv.reader(StringIO(read_text(file, "file"), newline=""), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise ValueError(f"{file}: line {reader.line_num} is not readable as CSV: {error}") from None
    number, cells = lines[0] if lines else (1, [])
    header = [cell.strip().lower() for cell in cells]
    where = f"{file}: line {number}, the header,"
    if "image" not in header or ("label" in header) == ("labels" in header):
        raise ValueError(f"{where} needs a column image and one of label or labels: {header}")
    for name in (name for name in _COLUMNS if header.count(name) > 1):
        raise ValueError(f"{where} has the column {name} twice")
    rows = []
    for number, cells in lines[1:]:
        where = f"{file}: line {number}"
        if len(cells) != len(header):
            raise ValueError(f"{where} has {len(cells)} cells, but the header has {len(header)}")
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
        labels = [row["label"]] if "label" in row else re.split(r"[|;]", row["labels"])
        labels = [label.strip() for label in labels if label.strip()]
        present = row.get("present", "1")
        if present.lower() not in _PRESENT:
            raise ValueError(f"{where} has {present!r} under present, not 1, true, 0 or false")
        rows.append(LabelRow(where, row["image"], row.get("id"), labels, _PRESENT[present.lower()]))
    return header, rows
