"""Helpers that the readers of label files share."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from forclip.types import Annotations, SkippedEntry

LARGEST_COORDINATE = 1e9  # pixels; no image is as large. NaN and infinity are not below it either.

# The row of the image, the name of the class, and the box: xyxy in pixels, or None if it is unknown.
LabelledObject = tuple[int, str, Sequence[float] | None]

_SHOWN = 80  # characters of an offending value


class UnusableEntry(ValueError):
    """An entry of a label file can't be used. reason: the same text for all of its kind; value: the offending one."""

    def __init__(self, reason: str, value: object = "") -> None:
        text = str(value)
        self.reason = reason
        self.value = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        super().__init__(f"{reason}: {self.value!r}" if self.value else reason)

    def at(self, entry: str, used_in_part: bool = False) -> SkippedEntry:
        """The entry as one that is left out. entry: where it is, such as "labels/7.txt: line 3"."""
        return SkippedEntry(entry, self.reason, self.value, used_in_part)


def box_problem(corners: Sequence[float]) -> str:
    """Why left, top, right, bottom are no box in pixels, or an empty text if they are one."""
    left, top, right, bottom = corners
    if not all(map(math.isfinite, corners)):
        return "the box is not finite"
    if any(abs(value) >= LARGEST_COORDINATE for value in corners):
        return "the box is larger than any image"
    return "the box has a negative size" if right < left or bottom < top else ""


def annotations_of_objects(
    image_ids: Sequence[str],
    paths: Sequence[Path],
    objects: Sequence[LabelledObject],
    class_names: Sequence[str] | None = None,
    synonyms: tuple[tuple[str, ...], ...] = (),
    skipped: Sequence[SkippedEntry] = (),
    unknown_rows: Sequence[int] = (),
) -> Annotations:
    """Build annotations in which the objects' classes are the labels of their images, and all others are absent.

    class_names: None means the names of the objects, sorted. unknown_rows: images whose labels nobody can tell.
    """
    names = sorted({name for _, name, _ in objects}) if class_names is None else class_names
    column = {name: k for k, name in enumerate(names)}
    rows = np.array([row for row, *_ in objects], np.int64)
    columns = np.array([column[name] for _, name, _ in objects], np.int64)
    labels = np.zeros((len(image_ids), len(names)), bool)
    labels[rows, columns] = True
    verified = None
    if len(unknown_rows):
        verified = np.ones_like(labels)
        verified[unknown_rows] = labels[unknown_rows]
    has_box = np.array([box is not None for *_, box in objects], bool)
    return Annotations(
        image_ids=tuple(image_ids),
        paths=tuple(paths),
        class_names=tuple(names),
        labels=labels,
        boxes=np.array([box for *_, box in objects if box is not None], np.float32).reshape(-1, 4),
        box_images=rows[has_box],
        box_classes=columns[has_box],
        verified=verified,
        synonyms=synonyms,
        skipped=tuple(skipped),
    )
