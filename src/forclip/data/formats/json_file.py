"""JSON files read into typed values, in bulk and strictly, and what is said of one that can't be."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

# The entries of the list under a key, whatever they are, or of the list that the file is, under None.
EntriesOf = Callable[[str | None], list[Any]]
Content = TypeVar("Content")

# Older releases of msgspec have a DecodeError that is no ValueError.
_NO_JSON = (msgspec.DecodeError, UnicodeDecodeError)
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NAMES_AN_ENTRY = re.compile(rb'"(?:id|token)"\s*:\s*(?:"[^"\\]{1,80}"|-?\d{1,40}(?=\D))')
_SEARCHED = 1 << 20  # bytes before a fault, for the entry that it is in or after
_SHOWN = 80  # characters of an offending value


def read_json(
    file: Path, schema: type[Content], missing: str, mistyped: Callable[[str, EntriesOf], ValueError]
) -> Content:
    """The file's content as the schema has it: a msgspec Struct, or a list of them.

    missing: what to say where there is no file. mistyped: from msgspec's words, such as "Expected `str`, got `int` - at
    `$.images[7].id`", and the entries, to the error. Raises that, and ValueError for what is not readable as JSON.
    """
    data = _read_bytes(file, missing)
    try:
        return msgspec.json.decode(data, type=schema)
    except msgspec.ValidationError as error:
        raise mistyped(str(error), lambda key: _entries(data, key)) from None
    except RecursionError:
        raise ValueError(f"{file}: not readable as JSON: nested too deeply") from None
    except _NO_JSON as error:
        if not _python_reads_on(data, str(error)):
            raise _no_json(file, data, error) from None
    return _read_by_python(file, data, schema, mistyped)


def entry_at(entries: list[Any], position: int) -> Any:
    """The entry as Python has it, or None where it can't be had."""
    entry = entries[position] if position < len(entries) else None
    try:
        return json.loads(bytes(entry)) if isinstance(entry, msgspec.Raw) else entry
    except (ValueError, RecursionError):
        return None


def shown(value: object) -> str:
    """As Python writes it, of a length for a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _read_bytes(file: Path, missing: str) -> bytes:
    # Read, not memory-mapped: a mapped file that another program truncates meanwhile kills the process.
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{file}: {missing}") from None
    except OSError as error:
        raise ValueError(f"{file}: not readable as JSON: {error.strerror}") from None
    return data.removeprefix(_BYTE_ORDER_MARK)


def _python_reads_on(data: bytes, error: str) -> bool:
    """Whether msgspec stopped at one of two things that Python's json writes, though JSON has neither.

    They are NaN or Infinity, and file names that are not UTF-8 (half a surrogate pair stands for each such byte).
    """
    return "surrogate" in error or data.startswith((b"NaN", b"Infinity"), _place(data, error))


def _place(data: bytes, error: str) -> int:
    """The byte that msgspec stopped at; the end where it doesn't say."""
    place = re.search(r"\(byte (\d+)\)", error)
    return int(place[1]) if place else len(data)


def _read_by_python(
    file: Path, data: bytes, schema: type[Content], mistyped: Callable[[str, EntriesOf], ValueError]
) -> Content:
    # Takes many times the memory and time, polygons and all, so it is for the files that need it.
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _no_json(file, data, error) from None
    try:
        return msgspec.convert(content, schema)
    except msgspec.ValidationError as error:
        raise mistyped(str(error), lambda key: content if key is None else content[key]) from None
    except UnicodeEncodeError as error:  # Half a surrogate pair where it can't be part of a file name: in a key, say.
        raise _no_json(file, data, error) from None


def _no_json(file: Path, data: bytes, error: Exception) -> ValueError:
    """Says what is wrong, and after which entry's id or token."""
    reason = str(error).removeprefix("JSON is malformed: ").replace("Input data was truncated", "it ends too early")
    at = error.pos if isinstance(error, json.JSONDecodeError) else _place(data, reason)
    named = _NAMES_AN_ENTRY.findall(data, max(0, at - _SEARCHED), at)
    after = f", after {named[-1].decode(errors='replace')}" if named else ""
    return ValueError(f"{file}: not readable as JSON: {reason}{after}")


def _entries(data: bytes, key: str | None) -> list[Any]:
    """As msgspec.Raw, or by Python where only it reads on; none where the file can't be read any further."""
    entries = list[msgspec.Raw]
    try:
        if key is None:
            return list(msgspec.json.decode(data, type=entries))
        return list(getattr(msgspec.json.decode(data, type=msgspec.defstruct("Entries", [(key, entries)])), key))
    except (*_NO_JSON, RecursionError):
        pass
    try:
        content = json.loads(data)
        return list(content if key is None else content[key])
    except (ValueError, RecursionError):
        return []
