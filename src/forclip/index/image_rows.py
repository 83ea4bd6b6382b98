"""Columns of a store's images by key, without their vectors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from forclip.index.columns import is_readable, to_shown
from forclip.index.schema import BUILT_IN_COLUMNS
from forclip.index.table import take_rows
from forclip.index.view import View

_KEPT_IMAGES = 65_536  # more are read from the table
_UNREAD_COLUMNS = ("added", "vectors", "boxes")  # large, or of no use to a client


@dataclass(frozen=True)
class _Version:
    """The rows of a view in the order of their addresses, None where there are too many."""

    view: View
    rows: pa.Table | None


class ImageRows:
    """Rows of the newest version without vectors: in memory for a small store, else read from the table."""

    def __init__(self, newest: Callable[[], View], max_images: int = _KEPT_IMAGES) -> None:
        """newest: returns the newest version; max_images: whose rows are kept in memory."""
        self.max_images = max_images
        self._newest_view, self._lock = newest, Lock()
        self._version: _Version | None = None

    def read(self, keys: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return rows by key, in the order of the keys; deleted images are left out."""
        version = self._newest()
        addresses = version.view.addresses_of_keys(np.array(keys, np.int64))
        if version.rows is None:
            rows = take_rows(version.view.table, addresses, _columns(version.view.table))
        else:
            stored = version.rows["_rowaddr"].to_numpy()
            rows = version.rows.drop_columns(["_rowaddr"]).take(pa.array(np.searchsorted(stored, addresses)))
        for name in set(rows.column_names) - set(BUILT_IN_COLUMNS):
            rows = rows.set_column(rows.column_names.index(name), name, to_shown(rows[name]))
        by_key = {row.pop("number"): row for row in rows.to_pylist()}
        return {key: by_key[key] for key in keys if key in by_key}

    def _newest(self) -> _Version:
        view = self._newest_view()
        with self._lock:  # other threads wait while one reads a new version
            if self._version is None or self._version.view is not view:
                rows = None
                if len(view) <= self.max_images:
                    rows = view.table.scanner(_columns(view.table), with_row_address=True).to_table()
                    rows = rows.sort_by("_rowaddr").combine_chunks()
                self._version = _Version(view, rows)
            return self._version


def _columns(table: lance.LanceDataset) -> list[str]:
    return [name for name in table.schema.names if name not in _UNREAD_COLUMNS and is_readable(name)]
