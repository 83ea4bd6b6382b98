"""The columns that filters may use, with their values, to choose from."""

import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

from fastapi import APIRouter

from forclip.index.column_summary import ColumnSummary, summarise_columns
from forclip.index.schema import BUILT_IN_COLUMNS
from forclip.server.gallery import Gallery
from forclip.server.schemas import ColumnOut, ColumnsOut, ValueCount

_REST = 20  # a store that changes all the time is read again after this many times the duration of reading it


@dataclass(frozen=True)
class _Answer:
    view: Any
    columns: ColumnsOut
    fresh_until: float  # time.monotonic()


class ColumnTable:
    """Summarises a store's columns, and keeps the summary while the store does not change. Thread-safe."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery, self._lock = gallery, Lock()
        self._answer: _Answer | None = None

    def current(self) -> ColumnsOut:
        """Return the columns. Threads that ask while one reads wait for it."""
        with self._lock:
            view, started, answer = self._gallery.index.view(), time.monotonic(), self._answer
            if answer is None or (answer.view is not view and started > answer.fresh_until):
                found = summarise_columns(self._gallery.index.column_blocks())
                columns = [_column(summary) for summary in found.columns]
                out = ColumnsOut(columns=columns, images=found.images, complete=found.complete)
                ended = time.monotonic()
                answer = self._answer = _Answer(view, out, ended + _REST * (ended - started))
            return answer.columns


def column_routes(gallery: Gallery) -> APIRouter:
    """Routes below /api."""
    routes, table = APIRouter(prefix="/api", tags=["search"]), ColumnTable(gallery)

    @routes.get("/columns")
    def columns() -> ColumnsOut:
        """The columns that a filter may use, the store's own first: kinds, values with counts, ranges."""
        return table.current()

    return routes


def _column(summary: ColumnSummary) -> ColumnOut:
    fields = {name: value for name, value in vars(summary).items() if name != "counts"}
    values = [ValueCount(value=value, images=images) for value, images in summary.counts.items()]
    return ColumnOut(**fields, values=values, own=summary.name not in BUILT_IN_COLUMNS)
