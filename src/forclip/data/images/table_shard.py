"""Read pictures and other columns of Parquet and Arrow tables, as Hugging Face's `datasets` writes them."""

import json
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from forclip.data.images.picture_types import SIGNATURE_BYTES, has_signature
from forclip.file_systems import open_file
from forclip.location import Uri, is_url
from forclip.one_line import one_line

_USUAL_NAMES = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp")
_MOST_ROWS, _BATCH_BYTES = 64, 1 << 24  # of a batch, so that memory does not hold a whole row group


class NoPictures(ValueError):
    """A table has no column of pictures."""


class TableShard:
    """An open table, of which rows are read in order; going back starts again at a row group. For several threads.

    column: of the pictures; others: further columns of pictures, which are not read; dropped: columns whose values are
    of a type that metadata don't have; num_rows.
    """

    def __init__(self, container: str) -> None:
        """container: path or URL. Raises NoPictures, FileNotFoundError, Unreachable, and ValueError if damaged."""
        self._lock = Lock()
        try:
            self._open(container)
            named, plain = _picture_columns(self._schema)
            candidates = named or [name for name in plain if self._holds_pictures(name)]
        except pa.ArrowException as error:
            raise ValueError(f"is damaged: {one_line(error)[:200]}") from None
        if not candidates:
            raise NoPictures(_why_none(self._schema))
        usual = [name for name in _USUAL_NAMES for candidate in candidates if candidate.lower() == name]
        self.column = next((c for c in candidates if usual and c.lower() == usual[0]), candidates[0])
        self.others = [name for name in candidates if name != self.column]
        pictures = {self.column, *self.others}
        self._simple = [f.name for f in self._schema if f.name and f.name not in pictures and _is_simple(f.type)]
        self.dropped = [f.name for f in self._schema if f.name not in pictures.union(self._simple)]
        self._batches: Iterator[tuple[int, pa.Array]] = iter(())
        self._start, self._pictures = -1, pa.nulls(0)  # the batch in memory

    def _open(self, container: str) -> None:
        self._parquet: pq.ParquetFile | None = None
        self._record_batches: list[pa.RecordBatch] | None = None
        self._container = container
        if container.lower().endswith(".parquet"):
            source = open_file(container) if is_url(container) else container
            # Buffered, so that a column is not read whole for its first rows.
            self._parquet = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
            self._schema = self._parquet.schema_arrow
            groups = [self._parquet.metadata.row_group(k) for k in range(self._parquet.num_row_groups)]
            self._group_starts = np.cumsum([0, *(group.num_rows for group in groups)])
            size = sum(group.total_byte_size for group in groups)
            self.num_rows: int = self._parquet.metadata.num_rows
            self._batch_rows = max(1, min(_MOST_ROWS, _BATCH_BYTES * self.num_rows // max(1, size)))
        elif is_url(container):
            self._schema, counts = None, []
            for batch in self._stream():
                self._schema = batch.schema
                counts.append(batch.num_rows)
            if self._schema is None:
                raise NoPictures("has no rows")
            self.num_rows = sum(counts)
        else:
            self._record_batches = list(self._stream())
            self._schema = self._record_batches[0].schema if self._record_batches else pa.schema([])
            self.num_rows = sum(batch.num_rows for batch in self._record_batches)

    def _stream(self) -> Iterator[pa.RecordBatch]:
        """Yield the record batches of an Arrow file: `datasets` writes streams, other tools files."""
        is_remote = is_url(self._container)
        source = open_file(self._container) if is_remote else pa.memory_map(self._container)
        try:
            reader = pa.ipc.open_file(source)
            yield from (reader.get_batch(k) for k in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            source = open_file(self._container) if is_remote else pa.memory_map(self._container)
            yield from pa.ipc.open_stream(source)

    def read(self, row: int) -> bytes:
        """Read a row's picture. Raises FileNotFoundError for a row that there is not, ValueError for an empty one."""
        if not 0 <= row < self.num_rows:
            raise FileNotFoundError(f"{self._container}: has {self.num_rows:,} rows and no row {row}")
        with self._lock:
            if not self._start <= row < self._start + len(self._pictures) or self._start < 0:
                self._advance(row)
            content = self._pictures[row - self._start].as_py()
        if content is None:
            raise ValueError("the row has no picture")
        return bytes(content)

    def _advance(self, row: int) -> None:
        """Go to the batch of a row: on from the present one, or from the start of the row's group."""
        first = 0 if self._parquet is None else self._group_of(row)
        behind = self._start < 0 or row < self._start
        if behind or (self._parquet is not None and self._group_of(self._start) < first):
            self._batches = self._read_batches(first)
        self._start = -1  # also after an error
        for start, pictures in self._batches:
            if start <= row < start + len(pictures):
                self._start, self._pictures = start, pictures
                return
        raise ValueError(f"is cut off before row {row}")

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self._group_starts, row, side="right")) - 1

    def _read_batches(self, group: int) -> Iterator[tuple[int, pa.Array]]:
        """Yield the first row and the pictures of each batch from a row group on."""
        is_struct = pa.types.is_struct(self._schema.field(self.column).type)
        if self._parquet is not None:
            start = int(self._group_starts[group])
            column = f"{self.column}.bytes" if is_struct else self.column
            groups = range(group, self._parquet.num_row_groups)
            batches = self._parquet.iter_batches(self._batch_rows, row_groups=list(groups), columns=[column])
        else:
            start, batches = 0, iter(self._record_batches or ()) if self._record_batches else self._stream()
        for batch in batches:
            values = batch.column(batch.schema.get_field_index(self.column))
            pictures = pc.struct_field(values, "bytes") if is_struct else values
            yield start, pictures
            start += len(pictures)

    def _holds_pictures(self, name: str) -> bool:
        """Whether the first value of a binary column that is there starts as a picture does."""
        is_struct = pa.types.is_struct(self._schema.field(name).type)
        if self._parquet is not None:
            batches = self._parquet.iter_batches(1, columns=[f"{name}.bytes" if is_struct else name])
        else:
            batches = iter(self._record_batches) if self._record_batches is not None else self._stream()
        for batch in batches:
            values = batch.column(batch.schema.get_field_index(name))
            values = pc.struct_field(values, "bytes") if is_struct else values
            if (value := next((v.as_py() for v in values if v.is_valid), None)) is not None:
                return has_signature(value[:SIGNATURE_BYTES], with_tiff=True)
        return False

    def other_columns(self) -> pa.Table:
        """Return the columns of numbers, texts, times and truth values. Class labels are given as their names."""
        names = self._simple
        if self._parquet is not None:
            table = self._parquet.read(columns=names, use_threads=False)
        else:
            batches = self._record_batches if self._record_batches is not None else self._stream()
            table = pa.Table.from_batches([b.select(names) for b in batches], self._simple_schema(names))
        features = _features(self._schema)
        for position, name in enumerate(names):
            classes = features.get(name, {}).get("names")
            if features.get(name, {}).get("_type") == "ClassLabel" and isinstance(classes, list):
                known = {k: str(text) for k, text in enumerate(classes)}
                values = pa.array([known.get(value) for value in table[name].to_pylist()], pa.string())
                table = table.set_column(position, name, values)
        return table.replace_schema_metadata(None)

    def _simple_schema(self, names: Sequence[str]) -> pa.Schema:
        return pa.schema([self._schema.field(name) for name in names])


def _why_none(schema: pa.Schema) -> str:
    """Why a table without a column of pictures has none."""
    lists = [f.name for f in schema if hasattr(f.type, "value_type") and _has_bytes(f.type.value_type)]
    if lists:
        return f"its column {lists[0]!r} has lists of pictures; write one picture a row"
    inside = [f.name for f in schema if pa.types.is_struct(f.type) and any(_has_bytes(part.type) for part in f.type)]
    if inside:
        return f"its column {inside[0]!r} holds no picture in a field `bytes`"
    return "it has no binary column that holds pictures"


def row_of(uri: Uri) -> int:
    """The number of a table's row. Raises FileNotFoundError for a member that is no number."""
    if not uri.member.isdecimal():
        raise FileNotFoundError(f"{uri.container}: has no row {uri.member!r}")
    return int(uri.member)


def _features(schema: pa.Schema) -> dict[str, Any]:
    """The types that `datasets` notes in the schema, by column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _picture_columns(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Names of the columns that hold pictures by their type, and of those that may: other binary ones."""
    features = _features(schema)
    named = [f.name for f in schema if features.get(f.name, {}).get("_type") == "Image" and _has_bytes(f.type)]
    others = [f.name for f in schema if _has_bytes(f.type) and f.name not in named]
    return named, others


def _has_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        position = kind.get_field_index("bytes")
        return position >= 0 and _has_bytes(kind.field(position).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_simple(kind: pa.DataType) -> bool:
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string)
    more = (
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_timestamp,
        pa.types.is_date,
        pa.types.is_decimal,
    )
    is_text_code = pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type)
    return is_text_code or any(check(kind) for check in (*checks, *more))
