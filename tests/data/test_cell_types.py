from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forclip.data.cell_types import odd_cell, parse_cells, parse_cells_as

WHOLE, NUMBER, TEXT, TRUTH, DAY = pa.int64(), pa.float64(), pa.string(), pa.bool_(), pa.date32()
LOCAL, ZONED = pa.timestamp("us"), pa.timestamp("us", "UTC")
COLUMNS: list[tuple[list[str], pa.DataType, list[Any]]] = [
    (["1", "-2", ""], WHOLE, [1, -2, None]),
    (["1", " 2 ", "NaN"], WHOLE, [1, 2, None]),
    (["1", "2.5", "1e3", ".5", "-inf"], NUMBER, [1, 2.5, 1000, 0.5, float("-inf")]),
    (["true", "FALSE", "NA"], TRUTH, [True, False, None]),
    (["2026-01-02", ""], DAY, [date(2026, 1, 2), None]),
    (["02.01.2026", "2026-01-02"], DAY, [date(2026, 1, 2)] * 2),
    (["2026-01-02 03:04:05", "2026-01-02T03:04"], LOCAL, [datetime(2026, 1, 2, 3, 4, 5), datetime(2026, 1, 2, 3, 4)]),
    (
        ["2026:01:02 03:04:05.5", "02.01.2026 3:04"],
        LOCAL,
        [datetime(2026, 1, 2, 3, 4, 5, 500_000), datetime(2026, 1, 2, 3, 4)],
    ),
    (["2026-01-02", "2026-01-02 03:04:05"], LOCAL, [datetime(2026, 1, 2), datetime(2026, 1, 2, 3, 4, 5)]),
    (["2026-01-02T03:04:05Z", "2026-01-02 05:04:05+02:00"], ZONED, [datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)] * 2),
    (["", "NaN", " "], pa.null(), [None] * 3),
]
AS_TEXT = {
    "leading zeros": ["007", "1"],
    "too many digits": ["18446744073709551616", "1"],
    "a whole number that a double rounds": ["9007199254740993", "0.5"],
    "nanoseconds": ["2026-01-02 03:04:05.123456789"],
    "no day": ["2026-02-30"],
    "times of two kinds": ["2026-01-02 03:04:05", "2026-01-02 03:04:05Z"],
    "times of day": ["10:15", "11:20"],
    "a truth value and a number": ["true", "2"],
    "thousands or a decimal comma": ["1,234"],
    "words": ["front", "NA"],
}


@pytest.mark.parametrize(("cells", "data_type", "values"), COLUMNS)
def test_a_column_has_the_narrowest_type_that_fits(cells: list[str], data_type: pa.DataType, values: list[Any]) -> None:
    array = parse_cells(cells, decimal_comma=False)
    assert array.type == data_type
    assert array.to_pylist() == values


@pytest.mark.parametrize("cells", AS_TEXT.values(), ids=AS_TEXT.keys())
def test_what_a_type_would_change_stays_text(cells: list[str]) -> None:
    assert parse_cells(cells, decimal_comma=False).to_pylist() == cells


def test_the_decimal_comma_of_semicolon_files() -> None:
    assert parse_cells(["1,5", "2", ""], decimal_comma=True).to_pylist() == [1.5, 2, None]
    assert parse_cells(["1.234,5", "10"], decimal_comma=True).to_pylist() == [1234.5, 10]
    assert parse_cells(["1.5", "2"], decimal_comma=True).to_pylist() == [1.5, 2]
    assert parse_cells(["1.5", "2,5"], decimal_comma=True).to_pylist() == ["1.5", "2,5"]


def test_cells_take_the_type_of_a_column_or_show_which_does_not() -> None:
    fitting = [
        (["3.0", ""], pa.array([3, None], WHOLE)),
        (["1", "0"], pa.array([True, False])),
        (["007"], pa.array(["007"])),
        (["2026-01-02"], pa.array([datetime(2026, 1, 2)], LOCAL)),
    ]
    for cells, expected in fitting:
        assert parse_cells_as(cells, expected.type, decimal_comma=False) == expected
    assert parse_cells_as(["1", "", "2.5"], WHOLE, decimal_comma=False) == 2
    assert parse_cells_as(["NA", "x"], NUMBER, decimal_comma=False) == 1


def test_the_odd_cell_of_a_column_of_numbers() -> None:
    assert odd_cell([*"123456", "", "fast"], decimal_comma=False) == 7
    assert odd_cell(["1", "fast"], decimal_comma=False) is None
    assert odd_cell(["1", "2"], decimal_comma=False) is None


@given(
    st.lists(
        st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.dates(), st.datetimes()).map(str)
    )
)
def test_no_cell_is_changed(cells: list[str]) -> None:
    """Python reads from the cell what the column holds."""
    array = parse_cells(cells, decimal_comma=False)
    for cell, value in zip(cells, array.to_pylist(), strict=True):
        if isinstance(value, str):
            assert value == cell
        elif isinstance(value, bool) or value is None:
            assert cell.strip().lower() in (
                "true",
                "false",
                *(x.lower() for x in ("", "nan", "none", "na", "null", "nat", "n/a")),
            )
        elif isinstance(value, int | float):
            assert value == (float(cell) if isinstance(value, float) else int(cell))
        else:
            assert str(value) == cell or str(value) == f"{cell} 00:00:00"
