"""A selection as a CSV file for a person to judge: `present` is to be filled with 1 or 0 where it stands empty."""

import csv
from pathlib import Path
from typing import Any

from forclip.exporting.selection import Item, Selection

COLUMNS = ("image", "label", "present", "rank", "score", "probability", "x", "y", "width", "height", "id")
# Spreadsheets take a cell that starts like this for a formula, and run it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_csv(selection: Selection, to: Path) -> None:
    """x, y, width, height: the suggested box in pixels. The user's own columns follow. UTF-8.

    Text that a spreadsheet would run as a formula gets an apostrophe before it, a relative file name `./`.
    """
    own = list(dict.fromkeys(name for item in selection.items for name in item.own))
    with to.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        # One that is called as a column of ours would take its place wherever the file is read.
        writer.writerow([*COLUMNS, *(_harmless(f"own.{name}" if name in COLUMNS else name) for name in own)])
        for rank, item in enumerate(selection.items, start=1):
            others = [_harmless(item.own.get(name)) for name in own]
            writer.writerow([*_cells(selection, item, rank), *others])


def _cells(selection: Selection, item: Item, rank: int) -> list[Any]:
    """Under COLUMNS."""
    name = selection.name_of(item)
    image = f"./{name}" if name.startswith(_FORMULA) else name
    present = "" if item.present is None else int(item.present)
    numbers = ["" if n is None else f"{n:.4f}" for n in (item.score, item.probability)]
    box = item.pixel_box or ("",) * 4
    return [image, _harmless(selection.label), present, rank, *numbers, *box, _harmless(item.image_id)]


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
