"""Open, lock and read the Lance table of a store."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from forclip.index.filter_values import quote
from forclip.index.filters import lance_filter
from forclip.index.schema import Codes, from_lists
from forclip.types import Ints

TABLE, LOCK = "images.lance", "writer.lock"
_LOCK_SECONDS = 600.0  # that a writer waits for another one
_ROWS_AT_ONCE = 4096
_VALUES_AT_ONCE = 1024  # in one SQL expression
_SCANNED_PER_VALUE = 64  # reading so many rows takes as long as looking one up
_SCANNED_AT_ONCE = 65_536
# A row's address is its fragment's id and its offset in the fragment. It stays the same until the fragment is joined
# with others, and is never used again.
_OFFSET_BITS, _OFFSET_MASK = np.uint64(32), np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class StoredVectors:
    """Some images of a store. keys: [images]; codes: [total, dim] as stored, `StoreHeader.decode` gives vectors;
    offsets: [images + 1]; boxes: [total, 4] float16; images: a table of id and uri."""

    keys: Ints
    codes: Codes
    offsets: Ints
    boxes: np.ndarray
    images: pa.Table


def open_table(folder: Path) -> lance.LanceDataset:
    if (folder / "store.json").exists():
        raise ValueError(f"{folder}: format version 1; this forclip reads version 2: index the images again")
    if not (folder / TABLE / "_versions").is_dir():
        raise ValueError(f"{folder}: no forclip store")
    with reword_errors(f"{folder}: damaged"):
        return lance.dataset(str(folder / TABLE))


@contextmanager
def reword_errors(
    prefix: str, errors: tuple[type[BaseException], ...] = (ValueError, OSError, RuntimeError)
) -> Iterator[None]:
    """Raise Lance's errors as ValueError in one short sentence, without the position in Lance's own source."""
    try:
        yield
    except errors as error:
        raise ValueError(f"{prefix}: {str(error).split(', /')[0].strip()[:300]}") from None


@contextmanager
def writers_lock(folder: Path) -> Iterator[None]:
    """Hold a store's lock for writers, which a killed process releases, and reword Lance's errors."""
    try:
        with (
            FileLock(folder / LOCK, timeout=_LOCK_SECONDS),
            reword_errors(f"{folder}: nothing was changed", (OSError, RuntimeError, pa.ArrowInvalid)),
        ):
            yield
    except Timeout:
        raise ValueError(f"{folder}: another process has been writing for {_LOCK_SECONDS:.0f} s") from None


def read_keys(table: lance.LanceDataset, where: str | None = None) -> Ints:
    """Return the keys of one version's images, as `Store.keys` does."""
    keys: Ints = read_column(table, "number", where).to_numpy()
    return keys


def read_column(table: lance.LanceDataset, name: str, where: str | None = None) -> pa.ChunkedArray:
    """Return a column of all images, or of those for which an SQL expression holds. Raises ValueError for bad SQL."""
    wanted = None if where is None else lance_filter(where, table.schema)
    with reword_errors(f"{table.uri}: damaged" if where is None else f"can't select images by {where!r}"):
        return table.to_table([name], filter=wanted)[name]


def read_rows(table: lance.LanceDataset, key: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
    """Return the rows that have one of these values in the column `key`: it, other columns, and `_rowaddr`.

    Few values are looked up in the index on that column, many are compared with those of all images.
    """
    names = list(dict.fromkeys([key, *columns]))
    unique = list(dict.fromkeys(values))
    if len(unique) * _SCANNED_PER_VALUE <= table.count_rows():
        starts = range(0, len(unique), _VALUES_AT_ONCE)
        filters = (f"{key} IN ({quoted(unique[start : start + _VALUES_AT_ONCE])})" for start in starts)
        found = [table.scanner(names, filter=wanted, with_row_address=True).to_table() for wanted in filters]
    else:
        value_set = pa.array(unique, pa.string())
        batches = table.scanner(names, with_row_address=True, batch_size=_SCANNED_AT_ONCE).to_batches()
        found = [pa.Table.from_batches([b.filter(pc.is_in(b[key], value_set=value_set))]) for b in batches]
    if not found:
        return table.scanner(names, with_row_address=True, limit=0).to_table()
    return pa.concat_tables(found)


def replace_rows(table: lance.LanceDataset, addresses: NDArray[np.uint64], rows: pa.Table) -> None:
    """Delete the rows at these addresses and insert others, in one version."""
    new = lance.fragment.write_fragments(rows, table, schema=table.schema)
    changed, removed = [], []
    for fragment_id in np.unique(addresses >> _OFFSET_BITS).tolist():
        offsets = (addresses[addresses >> _OFFSET_BITS == fragment_id] & _OFFSET_MASK).tolist()
        left = table.get_fragment(fragment_id).delete_rows(offsets)
        if left is None:
            removed.append(fragment_id)
        else:
            changed.append(left)
    update = lance.LanceOperation.Update(removed_fragment_ids=removed, updated_fragments=changed, new_fragments=new)
    lance.LanceDataset.commit(table, update, read_version=table.version)


def read_vectors(table: lance.LanceDataset, dim: int, keys: Ints | None = None) -> Iterator[StoredVectors]:
    """Read all images of one version, or those with these keys, block by block. Raises ValueError for damage."""
    with reword_errors(f"{table.uri}: damaged"):
        columns = ["number", "id", "uri", "vectors", "boxes"]
        if keys is None:
            batches = table.to_batches(columns=columns, batch_size=_ROWS_AT_ONCE)
            blocks = (pa.Table.from_batches([batch]) for batch in batches if batch.num_rows)
        else:  # by position, which reads nothing else
            stored = table.to_table(["number"])["number"]
            positions = np.flatnonzero(pc.is_in(stored, value_set=pa.array(np.sort(keys))).to_numpy()).tolist()
            starts = range(0, len(positions), _ROWS_AT_ONCE)
            blocks = (table.take(positions[start : start + _ROWS_AT_ONCE], columns=columns) for start in starts)
        for block in blocks:
            codes, offsets = from_lists(block["vectors"], dim)
            boxes, _ = from_lists(block["boxes"], 4)
            images = pa.table({"id": block["id"], "uri": block["uri"]})
            yield StoredVectors(block["number"].to_numpy(), codes, offsets, boxes, images)


def quoted(texts: Iterable[str]) -> str:
    """Texts as a list of SQL literals."""
    return ", ".join(map(quote, texts))
