"""Labels in a CSV file: which image shows what, with or without boxes."""

from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np

from forclip.data.formats.common import LARGEST_COORDINATE, UnusableEntry
from forclip.data.formats.csv_rows import LabelRow, read_label_rows
from forclip.data.formats.csv_shapes import OPEN_IMAGES_CODE
from forclip.data.formats.dataset_files import names_in
from forclip.data.formats.file_names import FileNames
from forclip.data.images.box_frames import sizes_of
from forclip.data.images.decode import image_size
from forclip.location import as_location
from forclip.types import Annotations, SkippedEntry

_FRACTION = 1 + 1e-6  # boxes in fractions of the image are not larger


def load_csv(file: Path, image_folder: Path) -> Annotations:
    """Load images sorted by id, with classes sorted by name.

    The header names the columns, in any order; `forclip.data.formats.csv_rows` says which layouts are known. In the
    plainest one these count, and others are ignored:

    - image: a path relative to image_folder. An image may have several rows.
    - label: one class, or nothing; or labels: several, separated by | or ; or commas, or a JSON list.
    - id (optional): the image's id; the default is its path.
    - present (optional): yes or no, as `forclip.data.formats.csv_rows.parse_present` reads it. With this column only
      the listed pairs are verified (a federated dataset); without it all classes that an image doesn't list are absent.

    Rows that can't be used are in `skipped`. So are both of two rows of which one says present and one absent; the pair
    is then unverified. Raises ValueError, naming the file, for one that is missing or no text, has a header without
    such columns, or has no row that can be used.
    """
    sheet = read_label_rows(file)
    skipped = list(sheet.skipped)
    names, files_named = FileNames(image_folder), cache(_files_by_name)
    paths: dict[str, Path] = {}
    id_of: dict[Path, str] = {}
    claims: dict[tuple[str, str], list[tuple[bool | None, LabelRow]]] = defaultdict(list)
    boxes: list[tuple[str, str, list[float]]] = []
    sizes: dict[str, tuple[int, int]] = {}
    in_pixels = False
    for row in sheet.rows:
        try:
            path = names.resolve(row.image)
            found = files_named(path.parent).get(path.name, [])
            path = found[0] if len(found) == 1 else path  # a name without an ending
            inside = path.relative_to(image_folder).as_posix() if path.is_relative_to(image_folder) else None
            image_id = row.image_id if row.image_id is not None else inside or str(as_location(path))
            if not image_id:
                raise UnusableEntry("the row has no id", row.image)
            if paths.get(image_id, path) != path:
                raise UnusableEntry("the id belongs to another image", image_id)
            if id_of.get(path, image_id) != image_id:
                raise UnusableEntry("the image has another id", image_id)
        except UnusableEntry as error:
            skipped.append(error.at(row.where))
            continue
        paths[image_id], id_of[path] = path, image_id
        for label, present in row.labels:
            if sheet.has_present and present is None:
                skipped.append(SkippedEntry(row.where, "present is empty", label))
                continue
            claims[image_id, label].append((present, row))
            if row.box is not None and present:
                try:
                    if (box := _pixels(row, path)) is not None:
                        boxes.append((image_id, label, box))
                        in_pixels |= not row.in_fractions
                        sizes |= {} if row.size is None else {image_id: row.size}
                except UnusableEntry as error:  # the label is as good as without a box
                    skipped.append(SkippedEntry(row.where, error.reason, error.value, used_in_part=True))
    if not paths:
        first = ""
        if skipped:
            where = skipped[0].entry.removeprefix(f"{file}: ")
            first = f"; the first: {where}: {skipped[0].reason}: {skipped[0].value}"
        raise ValueError(f"{file}: no row can be used{first}")
    present_of: dict[tuple[str, str], bool | None] = {}
    for (image_id, label), said in claims.items():
        values = {present for present, _ in said if present is not None}
        if len(values) == 2:
            skipped += (SkippedEntry(row.where, "rows contradict each other", label) for _, row in said)
        present_of[image_id, label] = values.pop() if len(values) == 1 else None
    ids, classes = sorted(paths), sorted({label for _, label in present_of})
    reason = "the class has a code for a name; put Open Images' class-descriptions file next to the labels"
    codes = filter(OPEN_IMAGES_CODE.fullmatch, classes)
    skipped += (SkippedEntry(f"{file}: class {code}", reason, code, used_in_part=True) for code in codes)
    row_of = {image_id: k for k, image_id in enumerate(ids)}
    column_of = {name: k for k, name in enumerate(classes)}
    labels, verified = np.zeros((2, len(ids), len(classes)), bool)
    for (image_id, label), present in present_of.items():
        position = row_of[image_id], column_of[label]
        labels[position], verified[position] = bool(present), present is not None
    boxes = [box for box in boxes if present_of[box[0], box[1]]]
    return Annotations(
        image_ids=tuple(ids),
        paths=tuple(paths[i] for i in ids),
        class_names=tuple(classes),
        labels=labels,
        boxes=np.array([box for *_, box in boxes], np.float32).reshape(-1, 4),
        box_images=np.array([row_of[image_id] for image_id, *_ in boxes], np.int64),
        box_classes=np.array([column_of[label] for _, label, _ in boxes], np.int64),
        box_sizes=sizes_of([sizes.get(i, (0, 0)) for i in ids]) if in_pixels else None,
        verified=verified if sheet.federated else None,
        skipped=tuple(skipped),
    )


def _files_by_name(folder: Path) -> dict[str, list[Path]]:
    """List the files of a folder by their names with and without an ending, which Open Images' ids lack."""
    files: dict[str, list[Path]] = defaultdict(list)
    for file in map(folder.joinpath, names_in(folder)):
        for name in {file.name, file.stem}:
            files[name].append(file)
    return files


def _pixels(row: LabelRow, path: Path) -> list[float] | None:
    """The row's box: xyxy in pixels, None where it has fractions and the picture's size is unknown.

    Raises UnusableEntry for a box that is not finite or has a negative size.
    """
    assert row.box is not None
    box = row.box
    if not all(abs(value) < LARGEST_COORDINATE for value in box):  # never true for NaN
        raise UnusableEntry("the box is not finite", row.box_text or list(box))
    if box[2] < box[0] or box[3] < box[1]:
        raise UnusableEntry("the box has a negative size", row.box_text or list(box))
    if not row.in_fractions:
        return list(box)
    if max(map(abs, box)) > _FRACTION:
        raise UnusableEntry("the box is not between 0 and 1", row.box_text or list(box))
    size = image_size(as_location(path))
    return None if size is None else [value * side for value, side in zip(box, (*size, *size), strict=True)]
