"""Open, lock and read the Lance table of a store."""

import os
import random
import re
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import lance
import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from forclip.bucket_errors import without_secrets
from forclip.bucket_path import BucketPath, StorePath
from forclip.index.filter_values import quote
from forclip.index.filters import lance_filter
from forclip.index.places import OFFSET_BITS, OFFSET_MASK, Addresses
from forclip.index.schema import Codes, from_lists
from forclip.types import Ints

TABLE, LOCK = "images.lance", "writer.lock"
_LOCK_SECONDS = 600.0  # that a writer waits for another one
_ROWS_AT_ONCE = 4096
_VALUES_AT_ONCE = 1024  # in one SQL expression
_SCANNED_PER_VALUE = 64  # reading so many rows takes as long as looking one up
_SCANNED_AT_ONCE = 65_536
_SCANNED_SHARE = 4  # if one row in 4 of a fragment is wanted, all are read
_READ_AHEAD, _BUFFERED_BYTES = 2, 256 << 20  # Lance's own buffers take gigabytes
_MAX_ATTEMPTS = 50  # of a change in a bucket
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0  # seconds between two attempts
_CONFLICT = re.compile(
    r"(?i)too many concurrent writers|commit conflict|incompatible transaction|preempted by"
    r"|Column .* already exists in the dataset"
)

Result = TypeVar("Result")


@dataclass(frozen=True)
class StoredVectors:
    """Some images of a store. keys: [images]; codes: [total, dim] as stored, `StoreHeader.decode` gives vectors;
    offsets: [images + 1]; boxes: [total, 4] float16; images: a table of id and uri; addresses: [images], where the rows
    are in the table, None if they are in none."""

    keys: Ints
    codes: Codes
    offsets: Ints
    boxes: np.ndarray
    images: pa.Table
    addresses: Addresses | None = None


def open_table(folder: StorePath) -> lance.LanceDataset:
    """Open the newest version. Raises ValueError if there is none, or it is damaged or can't be reached."""
    if isinstance(folder, Path):
        if (folder / "store.json").exists():
            raise ValueError(f"{folder}: format version 1; this forclip reads version 2: index the images again")
        if not (folder / TABLE / "_versions").is_dir():
            raise ValueError(f"{folder}: no forclip store; {_what_else(folder)}")
    with reword_errors(f"{folder}: damaged", place=folder):
        try:
            return lance.dataset(str(folder / TABLE))
        except ValueError as error:
            if isinstance(folder, BucketPath) and "was not found" in str(error):
                raise ValueError(f"{folder}: no forclip store") from None
            raise


def _what_else(folder: Path) -> str:
    """What is in place of a store, and the command for it."""
    if not os.path.lexists(folder):
        return "there is no such file or folder"
    if not folder.is_dir():
        return "it is a file"
    stores = sorted(str(path.parents[1]) for path in folder.glob(f"*/{TABLE}/_versions"))
    if stores:
        return f"did you mean {stores[0]}{f', or one of {len(stores) - 1} others in it' if len(stores) > 1 else ''}?"
    return f"to make one of its pictures: forclip quickstart {shlex.quote(str(folder))}"


@contextmanager
def reword_errors(
    prefix: str,
    errors: tuple[type[BaseException], ...] = (ValueError, OSError, RuntimeError),
    place: StorePath | None = None,
) -> Iterator[None]:
    """Raise Lance's errors as ValueError in one short sentence, without the position in Lance's own source.

    place: the store; for one in a bucket, what its object store reports is said in plain words.
    """
    try:
        yield
    except errors as error:
        message = f"{prefix}: {str(error).split(', /')[0].strip()[:300]}"
        if isinstance(place, BucketPath):
            if str(error).startswith(f"{place}: "):
                raise
            message = place.problem(error) or without_secrets(message)
        raise ValueError(message) from None


def change(folder: StorePath, operation: Callable[[], Result]) -> Result:
    """Run an operation that reads a store's newest version and commits a change of it. Returns what it returns.

    One process at a time changes a local store. A store in a bucket has no lock: a commit fails if another machine has
    changed the same images since they were read, and the operation is run again. Raises ValueError after ten minutes of
    another process that writes, or too many such failures.
    """
    if isinstance(folder, Path):
        with writers_lock(folder):
            return operation()
    for attempt in range(_MAX_ATTEMPTS):
        with reword_errors(f"{folder}: nothing was changed", (OSError, RuntimeError, pa.ArrowInvalid), folder):
            try:
                return operation()
            except (OSError, RuntimeError, ValueError) as error:
                if not is_conflict(error):
                    raise
        time.sleep(random.uniform(0.5, 1) * min(_LONGEST_PAUSE, _FIRST_PAUSE * 1.5**attempt))
    raise ValueError(f"{folder}: nothing was changed: other machines changed the same images {_MAX_ATTEMPTS} times")


def is_conflict(error: BaseException) -> bool:
    """Whether a commit failed because another one came first."""
    return _CONFLICT.search(str(error)) is not None


@contextmanager
def writers_lock(folder: Path) -> Iterator[None]:
    """Hold a local store's lock for writers, which a killed process releases, and reword Lance's errors."""
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
        wanted = set(unique)
        found = []
        for batch in table.scanner(names, with_row_address=True, batch_size=_SCANNED_AT_ONCE).to_batches():
            rows = [row for row, value in enumerate(batch[key].to_pylist()) if value in wanted]
            found.append(pa.Table.from_batches([batch.take(pa.array(rows, pa.int64()))]))
    if not found:
        return table.scanner(names, with_row_address=True, limit=0).to_table()
    return pa.concat_tables(found)


def replace_rows(table: lance.LanceDataset, addresses: Addresses, rows: pa.Table | None) -> None:
    """Delete the rows at these addresses and insert others, None for none, in one version."""
    new = [] if rows is None else lance.fragment.write_fragments(rows, table, schema=table.schema)
    changed, removed = [], []
    for fragment_id in np.unique(addresses >> OFFSET_BITS).tolist():
        offsets = (addresses[addresses >> OFFSET_BITS == fragment_id] & OFFSET_MASK).tolist()
        left = table.get_fragment(fragment_id).delete_rows(offsets)
        if left is None:
            removed.append(fragment_id)
        else:
            changed.append(left)
    update = lance.LanceOperation.Update(removed_fragment_ids=removed, updated_fragments=changed, new_fragments=new)
    lance.LanceDataset.commit(table, update, read_version=table.version)


def matching_addresses(table: lance.LanceDataset, where: str) -> Addresses:
    """Return the ascending addresses of the images for which an SQL expression holds. Raises ValueError for bad SQL."""
    wanted = lance_filter(where, table.schema)
    with reword_errors(f"can't select images by {where!r}"):
        found = table.scanner([], filter=wanted, with_row_address=True).to_table()["_rowaddr"]
    return np.sort(found.to_numpy())


def take_rows(table: lance.LanceDataset, addresses: Addresses, columns: Sequence[str]) -> pa.Table:
    """Return the rows at these addresses, in this order."""
    return table._take_rows(pa.array(addresses), columns=list(columns))


def read_vectors(table: lance.LanceDataset, dim: int, addresses: Addresses | None = None) -> Iterator[StoredVectors]:
    """Read all images of one version, or those at these addresses, block by block, in the order of the table.

    Raises ValueError for damage.
    """
    with reword_errors(f"{table.uri}: damaged"):
        for block in _read_blocks(table, ["number", "id", "uri", "vectors", "boxes"], addresses):
            codes, offsets = from_lists(block["vectors"], dim)
            boxes, _ = from_lists(block["boxes"], 4)
            images = pa.table({"id": block["id"], "uri": block["uri"]})
            # Copies: a view of a column would keep the whole block in memory, vectors included.
            keys, at = (block[name].to_numpy().copy() for name in ("number", "_rowaddr"))
            yield StoredVectors(keys, codes, offsets, boxes, images, at)


def _read_blocks(table: lance.LanceDataset, columns: list[str], addresses: Addresses | None) -> Iterator[pa.Table]:
    """Read rows with their addresses: whole fragments where most of their rows are wanted, else row by row."""
    ordered = addresses
    if addresses is not None and (addresses[1:] < addresses[:-1]).any():
        ordered = np.sort(addresses)
    for fragment in table.get_fragments():
        rows = None
        if ordered is not None:
            first = fragment.fragment_id << 32
            low, high = np.searchsorted(ordered, np.array([first, first + (1 << 32)], np.uint64))
            rows = ordered[low:high]
            if not len(rows):
                continue
        if rows is None or len(rows) * _SCANNED_SHARE >= fragment.physical_rows:
            batches = table.scanner(
                columns,
                fragments=[fragment],
                with_row_address=True,
                batch_size=_ROWS_AT_ONCE,
                batch_readahead=_READ_AHEAD,
                io_buffer_size=_BUFFERED_BYTES,
            ).to_batches()
            for batch in batches:
                if rows is not None and len(rows) < fragment.physical_rows:
                    at = np.searchsorted(rows, batch["_rowaddr"].to_numpy()).clip(max=len(rows) - 1)
                    batch = batch.filter(pa.array(rows[at] == batch["_rowaddr"].to_numpy()))
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])
        else:
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                at = rows[start : start + _ROWS_AT_ONCE]
                yield take_rows(table, at, columns).append_column("_rowaddr", pa.array(at))


def quoted(texts: Iterable[str]) -> str:
    """Texts as a list of SQL literals."""
    return ", ".join(map(quote, texts))
