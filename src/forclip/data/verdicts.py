"""Verdicts: a user's right and wrong search results, which join the labels of a training set."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.csv_rows import LabelRow, read_label_rows
from forclip.data.formats.file_names import FileNames
from forclip.data.images.fetch import is_there
from forclip.location import Location, absolute, as_location, location_text, parse_location, without_range
from forclip.types import Annotations, SkippedEntry

Verdicts = Mapping[tuple[Location, str], bool]  # by absolute image path and label: whether the image shows it


def read_verdicts(file: Path, image_folder: Path) -> tuple[dict[tuple[Location, str], bool], tuple[SkippedEntry, ...]]:
    """Read a CSV file as `forclip export --format csv` writes it, with the column `present` filled in.

    The columns are image (absolute, or relative to image_folder), label or labels, and present; others are ignored. A
    row whose present is empty has no verdict. Returns the verdicts, and the rows that can't be used: with another
    present than yes or no, of a picture that is not there, or that contradict each other.

    Raises ValueError, naming the file, as `load_csv` does, and for a file without a column present.
    """
    sheet = read_label_rows(file)
    if not sheet.has_present:
        names = ", ".join(sheet.header)
        raise ValueError(f"{file}: the header has no column present, 1 for right and 0 for wrong, but: {names}")
    skipped, files = list(sheet.skipped), FileNames(image_folder)
    said: dict[tuple[Location, str], list[tuple[bool, LabelRow]]] = defaultdict(list)
    for row in sheet.rows:
        judged = [(label, present) for label, present in row.labels if present is not None]
        if not judged:
            continue
        try:
            path = parse_location(row.image)
            if isinstance(path, Path) and not (path.is_absolute() and path.exists()):
                path = as_location(files.resolve(row.image))
            if not is_there(path):
                raise UnusableEntry("no picture has this name", row.image)
        except UnusableEntry as error:
            skipped.append(error.at(row.where))
            continue
        for label, present in judged:
            said[absolute(path), label].append((present, row))
    verdicts = {pair: rows[0][0] for pair, rows in said.items() if len({present for present, _ in rows}) == 1}
    for pair in said.keys() - verdicts.keys():
        skipped += (SkippedEntry(row.where, "rows contradict each other", pair[1]) for _, row in said[pair])
    return verdicts, tuple(skipped)


def merge_verdicts(train: Annotations, gallery: Annotations, verdicts: Verdicts) -> Annotations:
    """Add verdicts to the training set's labels; a verdict overrides a label.

    A label with a verdict is verified. An image from outside the set joins it with only its verdicts verified. A label
    that is no class yet becomes one, after the others, if a training image was right for it; it is verified only where
    it has a verdict. The boxes of labels that turned out wrong are dropped. Verdicts on gallery images are left out,
    because results are measured on those. (Training leaves out verdicts on novel classes.)
    """
    usable = usable_verdicts(train, gallery, verdicts)
    new_classes = sorted({label for _, label in usable} - set(train.class_names))
    # With an explicit mask, so that the labels of new classes and images are unverified.
    merged = replace(train, verified=train.verified_mask)
    merged = merged.with_classes((*train.class_names, *new_classes), add_missing=True)
    new_paths = sorted({path for path, _ in usable} - set(map(absolute, train.paths)), key=str)
    no_labels = np.zeros((len(new_paths), len(merged.class_names)), bool)
    labels, verified = (np.concatenate([part, no_labels]) for part in (merged.labels, merged.verified_mask))
    paths = (*train.paths, *new_paths)
    row = {absolute(path): k for k, path in enumerate(paths)}
    column = {name: k for k, name in enumerate(merged.class_names)}
    for (path, label), present in usable.items():
        labels[row[path], column[label]] = present
        verified[row[path], column[label]] = True
    kept = labels[merged.box_images, merged.box_classes] | ~verified[merged.box_images, merged.box_classes]
    return replace(
        merged,
        image_ids=(*train.image_ids, *(without_range(location_text(path)) for path in new_paths)),
        paths=paths,
        labels=labels,
        verified=None if verified.all() else verified,
        boxes=merged.boxes[kept],
        box_images=merged.box_images[kept],
        box_classes=merged.box_classes[kept],
        box_sizes=None if merged.box_sizes is None else np.pad(merged.box_sizes, ((0, len(new_paths)), (0, 0))),
    )


def usable_verdicts(train: Annotations, gallery: Annotations, verdicts: Verdicts) -> dict[tuple[Location, str], bool]:
    """The verdicts that are not on gallery images, on existing classes and on new ones that some image shows."""
    gallery_paths = set(map(absolute, gallery.paths))
    outside = {pair: present for pair, present in verdicts.items() if pair[0] not in gallery_paths}
    classes = {*train.class_names, *(label for (_, label), present in outside.items() if present)}
    return {pair: present for pair, present in outside.items() if pair[1] in classes}


def describe_verdicts(verdicts: Verdicts, train: Annotations, gallery: Annotations) -> str:
    """Say in one sentence how many verdicts are used. train: before or after they were merged."""
    used = usable_verdicts(train, gallery, verdicts)
    right, left_out = sum(used.values()), len(verdicts) - len(used)
    reason = f"; {left_out} on gallery images, or on labels that no image shows, were left out" if left_out else ""
    return f"{len(used)} verdicts join the labels: {right} right, {len(used) - right} wrong{reason}."
