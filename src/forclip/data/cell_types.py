"""The types of text cells: numbers, dates and truth values, as spreadsheets and pandas write them."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

# What pandas, R and spreadsheets write for no value. In a column of text they stay text.
NO_VALUE = frozenset(
    ["", "-nan", "-NaN", "#N/A", "#NA", "#NV", "<NA>", "N/A", "NA", "NULL", "NaN", "NaT", "None", "n/a", "nan", "null"]
)
_MOSTLY = 0.8  # share of cells that shows which type a column of text was meant to have
_WHOLE = re.compile(r"[+-]?(0|[1-9]\d*)")
_WHOLE_FRACTION = re.compile(r"([+-]?(?:0|[1-9]\d*))\.0*")
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?((0|[1-9]\d*)|[1-9]\d{0,2}(\.\d{3})+)(,\d+)?([eE][+-]?\d+)?")
_DAY = re.compile(r"(\d{4})-(\d\d)-(\d\d)")
_GERMAN_DAY = re.compile(r"(\d\d?)\.(\d\d?)\.(\d{4})")
_TIME = r"(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d{1,6})0*)?)?(Z|[+-]\d\d:?[0-5]\d)?"
_MOMENT = re.compile(rf"(?:(\d{{4}}[-:]\d\d[-:]\d\d)[T ]|(\d\d?\.\d\d?\.\d{{4}}) ){_TIME}")
_LARGEST_EXACT = 2**53

Parser = Callable[[str], Any]  # None for a cell that has another type


def parse_cells(cells: Sequence[str], decimal_comma: bool) -> pa.Array:
    """Convert a column to the narrowest of truth values, whole numbers, numbers, dates, times and text that fits all.

    Nothing is rounded: numbers with leading zeros or too many digits, and nanoseconds, are text. decimal_comma: whether
    1,5 is a number, and 1.000,5 too.
    """
    if not (given := _given(cells)):
        return pa.nulls(len(cells))
    for data_type, parse in _parsers(decimal_comma):
        if (array := _parse_all(cells, given, data_type, parse)) is not None:
            return array
    return pa.array(cells, pa.string())


def parse_cells_as(cells: Sequence[str], data_type: pa.DataType, decimal_comma: bool) -> pa.Array | int:
    """Convert a column to a type of a store, or return the position of the first cell that has another type."""
    if pa.types.is_string(data_type):
        return pa.array(cells, pa.string())
    parsers = [parse for known, parse in _parsers(decimal_comma) if known == data_type]
    if pa.types.is_int64(data_type):
        parsers = [_whole_fraction]
    if pa.types.is_boolean(data_type):
        parsers = [_truth_or_digit]
    given = _given(cells)
    for parse in parsers:
        if (array := _parse_all(cells, given, data_type, parse)) is not None:
            return array
    unfit = (
        k for k, cell in enumerate(cells) if cell in given and all(parse(cell.strip()) is None for parse in parsers)
    )
    return next(unfit, 0)


def odd_cell(cells: Sequence[str], decimal_comma: bool) -> int | None:
    """Return the position of the first cell that is text in a column where most are not, or None."""
    given = _given(cells)
    count = sum(cell in given for cell in cells)
    for _, parse in _parsers(decimal_comma):
        others = {cell for cell in given if parse(cell.strip()) is None}
        positions = [k for k, cell in enumerate(cells) if cell in others]
        if 0 < len(positions) <= (1 - _MOSTLY) * count:
            return positions[0]
    return None


def _given(cells: Sequence[str]) -> set[str]:
    return {cell for cell in cells if cell.strip() not in NO_VALUE}


def _parsers(decimal_comma: bool) -> list[tuple[pa.DataType, Parser]]:
    parsers: list[tuple[pa.DataType, Parser]] = [
        (pa.bool_(), _truth),
        (pa.int64(), _whole),
        (pa.float64(), _number),
        (pa.date32(), _day),
        (pa.timestamp("us"), _local_moment),
        (pa.timestamp("us", "UTC"), _moment_with_zone),
    ]
    return [*parsers[:3], (pa.float64(), _comma_number), *parsers[3:]] if decimal_comma else parsers


def _parse_all(cells: Sequence[str], given: set[str], data_type: pa.DataType, parse: Parser) -> pa.Array | None:
    values: dict[str, Any] = {}
    for cell in given:
        if (value := parse(cell.strip())) is None:
            return None
        values[cell] = value
    return pa.array([values.get(cell) for cell in cells], data_type)


def _truth(cell: str) -> bool | None:
    return {"true": True, "false": False}.get(cell.lower())


def _truth_or_digit(cell: str) -> bool | None:
    return {"1": True, "0": False, "1.0": True, "0.0": False}.get(cell, _truth(cell))


def _whole(cell: str) -> int | None:
    value = int(cell) if len(cell) < 30 and _WHOLE.fullmatch(cell) else None
    return value if value is not None and -(2**63) <= value < 2**63 else None


def _whole_fraction(cell: str) -> int | None:
    """A whole number, also as pandas writes it in a column with missing values: 3.0."""
    fraction = _WHOLE_FRACTION.fullmatch(cell)
    return _whole(fraction[1] if fraction else cell)


def _number(cell: str) -> float | None:
    if not _NUMBER.fullmatch(cell) or (_WHOLE.fullmatch(cell) and abs(int(cell[:30])) > _LARGEST_EXACT):
        return None
    return float(cell)


def _comma_number(cell: str) -> float | None:
    return float(cell.replace(".", "").replace(",", ".")) if _DECIMAL_COMMA.fullmatch(cell) else None


def _day(cell: str) -> date | None:
    found = _DAY.fullmatch(cell) or _GERMAN_DAY.fullmatch(cell)
    if found is None:
        return None
    year, month, day = map(int, found.groups() if cell[4] == "-" else reversed(found.groups()))
    try:
        return date(year, month, day)
    except ValueError:  # such as February 30
        return None


def _moment(cell: str) -> datetime | None:
    """Read a date with a time: ISO 8601, EXIF's with colons, or German. One with a zone is in UTC."""
    found = _MOMENT.fullmatch(cell)
    if found is None or (day := _day((found[1] or found[2]).replace(":", "-"))) is None:
        return None
    _, _, hour, minute, second, fraction, zone = found.groups(default="")
    try:
        moment = datetime.fromisoformat(f"{day}T{hour:0>2}:{minute}:{second or '00'}.{fraction or '0'}{zone}")
        return moment.astimezone(UTC) if zone else moment
    except (ValueError, OverflowError):
        return None


def _local_moment(cell: str) -> datetime | None:
    day = _day(cell)
    moment = _moment(cell) if day is None else datetime(day.year, day.month, day.day)
    return moment if moment is not None and moment.tzinfo is None else None


def _moment_with_zone(cell: str) -> datetime | None:
    moment = _moment(cell)
    return moment if moment is not None and moment.tzinfo is not None else None
