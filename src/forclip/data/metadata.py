"""A user's own columns for images, from a CSV or Parquet file: camera, time, place, whatever a search may filter by."""

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
    """table: the columns, without `image`; row_of: by image id."""

    table: pa.Table
    row_of: dict[str, int]

    def of(self, image_ids: Sequence[str]) -> dict[str, list[Any]]:
        """Each column's values for these images, None where the file says nothing of one."""
        rows = pa.array([self.row_of.get(i) for i in image_ids], pa.int64())
        return {name: self.table[name].take(rows).to_pylist() for name in self.table.column_names}


def read_metadata(file: Path) -> ImageMetadata:
    """Reads columns with their types (numbers, dates and times as such). The column `image` names a picture, relative
    to the file's folder or by an absolute path. Raises ValueError for a file that can't be read, has no such column,
    or names a picture twice."""
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
            raise ValueError(f"{file}: {name!r} is there twice")
        row_of[image_id] = row
    return ImageMetadata(table.drop_columns([_KEY]), row_of)
