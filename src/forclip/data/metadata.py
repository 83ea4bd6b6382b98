"""A user's own columns for images, from a CSV or Parquet file: camera, time, and whatever a search may filter by."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

_KEY = "image"


@dataclass(frozen=True)
class ImageMetadata:
    """table: the columns, without `image`. row_of: the table's row of each image id."""

    table: pa.Table
    row_of: dict[str, int]

    def values_for(self, image_ids: Sequence[str]) -> dict[str, list[Any]]:
        """Each column's values for these images; None for images that the file doesn't list."""
        rows = pa.array([self.row_of.get(i) for i in image_ids], pa.int64())
        return {name: self.table[name].take(rows).to_pylist() for name in self.table.column_names}


def read_metadata(file: Path) -> ImageMetadata:
    """Read columns with their types (numbers, dates and times).

    The column `image` holds image paths, absolute or relative to the file's folder. Raises ValueError for a file that
    can't be read, has no such column, or lists an image twice.
    """
    try:
        table = pa.parquet.read_table(file) if file.suffix.lower() == ".parquet" else pa.csv.read_csv(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise ValueError(f"{file}: metadata can't be read: {' '.join(str(error).split())[:200]}") from None
    if _KEY not in table.column_names:
        raise ValueError(f"{file}: no column {_KEY!r}, only {', '.join(map(repr, table.column_names))}")
    row_of: dict[str, int] = {}
    for row, name in enumerate(table[_KEY].to_pylist()):
        image_id = os.path.abspath(file.parent / str(name))
        if image_id in row_of:
            raise ValueError(f"{file}: {name!r} is listed twice")
        row_of[image_id] = row
    return ImageMetadata(table.drop_columns([_KEY]), row_of)
