"""What is known of the store's images beside their vectors, by key, without searching the table for each page."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from forclip.index.store import Store, read_keys
from forclip.index.view import in_sorted
from forclip.types import Ints

_KEPT_BYTES = 256 << 20
_LEFT_OUT = ("added", "vectors", "boxes")  # large, or of no use to anyone who looks


@dataclass(frozen=True)
class _Version:
    """numbers: ascending; places: the row of each; rows: in memory, or None where they are too many."""

    table: lance.LanceDataset
    keys: Ints
    places: Ints
    rows: pa.Table | None

    def take(self, keys: Ints) -> pa.Table:
        """Those that are there, in no order."""
        there = keys[in_sorted(keys, self.keys)]
        places = self.places[np.searchsorted(self.keys, there)]
        if self.rows is None:
            return self.table.take(places.tolist(), columns=_columns(self.table))
        return self.rows.take(pa.array(places))


class ImageRows:
    """The newest version's rows: in memory up to a number of bytes, else taken from the table by their places in it."""

    def __init__(self, store: Store, most_bytes: int = _KEPT_BYTES) -> None:
        self.store, self.most_bytes = store, most_bytes
        self._reading = Lock()
        self._version: _Version | None = None

    def of(self, keys: Sequence[int]) -> dict[int, dict[str, Any]]:
        """By key; those that are gone are left out."""
        rows = self._newest().take(np.array(keys, np.int64)).to_pylist()
        return {row.pop("number"): row for row in rows}

    def _newest(self) -> _Version:
        table, known = self.store.table(), self._version
        if known is None or known.table.version != table.version:
            with self._reading:  # the others wait for the first that asks
                table, known = self.store.table(), self._version
                if known is None or known.table.version != table.version:
                    known = self._version = self._read(table)
        return known

    def _read(self, table: lance.LanceDataset) -> _Version:
        keys = read_keys(table)
        places = np.argsort(keys)
        return _Version(table, keys[places], places, self._in_memory(table))

    def _in_memory(self, table: lance.LanceDataset) -> pa.Table | None:
        batches, size = [], 0
        for batch in table.to_batches(columns=_columns(table)):
            size += batch.nbytes
            if size > self.most_bytes:
                return None
            batches.append(batch)
        return pa.Table.from_batches(batches).combine_chunks() if batches else None


def _columns(table: lance.LanceDataset) -> list[str]:
    return [name for name in table.schema.names if name not in _LEFT_OUT]
