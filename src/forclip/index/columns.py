"""A user's columns in a store: which names and types they may have, and how a type grows."""

import json
import re
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from forclip.index.schema import BUILT_IN_COLUMNS
from forclip.one_line import one_line

Values: TypeAlias = "pa.Array | pa.ChunkedArray"

# Kinds of types in the words of messages, and the type in which values of each are stored.
_KINDS: tuple[tuple[str, Callable[[pa.DataType], bool], pa.DataType], ...] = (
    ("true and false", pa.types.is_boolean, pa.bool_()),
    ("whole numbers", pa.types.is_integer, pa.int64()),
    ("numbers", pa.types.is_floating, pa.float64()),
    ("dates", pa.types.is_date, pa.date32()),
    ("dates with times", lambda t: pa.types.is_timestamp(t) and t.tz is None, pa.timestamp("us")),
    ("dates with times and a time zone", pa.types.is_timestamp, pa.timestamp("us", "UTC")),
    ("no values", pa.types.is_null, pa.null()),
    ("text", lambda t: t in (pa.string(), pa.large_string(), pa.string_view()), pa.string()),
)

OLD_SUFFIX, NEW_SUFFIX = " (replaced)", " (widened)"  # of columns while one is widened
_LONGEST_NAME = 100
# Lance takes some of these when a column is made, and fails when it is read or written.
_BAD_CHARACTERS = re.compile(r"""[.`"'*\\\x00-\x1f\x7f\ud800-\udfff]+""")
_LANCE_COLUMNS = ("_rowid", "_rowaddr", "_rowoffset", "_row_last_updated_at_version", "_row_created_at_version")
_YEARS = pa.scalar(datetime(1, 1, 1), pa.timestamp("us")), pa.scalar(datetime(9999, 12, 31), pa.timestamp("us"))
_EXACT_DIGITS = 15  # decimal digits that a double keeps


def name_problem(name: str, others: Iterable[str] = ()) -> str | None:
    """Return why a new column can't have this name together with the others, or None if it can."""
    if not name.strip():
        return "it is empty"
    if bad := _BAD_CHARACTERS.search(name):
        return f"it has the character {bad[0][0]!r}"
    if len(name) > _LONGEST_NAME:
        return f"it is longer than {_LONGEST_NAME} characters"
    if name.endswith((OLD_SUFFIX, NEW_SUFFIX)):
        return "forclip uses it"
    folded = name.strip().casefold()
    if folded in (*BUILT_IN_COLUMNS, *_LANCE_COLUMNS):
        return f"forclip has a column {folded!r}"
    same = next((other for other in others if other.strip().casefold() == folded), None)
    return None if same is None else f"there is a column {same!r}"


def usable_name(name: str, others: Collection[str]) -> str:
    """Return the name, changed as little as needed to be one that a column can have together with the others."""
    changed = _BAD_CHARACTERS.sub("_", name.strip()) or "column"
    if changed.casefold() in _LANCE_COLUMNS:
        changed = changed.lstrip("_")
    base, number = changed[: _LONGEST_NAME - 5], 1
    while name_problem(changed, others):
        number += 1
        changed = f"{base}_{number}"
    return changed


def is_readable(name: str) -> bool:
    """Whether Lance can read and write a column of this name. Older versions of forclip made others."""
    unfinished = name.endswith((OLD_SUFFIX, NEW_SUFFIX))
    return bool(name) and "`" not in name and name != "*" and name not in _LANCE_COLUMNS and not unfinished


def kind_of(data_type: pa.DataType) -> str:
    """A type in the words of messages. Types of one kind hold each other's values, apart from their range."""
    return next((kind for kind, check, _ in _KINDS if check(data_type)), str(data_type))


def is_stored_as_is(data_type: pa.DataType) -> bool:
    """Whether a column of this type can be filtered, shown and widened. `to_stored` converts others."""
    return bool(data_type == stored_type(data_type))


def stored_type(data_type: pa.DataType) -> pa.DataType:
    """The type in which values of a kind are stored, text for kinds that have none of their own."""
    return next((stored for _, check, stored in _KINDS if check(data_type)), pa.string())


def to_stored(values: Values) -> pa.Array:
    """Convert values to a type that filters, JSON and later files can work with; no value is changed.

    Numbers become 64 bits wide, NaN no value, durations seconds, categories their values, lists and structs JSON text,
    and times of day, nanoseconds, dates outside the years 1 to 9999 and numbers that need more digits text. Raises
    ValueError for binary values.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    types, data_type = pa.types, values.type
    if types.is_dictionary(data_type):
        return to_stored(values.dictionary_decode())
    if types.is_run_end_encoded(data_type):
        return to_stored(pc.run_end_decode(values))
    if "binary" in str(data_type):
        raise ValueError(f"holds {data_type}")
    if types.is_nested(data_type):
        return pa.array(
            [None if v is None else json.dumps(v, default=_json_text) for v in _objects(values)], pa.string()
        )
    if types.is_decimal(data_type):
        whole = data_type.scale <= 0
        exact = whole or data_type.precision <= _EXACT_DIGITS
        return _cast(values, pa.int64() if whole else pa.float64()) if exact else values.cast(pa.string())
    if types.is_duration(data_type):
        return pc.divide(
            values.cast(pa.int64()).cast(pa.float64()), {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[data_type.unit]
        )
    if types.is_floating(data_type):
        wide = values.cast(pa.float64())
        return pc.if_else(pc.is_nan(wide), pa.scalar(None, pa.float64()), wide)
    if types.is_timestamp(data_type) or types.is_date(data_type):
        return _to_stored_dates(values)
    return _cast(values, stored_type(data_type))


def wider_type(stored: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    """Return the type that holds a column's values and new ones, None if there is none. Text holds everything."""
    kinds = kind_of(stored), kind_of(new)
    if new == stored or kinds[1] == "no values" or kinds[0] == "text":
        return stored
    if kinds[0] == "no values" or kinds[0] == kinds[1]:
        return stored_type(new)
    if set(kinds) == {"whole numbers", "numbers"}:
        return pa.float64()
    return pa.timestamp("us") if set(kinds) == {"dates", "dates with times"} else None


def cast_exactly(values: Values, to: pa.DataType) -> Values:
    """Convert values to a wider type. Raises ValueError for a value that the type can't hold exactly."""
    try:
        return values.cast(to)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"can't be stored as {kind_of(to)}: {one_line(error)[:150]}") from None


def to_shown(values: Values) -> Values:
    """Convert values of a store to ones that JSON can hold. Older versions of forclip stored any type."""
    if is_stored_as_is(values.type):
        return values
    try:
        return to_stored(values)
    except ValueError:
        return pa.array([None if v is None else _json_text(v) for v in _objects(values)], pa.string())


def _to_stored_dates(values: pa.Array) -> pa.Array:
    wanted = stored_type(values.type)
    try:
        dates = values.cast(wanted)
        first, last = (limit.cast(wanted) for limit in _YEARS)
        inside = pc.and_(pc.greater_equal(dates, first), pc.less_equal(dates, last))
        if pc.all(inside, min_count=0).as_py():
            return dates
    except pa.ArrowInvalid:  # nanoseconds
        pass
    text = values.cast(pa.string())
    is_shown = not pc.any(pc.starts_with(text, "<"), min_count=0).as_py()  # Arrow has no text for some years
    return text if is_shown else values.cast(pa.int64()).cast(pa.string())


def _cast(values: pa.Array, to: pa.DataType) -> pa.Array:
    try:
        return values.cast(to)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return values.cast(pa.string())


def _objects(values: Values) -> list[Any]:
    try:
        return list(values.to_pylist())
    except (ValueError, OverflowError, pa.ArrowException):  # a date that Python has no value for
        return [str(value) if value.is_valid else None for value in values]


def _json_text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("cp1252", "backslashreplace")
    return str(value)
