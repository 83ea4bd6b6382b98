"""What values the columns of a store have: their kinds, counts and ranges, to choose filters from."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from forclip.index.columns import to_shown

ColumnKind = Literal["choice", "number", "time", "text"]
MOST_CHOICES = 200  # different texts; a column with more is free text
_FEW_CHOICES = 20  # different texts that are choices even if hardly any image shares one
_LONGEST_CHOICE = 100  # characters
_PATHS = ("uri",)  # columns that count as free text with any values
_MOST_NUMBERS = 12  # different whole numbers that are also listed with their counts
_SECONDS = 10.0  # for reading; the rest of a very large store is left out


@dataclass
class ColumnSummary:
    """The values of one column.

    kind: choice for true and false and for texts of which there are few different ones, text for others; type: the name
    of the Arrow type; counts: images by value, the most frequent first, for choices and for few whole numbers; lowest,
    highest: of numbers, dates and times; missing: images without a value.
    """

    name: str
    kind: ColumnKind
    type: str
    counts: dict[Any, int] = field(default_factory=dict)
    lowest: float | date | datetime | None = None
    highest: float | date | datetime | None = None
    missing: int = 0


@dataclass(frozen=True)
class ColumnSummaries:
    """columns: in the order read; images: whose rows were read; complete: whether these are all images."""

    columns: list[ColumnSummary]
    images: int
    complete: bool


def summarise_columns(blocks: Iterable[pa.Table], seconds: float = _SECONDS) -> ColumnSummaries:
    """Summarise the columns of a table that is read in blocks, at least one of which may be empty.

    seconds: after which the remaining blocks are left out.
    """
    end = time.monotonic() + seconds
    columns: dict[str, _Column] = {}
    images, complete = 0, True
    blocks = iter(blocks)
    for block in blocks:
        for name in block.column_names:
            values = to_shown(block[name])
            columns.setdefault(name, _Column(name, values.type)).add(values)
        images += len(block)
        if time.monotonic() > end:
            complete = next(blocks, None) is None
            break
    return ColumnSummaries([column.summary() for column in columns.values()], images, complete)


class _Column:
    """Collects the values of one column, block by block."""

    def __init__(self, name: str, data_type: pa.DataType) -> None:
        self.name, self.type, self.images, self.missing = name, data_type, 0, 0
        self.counts: Counter[Any] | None = Counter()  # None once there are too many different values
        self.lowest: Any = None
        self.highest: Any = None
        types = pa.types
        self.is_ordered = bool(
            types.is_integer(data_type)
            or types.is_floating(data_type)
            or types.is_date(data_type)
            or types.is_timestamp(data_type)
        )
        if name in _PATHS or (self.is_ordered and not types.is_integer(data_type)):
            self.counts = None

    def add(self, values: pa.Array | pa.ChunkedArray) -> None:
        self.images += len(values)
        self.missing += values.null_count
        values = values.drop_null()
        if self.is_ordered:
            if pa.types.is_floating(self.type):
                values = values.filter(pc.is_finite(values))
            if len(values):
                extremes = pc.min_max(values).as_py()
                self.lowest = extremes["min"] if self.lowest is None else min(self.lowest, extremes["min"])
                self.highest = extremes["max"] if self.highest is None else max(self.highest, extremes["max"])
        if self.counts is not None and not pa.types.is_null(self.type):
            for pair in pc.value_counts(values).to_pylist():
                self.counts[pair["values"]] += pair["counts"]
            if len(self.counts) > (_MOST_NUMBERS if self.is_ordered else MOST_CHOICES):
                self.counts = None

    def summary(self) -> ColumnSummary:
        if self.is_ordered:
            dated = pa.types.is_date(self.type) or pa.types.is_timestamp(self.type)
            kind: ColumnKind = "time" if dated else "number"
        else:
            kind = "choice" if self._is_choice() else "text"
        counts = {} if kind == "text" else dict((self.counts or Counter()).most_common())
        return ColumnSummary(self.name, kind, str(self.type), counts, self.lowest, self.highest, self.missing)

    def _is_choice(self) -> bool:
        if self.counts is None or any(isinstance(v, str) and len(v) > _LONGEST_CHOICE for v in self.counts):
            return False
        return len(self.counts) <= _FEW_CHOICES or 2 * len(self.counts) <= self.images
