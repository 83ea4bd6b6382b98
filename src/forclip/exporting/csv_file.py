"""A selection as a CSV file for a person to judge: `present` stands empty, to be filled with 1 or 0."""

import csv
from pathlib import Path

from forclip.exporting.selection import Selection

COLUMNS = ("image", "label", "present", "rank", "score", "probability", "x", "y", "width", "height", "id")


def write_csv(selection: Selection, to: Path) -> None:
    """x, y, width, height: the suggested box in pixels. UTF-8."""
    with to.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for rank, item in enumerate(selection.items, start=1):
            numbers = ["" if n is None else f"{n:.4f}" for n in (item.score, item.probability)]
            box = item.pixel_box or ("",) * 4
            writer.writerow([selection.name_of(item), selection.label, "", rank, *numbers, *box, item.image_id])
