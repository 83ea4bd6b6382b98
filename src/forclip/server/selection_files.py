"""A selection as a file to hand on: CSV, or a list of files."""

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

from forclip.server.gallery import Described

# Spreadsheets take a cell that starts like this for a formula, and run it.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(images: Sequence[Described], columns: Sequence[str]) -> str:
    """A row an image: file, width, height and the store's own columns. Text that a spreadsheet would run as a formula
    gets an apostrophe before it."""
    made = StringIO()
    rows = csv.writer(made, lineterminator="\n")
    rows.writerow(_harmless(name) for name in ("file", "width", "height", *columns))
    for image in images:
        own = [image.own.get(name) for name in columns]
        rows.writerow(_harmless(v) for v in (image.file.uri, image.file.width, image.file.height, *own))
    return made.getvalue()


def as_file_list(images: Sequence[Described]) -> str:
    """A path a line. A line break in a name is escaped, as Python escapes it."""
    return "".join(image.file.uri.replace("\n", "\\n").replace("\r", "\\r") + "\n" for image in images)


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
