"""List the pictures of shards, and the values that stand next to them."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from forclip.data.images.fetch import Unreachable, index_of
from forclip.data.images.table_shard import NoPictures, TableShard
from forclip.data.images.tar_index import TarIndex
from forclip.location import Uri, is_tar
from forclip.one_line import one_line

BROKEN = "shards that are damaged; what can be read of them is used"
REPEATED = "pictures of a tar whose name occurs twice"
DEAD_LINK = "links of a tar that lead to no picture in it"
NO_PICTURES = "tables without a column of pictures"
DROPPED_COLUMN = "columns of tables with values that can't be kept, such as lists"
FURTHER_COLUMN = "further columns of pictures of tables"
NOT_FETCHED = "shards that can't be fetched"

_KEY = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)  # webdataset's key and ending
_MOST_COLUMNS = 64


@dataclass(frozen=True)
class ShardContents:
    """What a shard holds.

    pictures: in order; columns: values next to them, a row for each; left_out: by reason, what is not used; others: how
    many other members each ending has.
    """

    pictures: list[Uri]
    columns: pa.Table
    left_out: dict[str, list[str]] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)


def list_shard(container: str, size: int, modified: int) -> ShardContents:
    """List a shard in this state. A damaged one is listed as far as it goes."""
    try:
        if is_tar(container):
            return _list_tar(container, size, modified, index_of(container, size, modified))
        return _list_table(container, size, modified)
    except NoPictures as error:
        return ShardContents([], pa.table({}), {NO_PICTURES: [f"{container}: {error}"]})
    except Unreachable as error:
        return ShardContents([], pa.table({}), {NOT_FETCHED: [str(error)]})
    except (OSError, ValueError, pa.ArrowException) as error:
        return ShardContents([], pa.table({}), {BROKEN: [f"{container}: {one_line(error)[:200]}"]})


def join_columns(tables: Sequence[pa.Table]) -> pa.Table:
    """Put tables below each other. Columns of types that don't fit become text; missing ones have no values."""
    names = list(dict.fromkeys(name for table in tables for name in table.column_names))[:_MOST_COLUMNS]
    joined = {}
    for name in names:
        parts = [table[name] if name in table.column_names else pa.nulls(len(table)) for table in tables]
        chunks = [chunk for part in parts for chunk in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])]
        kinds = {chunk.type for chunk in chunks} - {pa.null()}
        kind = kinds.pop() if len(kinds) == 1 else None
        if kind is None:
            is_number = all(pa.types.is_integer(k) or pa.types.is_floating(k) for k in kinds)
            kind = pa.null() if not kinds else pa.float64() if is_number and kinds else pa.string()
        if not kinds and kind == pa.null():
            continue
        joined[name] = pa.chunked_array([_cast(chunk, kind) for chunk in chunks], kind)
    return pa.table(joined)


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return values.cast(kind)
    except pa.ArrowException:
        texts = [None if value is None else str(value) for value in values.to_pylist()]
        return pa.array(texts, pa.string()).cast(kind, safe=False)


def _list_tar(container: str, size: int, modified: int, index: TarIndex) -> ShardContents:
    places = zip(index.names, index.starts.tolist(), index.lengths.tolist(), strict=True)
    pictures = [Uri(container, name, start, length, size, modified) for name, start, length in places]
    left_out: dict[str, list[str]] = {}
    if index.problem:
        left_out[BROKEN] = [f"{container} {index.problem}"]
    if index.repeated:
        left_out[REPEATED] = [f"{container}#{name}" for name in index.repeated]
    if index.dead_links:
        left_out[DEAD_LINK] = [f"{container}#{name}" for name in index.dead_links]
    return ShardContents(pictures, _notes(index), left_out, index.others)


def _notes(index: TarIndex) -> pa.Table:
    """The values of the texts next to pictures: a JSON object's fields, and .txt and .cls under these names."""
    values: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, content in index.texts.items():
        if match := _KEY.fullmatch(name):
            values[match[1]] |= _read_note(match[2].lower(), content)
    keys = [match[1] if (match := _KEY.fullmatch(name)) else "" for name in index.names]
    columns = dict.fromkeys(column for of_key in values.values() for column in of_key)
    table = {column: _column([values.get(key, {}).get(column) for key in keys]) for column in columns}
    return _with_length(table, len(keys))


def _with_length(columns: dict[str, pa.Array], length: int) -> pa.Table:
    """A table that has rows also without columns."""
    return pa.table(columns or {"": pa.nulls(length)})


def _read_note(ending: str, content: bytes) -> dict[str, Any]:
    text = content.decode("utf-8", "replace").strip()
    last = ending.rpartition(".")[2]
    if last == "json":
        try:
            read = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        fields = read.items() if isinstance(read, dict) else []
        return {str(name): value for name, value in fields if isinstance(value, str | int | float | bool)}
    if last == "cls" and re.fullmatch(r"-?\d{1,18}", text):
        return {ending: int(text)}
    return {ending: text}


def _column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if v is None else v if isinstance(v, str) else json.dumps(v) for v in values])


def _list_table(container: str, size: int, modified: int) -> ShardContents:
    shard = TableShard(container)
    pictures = [Uri(container, str(row), size=size, modified=modified) for row in range(shard.num_rows)]
    left_out = {
        reason: [f"{container}: {name}" for name in names]
        for reason, names in ((FURTHER_COLUMN, shard.others), (DROPPED_COLUMN, shard.dropped))
        if names
    }
    columns = _folder_columns(container, shard.num_rows) | dict(_items(shard.other_columns()))
    return ShardContents(pictures, _with_length(columns, shard.num_rows), left_out)


def _items(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(table.column_names, table.columns, strict=True)


def _folder_columns(container: str, rows: int) -> dict[str, pa.Array]:
    """The columns that the folders of a partitioned table name, as in day=2026-01-31/part.parquet."""
    parts = [part.partition("=") for part in container.split("/")[:-1]]
    values = {name: unquote(value) for name, equals, value in parts if equals and name and value}
    return {name: _repeated(value, rows) for name, value in values.items()}


def _repeated(value: str, rows: int) -> pa.Array:
    if value == "__HIVE_DEFAULT_PARTITION__":
        return pa.nulls(rows, pa.string())
    is_number = re.fullmatch(r"0|-?[1-9]\d{0,17}", value) is not None
    return pa.repeat(pa.scalar(int(value) if is_number else value), rows)
