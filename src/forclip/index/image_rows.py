"""Columns of a store's images by key, without their vectors."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from forclip.index.columns import is_readable, to_shown
from forclip.index.schema import BUILT_IN_COLUMNS
from forclip.index.store import Store
from forclip.index.table import read_keys
from forclip.index.view import in_sorted
from forclip.types import Ints

_KEPT_BYTES = 256 << 20  # of rows in memory
_UNREAD_COLUMNS = ("added", "vectors", "boxes")  # large, or of no use to a client


@dataclass(frozen=True)
class _Version:
    """One version's rows. keys: ascending; positions: the row of each; rows: None where they exceed the memory."""

    table: lance.LanceDataset
    keys: Ints
    positions: Ints
    rows: pa.Table | None


class ImageRows:
    """Rows of the newest version without vectors: in memory up to a number of bytes, else read from the table."""

    def __init__(self, store: Store, max_bytes: int = _KEPT_BYTES) -> None:
        self.store, self.max_bytes = store, max_bytes
        self._lock = Lock()
        self._version: _Version | None = None

    def read(self, keys: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return rows by key; deleted images are left out."""
        version = self._newest()
        wanted = np.array(keys, np.int64)
        present = wanted[in_sorted(wanted, version.keys)]
        positions = version.positions[np.searchsorted(version.keys, present)]
        if version.rows is None:
            rows = version.table.take(positions.tolist(), columns=_columns(version.table))
        else:
            rows = version.rows.take(pa.array(positions))
        for name in set(rows.column_names) - set(BUILT_IN_COLUMNS):
            rows = rows.set_column(rows.column_names.index(name), name, to_shown(rows[name]))
        return {row.pop("number"): row for row in rows.to_pylist()}

    def _newest(self) -> _Version:
        with self._lock:  # other threads wait while one reads a new version
            table = self.store.table()
            if self._version is None or self._version.table.version != table.version:
                keys, batches, size = read_keys(table), [], 0
                for batch in table.to_batches(columns=_columns(table)):
                    batches.append(batch)
                    size += batch.nbytes
                    if size > self.max_bytes:
                        batches.clear()
                        break
                rows = pa.Table.from_batches(batches).combine_chunks() if batches else None
                positions = np.argsort(keys)
                self._version = _Version(table, keys[positions], positions, rows)
            return self._version


def _columns(table: lance.LanceDataset) -> list[str]:
    return [name for name in table.schema.names if name not in _UNREAD_COLUMNS and is_readable(name)]
