"""Names and types of the users' columns: nothing is changed in silence, and nothing breaks a store."""

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from forclip.index.columns import (
    cast_exactly,
    is_readable,
    is_stored_as_is,
    name_problem,
    to_shown,
    to_stored,
    usable_name,
    wider_type,
)

UTC_TIME = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
STORED: list[tuple[pa.Array, pa.DataType, Any]] = [
    (pa.array([7], pa.uint8()), pa.int64(), 7),
    (pa.array([2**64 - 1], pa.uint64()), pa.string(), "18446744073709551615"),
    (pa.array([1.5], pa.float32()), pa.float64(), 1.5),
    (pa.array([float("nan")]), pa.float64(), None),
    (pa.array([float("inf")]), pa.float64(), float("inf")),
    (pa.array([Decimal("1.50")]), pa.float64(), 1.5),
    (pa.array([Decimal("12345678901234567890.5")]), pa.string(), "12345678901234567890.5"),
    (pa.array(["a"]).dictionary_encode(), pa.string(), "a"),
    (pa.array(["a"], pa.large_string()), pa.string(), "a"),
    (pa.array([["a", "b"]]), pa.string(), '["a", "b"]'),
    (pa.array([{"x": 1}]), pa.string(), '{"x": 1}'),
    (pa.array([dt.time(1, 2)]), pa.string(), "01:02:00.000000"),
    (pa.array([dt.timedelta(seconds=90)]), pa.float64(), 90.0),
    (pa.array([1_000], pa.timestamp("ns")), pa.timestamp("us"), dt.datetime(1970, 1, 1, 0, 0, 0, 1)),
    (pa.array([1], pa.timestamp("ns")), pa.string(), "1970-01-01 00:00:00.000000001"),
    (pa.array([10**15], pa.timestamp("s")), pa.string(), "1000000000000000"),
    (pa.array([UTC_TIME]).cast(pa.timestamp("s", "Europe/Berlin")), pa.timestamp("us", "UTC"), UTC_TIME),
    (pa.array([dt.date(2026, 1, 2)]), pa.date32(), dt.date(2026, 1, 2)),
    (pa.array([3_000_000], pa.date32()), pa.string(), "10183-09-21"),
    (pa.array([True]), pa.bool_(), True),
    (pa.nulls(1), pa.null(), None),
]


@pytest.mark.parametrize(("values", "stored", "value"), STORED, ids=[str(values.type) for values, *_ in STORED])
def test_values_are_stored_whole_in_a_type_that_can_be_filtered_and_shown(
    values: pa.Array, stored: pa.DataType, value: Any
) -> None:
    converted = to_stored(values)
    assert converted.type == stored
    assert converted.to_pylist() == [value]
    assert is_stored_as_is(stored)
    assert to_stored(pa.chunked_array([values[:0], values])).equals(converted)


def test_binary_values_are_refused_and_shown_as_text() -> None:
    for values in (pa.array([b"v\xf6gel", None]), pa.array([b"v\xf6gel", None], pa.large_binary())):
        with pytest.raises(ValueError, match="binary"):
            to_stored(values)
        assert to_shown(values).to_pylist() == ["vögel", None]


def test_a_column_grows_where_it_loses_nothing() -> None:
    integer, number, text, date, time = pa.int64(), pa.float64(), pa.string(), pa.date32(), pa.timestamp("us")
    growing = {
        (integer, number): number,
        (number, integer): number,
        (pa.int8(), integer): integer,
        (pa.float32(), number): number,
        (date, time): time,
        (time, date): time,
        (text, number): text,
        (integer, pa.null()): integer,
        (integer, text): None,
        (integer, pa.bool_()): None,
        (time, pa.timestamp("us", "UTC")): None,
        (date, text): None,
    }
    for (stored, new), expected in growing.items():
        assert wider_type(stored, new) == expected, (stored, new)


def test_a_number_that_the_wider_type_would_round_is_refused() -> None:
    assert cast_exactly(pa.array([1, None, 2**53]), pa.float64()).to_pylist() == [1, None, 2**53]
    with pytest.raises(ValueError, match=str(2**53 + 1)):
        cast_exactly(pa.array([2**53 + 1]), pa.float64())


BAD_NAMES = ["", " ", "a.b", "a`b", 'a"b', "a'b", "*", "a\nb", "\0", "_rowid", "_ROWADDR", "id", "Width", "vectors"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "x" * 500, "Camera"])
def test_names_that_would_break_a_store_are_changed(name: str) -> None:
    others = ["camera", "a_b"]
    assert name_problem(name, others) is not None
    changed = usable_name(name, others)
    assert name_problem(changed, others) is None
    assert is_readable(changed)


def test_other_names_stay() -> None:
    for name in ("speed", "Größe in cm", "1st", "select", "a,b", "a(b)", "é" * 100):
        assert name_problem(name, ["camera"]) is None
        assert usable_name(name, ["camera"]) == name


def test_numpy_values_are_values() -> None:
    assert to_stored(pa.array([np.int8(3), None])).to_pylist() == [3, None]
