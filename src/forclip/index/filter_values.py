"""Values in filters: columns, constants, and how two of them are compared, in the words of Lance."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Literal

import numpy as np
import pyarrow as pa

Kind = Literal["text", "integer", "decimal", "double", "boolean", "timestamp", "date", "time", "other"]

EXACT: tuple[Kind, ...] = ("integer", "decimal")
NUMERIC: tuple[Kind, ...] = (*EXACT, "double")
_DATED: tuple[Kind, ...] = ("timestamp", "date")
_NAMES: dict[Kind, str] = {
    **dict.fromkeys(NUMERIC, "a number"),
    "text": "a text",
    "boolean": "true or false",
    "timestamp": "a time",
    "date": "a date",
    "time": "a time of day",
    "other": "a value that filters can't compare",
}
_EXAMPLES: dict[Kind, str] = {"timestamp": "'2024-01-31 14:00:00'", "date": "'2024-01-31'", "time": "'14:00:00'"}
_DATE = r"\d{4}-\d{2}-\d{2}"
_TIME = r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?"
_ZONE = r" ?(Z|[+-]\d{2}(:?\d{2})?)"
_NANOSECONDS = (datetime(1678, 1, 1), datetime(2262, 1, 1))  # what 64 bits of them can hold


class RefusedFilter(Exception):
    """A filter that is not accepted, and why."""


@dataclass(frozen=True)
class Value:
    """A part of a filter that has a value.

    sql: in Lance's words. A timestamp's is in UTC without a zone; a time of day's is text as HH:MM:SS.ffffff, which
    sorts as the times do. source: as the user wrote it. constant: of a constant. aware: whether a timestamp has a zone.
    single: whether a double comes from float32. nanoseconds: whether a timestamp is counted in them.
    """

    kind: Kind
    sql: str
    source: str
    constant: str | bool | Decimal | datetime | None = None
    aware: bool = False
    single: bool = False
    nanoseconds: bool = False

    @property
    def name(self) -> str:
        """What the value is, for messages."""
        return f"{self.source} is {_NAMES[self.kind]}"


def column_value(name: str, type_: pa.DataType) -> Value:
    """Return a column's values in a form that Lance compares as SQL does."""
    types, sql = pa.types, f"`{name}`"
    if types.is_dictionary(type_):
        type_ = type_.value_type
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return Value("text", sql, name)
    if types.is_boolean(type_):
        return Value("boolean", sql, name)
    if types.is_integer(type_):
        wide = "decimal(38, 0)" if types.is_uint64(type_) else "bigint"
        return Value("integer", sql if types.is_int64(type_) else f"CAST({sql} AS {wide})", name)
    if types.is_decimal(type_):
        return Value("decimal", sql, name)
    if types.is_floating(type_):
        plain = types.is_float64(type_)
        return Value("double", sql if plain else f"CAST({sql} AS double)", name, single=types.is_float32(type_))
    if types.is_timestamp(type_):
        nanoseconds = type_.unit == "ns"
        sql = f"CAST({sql} AS timestamp({9 if nanoseconds else 6}))"
        if type_.unit in ("s", "ms"):  # else Lance rounds what it is compared with to this unit
            sql = f"date_trunc('microsecond', {sql})"
        return Value("timestamp", sql, name, aware=type_.tz is not None, nanoseconds=nanoseconds)
    if types.is_date(type_):
        return Value("date", f"CAST({sql} AS date)", name)
    if types.is_time(type_):
        return Value("time", f"CAST({sql} AS string)", name)
    return Value("other", sql, name)


def text_constant(text: str) -> Value:
    """Return a text in quotes."""
    return Value("text", quote(text), quote(text), text)


def number_constant(number: Decimal, source: str) -> Value:
    """Return a number; one with an exponent is a double, as in SQL."""
    if "e" in source.lower():
        if not np.isfinite(float(number)):
            raise RefusedFilter(f"{source} is too large")
        return Value("double", repr(float(number)), source, number)
    whole, scale = number == number.to_integral_value(), max(0, -int(number.as_tuple().exponent))
    if len(number.as_tuple().digits) > 38 or scale > 38:
        raise RefusedFilter(f"{source} has too many digits")
    if whole and scale == 0 and abs(number) < 2**63:
        return Value("integer", str(number), source, number)
    return Value("integer" if scale == 0 else "decimal", f"CAST('{number:f}' AS decimal(38, {scale}))", source, number)


def dated_constant(text: str, kind: Kind) -> Value:
    """Return a time, date or time of day that is written as text. Raises RefusedFilter for another form of text."""
    source = quote(text)
    form = {"timestamp": rf"{_DATE}([ T]{_TIME}({_ZONE})?)?", "date": _DATE, "time": _TIME}[kind]
    if not re.fullmatch(form, text):
        raise RefusedFilter(f"{source} is not written as {_EXAMPLES[kind]}")
    try:
        if kind == "date":
            return Value(kind, f"CAST('{date.fromisoformat(text)}' AS date)", source)
        if kind == "time":
            of_day = time.fromisoformat(text)
            is_short = of_day.microsecond and of_day.microsecond % 1000 == 0  # Lance writes three digits
            return Value(kind, quote(of_day.isoformat("milliseconds" if is_short else "auto")), source)
        parsed = datetime.fromisoformat(text.replace(" ", "T", 1).replace(" ", ""))
        aware = parsed.tzinfo is not None
        parsed = parsed.astimezone(UTC).replace(tzinfo=None) if aware else parsed
    except (ValueError, OverflowError):
        raise RefusedFilter(f"{source} is not {_NAMES[kind]} of the calendar") from None
    return Value(kind, f"CAST('{parsed.isoformat(' ')}' AS timestamp(6))", source, parsed, aware=aware)


def quote(text: str) -> str:
    """Quote a text for SQL."""
    return "'" + text.replace("'", "''") + "'"


def compare(operator: str, left: Value, right: Value) -> str:
    """Return the SQL of a comparison. Raises RefusedFilter for values of different kinds."""
    left, right = unify([_as_kind_of(right, left), _as_kind_of(left, right)])
    if left.kind in NUMERIC and right.kind in NUMERIC:
        return f"({_ordered(left)} {operator} {_ordered(right)})"
    if left.kind == right.kind == "boolean" and operator in ("<", "<=", ">", ">="):
        raise RefusedFilter(f"{left.name}: compare it with = or <>")
    comparable = left.kind == right.kind != "other" or (left.kind in _DATED and right.kind in _DATED)
    if not comparable:
        raise RefusedFilter(f"{left.name} and {right.name}{_hint(left, right) or _hint(right, left)}")
    for value, other in ((left, right), (right, left)):
        if value.kind == "timestamp" and isinstance(value.constant, datetime):
            if value.aware and not other.aware and other.constant is None:
                raise RefusedFilter(f"{other.source} holds times without a zone: leave out the zone of {value.source}")
            if other.nanoseconds and not _NANOSECONDS[0] <= value.constant < _NANOSECONDS[1]:
                raise RefusedFilter(f"{other.source} can't hold {value.source}")
    if left.kind != right.kind:
        left, right = (v if v.kind == "timestamp" else cast_timestamp(v) for v in (left, right))
    return f"({left.sql} {operator} {right.sql})"


def unify(values: Sequence[Value]) -> list[Value]:
    """Convert numbers of which one is a double to doubles: as float32 where one is that and none has more digits."""
    doubles = [value for value in values if value.kind == "double"]
    if not doubles or not all(value.kind in NUMERIC for value in values):
        return [*values]
    single = all(value.single for value in doubles)
    return [replace(value, kind="double", sql=as_double(value, single), single=single) for value in values]


def as_double(value: Value, single: bool = False) -> str:
    """Return a number's SQL as a double; `single`: rounded to float32."""
    if value.kind == "double":
        return value.sql
    if isinstance(value.constant, Decimal):
        number = float(value.constant)
        return repr(float(np.float32(number)) if single else number)
    return f"CAST(CAST({value.sql} AS float) AS double)" if single else f"CAST({value.sql} AS double)"


def cast_timestamp(value: Value) -> Value:
    """Convert a date to its midnight."""
    return Value("timestamp", f"CAST({value.sql} AS timestamp(6))", value.source, value.constant)


def _ordered(value: Value) -> str:
    """Return a number's SQL without negative zeros and negative NaNs, which Lance orders differently than SQL."""
    if value.kind != "double" or value.constant is not None:
        return value.sql
    return f"nanvl({value.sql} + 0.0, CAST('NaN' AS double))"


def _as_kind_of(other: Value, value: Value) -> Value:
    """Read a text constant as a time, date or time of day where it is compared with one."""
    if other.kind not in _EXAMPLES or not isinstance(value.constant, str):
        return value
    try:
        return dated_constant(value.constant, other.kind)
    except RefusedFilter as error:
        example = _EXAMPLES[other.kind]
        raise RefusedFilter(f"{other.name}, and {error}: write {other.source} > {example}") from None


def _hint(value: Value, other: Value) -> str:
    """Return an ending for the message about values that can't be compared: how it may have been meant."""
    if other.constant is None or value.constant is not None:
        return ""
    if value.kind == "text" and other.kind in NUMERIC:
        return f": write {quote(other.source)}"
    if value.kind in NUMERIC and other.kind == "text" and re.fullmatch(r"-?\d+(\.\d+)?", str(other.constant)):
        return f": write {other.constant} without quotes"
    if value.kind == "boolean":
        return f": write {value.source} = true"
    if value.kind in _EXAMPLES:
        return f": write {value.source} > {_EXAMPLES[value.kind]}"
    return ""


def begins_with(column: str, prefix: str) -> str:
    """Return an SQL expression that an index on the column answers. The prefix ends with an ASCII character."""
    return f"({column} >= {quote(prefix)} AND {column} < {quote(prefix[:-1] + chr(ord(prefix[-1]) + 1))})"
