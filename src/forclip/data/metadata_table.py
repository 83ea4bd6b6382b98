"""Read the rows and columns of a metadata file: CSV, Parquet, Arrow or JSON lines."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather
import pyarrow.parquet

from forclip.data.cell_types import odd_cell, parse_cells, parse_cells_as
from forclip.data.formats.spreadsheet import IMAGE_COLUMNS, read_spreadsheet
from forclip.data.formats.text_encoding import read_unknown_text
from forclip.index.columns import cast_exactly, kind_of, to_stored, wider_type
from forclip.one_line import one_line
from forclip.types import SkippedEntry


class Misfit(ValueError):
    """A value does not fit a column's type. position: of its row among the chosen ones; value: as it is shown."""

    def __init__(self, position: int, value: object, kind: str) -> None:
        super().__init__(f"{value!r}")
        self.position, self.value, self.kind = position, value, kind


@dataclass(frozen=True)
class TextColumn:
    """A column of text cells. decimal_comma: whether 1,5 is a number."""

    name: str
    cells: Sequence[str]
    decimal_comma: bool

    def texts(self) -> Sequence[str]:
        """The cells."""
        return self.cells

    def value(self, row: int) -> Any:
        """The cell of a row."""
        return self.cells[row]

    def values(self, rows: Sequence[int]) -> pa.Array:
        """The cells of some rows in the narrowest type that fits."""
        return parse_cells([self.cells[row] for row in rows], self.decimal_comma)

    def values_as(self, rows: Sequence[int], stored: pa.DataType) -> pa.Array:
        """The cells in a column's type or a wider one. Raises Misfit."""
        cells = [self.cells[row] for row in rows]
        converted = parse_cells_as(cells, stored, self.decimal_comma)
        if isinstance(converted, pa.Array):
            return converted
        values = parse_cells(cells, self.decimal_comma)
        wider = wider_type(stored, values.type)
        if wider is None:
            raise Misfit(converted, cells[converted], kind_of(values.type))
        return _cast(values, wider)

    def odd_row(self, rows: Sequence[int]) -> int | None:
        """The row that makes a column of numbers or dates text, if there are few such rows."""
        position = odd_cell([self.cells[row] for row in rows], self.decimal_comma)
        return None if position is None else rows[position]


@dataclass(frozen=True)
class ArrowColumn:
    """A column that has a type."""

    name: str
    array: pa.Array | pa.ChunkedArray

    def texts(self) -> Sequence[str]:
        """The values as text, of a struct with a path that path, empty for none."""
        array = self.array
        if pa.types.is_struct(array.type) and array.type.get_field_index("path") >= 0:  # Hugging Face's pictures
            array = pc.struct_field(array, "path")
        return ["" if value is None else str(value) for value in array.to_pylist()]

    def value(self, row: int) -> Any:
        """The value of a row."""
        return self.array[row].as_py()

    def values(self, rows: Sequence[int]) -> pa.Array:
        """The values of some rows in a type that a store can hold. Raises ValueError for binary ones."""
        return to_stored(self.array.take(pa.array(rows, pa.int64())))

    def values_as(self, rows: Sequence[int], stored: pa.DataType) -> pa.Array:
        """The values in a column's type or a wider one. Raises Misfit, and ValueError as `values` does."""
        values = self.values(rows)
        try:
            if kind_of(stored) in (kind_of(values.type), "whole numbers") and kind_of(values.type) != "text":
                return cast_exactly(values, stored)
        except ValueError:  # too large, or a fraction
            pass
        wider = wider_type(stored, values.type)
        if wider is None:
            position = next(k for k, value in enumerate(values) if value.is_valid)
            raise Misfit(position, values[position].as_py(), kind_of(values.type))
        return _cast(values, wider)

    def odd_row(self, rows: Sequence[int]) -> int | None:
        """None: the types are the file's own."""
        return None


Column = TextColumn | ArrowColumn


@dataclass(frozen=True)
class MetadataTable:
    """The readable rows of a file. lines: the name of each row, such as "line 3"; skipped: rows that can't be read."""

    columns: tuple[Column, ...]
    lines: tuple[str, ...]
    skipped: tuple[SkippedEntry, ...]
    notes: tuple[str, ...]


def read_table(file: Path) -> MetadataTable:
    """Read a file by its ending: .parquet, .arrow, .feather, .jsonl, and CSV for all others.

    Raises ValueError for a file that is missing or can't be understood.
    """
    match file.suffix.lower():
        case ".parquet" | ".pq":
            return _typed_table(file, pa.parquet.read_table)
        case ".arrow" | ".feather":
            return _typed_table(file, pa.feather.read_table)
        case ".json" | ".jsonl" | ".ndjson":
            return _json_lines(file)
    sheet = read_spreadsheet(file, "metadata file", IMAGE_COLUMNS)
    comma = sheet.separator != ","
    columns = tuple(
        TextColumn(name, [row.cells[k] for row in sheet.rows], comma) for k, name in enumerate(sheet.header)
    )
    return MetadataTable(columns, tuple(f"line {row.line}" for row in sheet.rows), sheet.skipped, sheet.notes)


def _typed_table(file: Path, read: Any) -> MetadataTable:
    try:
        table: pa.Table = read(file)
    except FileNotFoundError:
        raise ValueError(f"{file}: no such metadata file") from None
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{file}: metadata can't be read: {one_line(error)[:200]}") from None
    columns = tuple(map(ArrowColumn, table.column_names, table.columns))
    return MetadataTable(columns, tuple(f"row {row + 1}" for row in range(len(table))), (), ())


def _json_lines(file: Path) -> MetadataTable:
    """Read one JSON object per line, or a list of them. What is no object is left out."""
    text = read_unknown_text(file, "metadata file").text
    content = _json_or_text(text)
    if isinstance(content, str):
        entries = {f"line {k}": _json_or_text(line) for k, line in enumerate(text.split("\n"), 1) if line.strip()}
    else:
        entries = {
            f"entry {k}": entry for k, entry in enumerate(content if isinstance(content, list) else [content], 1)
        }
    rows = {where: entry for where, entry in entries.items() if isinstance(entry, dict)}
    skipped = tuple(
        SkippedEntry(f"{file}: {where}", "it is no JSON object", str(entry).strip()[:60])
        for where, entry in entries.items()
        if where not in rows
    )
    names = dict.fromkeys(name for row in rows.values() for name in row)
    columns = tuple(_json_column(name, [row.get(name) for row in rows.values()]) for name in names)
    return MetadataTable(columns, tuple(rows), skipped, ())


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _json_column(name: str, values: list[Any]) -> Column:
    try:
        return ArrowColumn(name, pa.array(values))
    except (pa.ArrowException, OverflowError, TypeError):  # of several types
        texts = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
        return ArrowColumn(name, pa.array(texts, pa.string()))


def _cast(values: pa.Array, to: pa.DataType) -> pa.Array:
    try:
        return cast_exactly(values, to)
    except ValueError:
        for position in range(len(values)):
            try:
                cast_exactly(values[position : position + 1], to)
            except ValueError:
                raise Misfit(position, values[position].as_py(), kind_of(values.type)) from None
        raise
