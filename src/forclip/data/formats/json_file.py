"""Read JSON files of annotations quickly and strictly, and say what is wrong with one that can't be read."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

Content = TypeVar("Content")

# In older releases of msgspec, DecodeError is no ValueError.
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError)
_ENTRY_ID = re.compile(rb'"(?:id|token)"\s*:\s*(?:"[^"\\]{1,80}"|-?\d{1,40}(?=\D))')
_ENTRY_PATH = re.compile(r"at `\$(?:\.(\w+))?\[(\d+)\](?:\.(\w+))?")
_MISSING_FIELD = re.compile(r"missing required field `(\w+)`")
_SEARCHED = 1 << 20  # bytes before an error in which the last entry's id is looked for
_SHOWN = 80  # characters of an offending value


@dataclass(frozen=True)
class JsonFormat:
    """How error messages describe a kind of file.

    name: of the kind, with an article. id_field: the field that identifies an entry. nouns: what an entry is called, by
    the key of its list (None for a file that is one list). expected: what a field must hold; the default is a text.
    """

    name: str
    id_field: str
    nouns: Mapping[str | None, str]
    expected: Mapping[str, str]

    def entry_error(self, file: Path, key: str | None, position: int, entry_id: object, problem: str) -> ValueError:
        """An error about one entry. problem: continues the sentence that starts with the entry's name."""
        return ValueError(f"{file}: {self.nouns[key]} {shown(entry_id)} ({_entry_name(key, position)}) {problem}")

    def check_unique(self, file: Path, key: str | None, ids: Iterable[int | str]) -> None:
        """Raise ValueError, naming both entries, if an id occurs twice. ids: one per entry of the list."""
        first: dict[int | str, int] = {}
        for position, entry_id in enumerate(ids):
            if first.setdefault(entry_id, position) != position:
                problem = f"has the same {self.id_field} as entry {first[entry_id]}"
                raise self.entry_error(file, key, position, entry_id, problem)


def read_json(file: Path, schema: type[Content], kind: JsonFormat) -> Content:
    """Read a file as msgspec's type `schema`: a Struct, or a list of them.

    Raises ValueError, naming the file and the entry, if it is missing, is no JSON, or has values of other types.
    """
    try:
        # Not memory-mapped: if another program truncates a mapped file, the process is killed.
        data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")  # a byte order mark
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file; expected {kind.name}") from None
    except OSError as error:
        raise ValueError(f"{file}: not readable as JSON: {error.strerror}") from None
    try:
        return _decode(data, schema)
    except msgspec.ValidationError as error:
        raise _type_error(file, data, str(error), kind) from None
    except RecursionError:
        raise ValueError(f"{file}: not readable as JSON: nested too deeply") from None
    # A UnicodeEncodeError comes from half a surrogate pair outside a file name.
    except (*_MALFORMED, ValueError) as error:
        reason = str(error).removeprefix("JSON is malformed: ").replace("Input data was truncated", "it ends too early")
        position = error.pos if isinstance(error, json.JSONDecodeError) else _error_position(data, reason)
        ids = _ENTRY_ID.findall(data, max(0, position - _SEARCHED), position)
        after = f", after {ids[-1].decode(errors='replace')}" if ids else ""
        raise ValueError(f"{file}: not readable as JSON: {reason}{after}") from None


def _decode(data: bytes, schema: type[Content]) -> Content:
    try:
        return msgspec.json.decode(data, type=schema)
    except msgspec.ValidationError:
        raise
    except _MALFORMED as error:
        # Python's json also reads NaN, Infinity and half a surrogate pair, which stands for a byte of a file name that
        # is not UTF-8. Only if needed: this takes many times the memory and the time.
        text = str(error)
        if "surrogate" in text or data.startswith((b"NaN", b"Infinity"), _error_position(data, text)):
            return msgspec.convert(json.loads(data), schema)
        raise


def shown(value: object) -> str:
    """A value as Python writes it, shortened for a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _error_position(data: bytes, error: str) -> int:
    """The byte that msgspec stopped at, or the end of the data if the message has none."""
    position = re.search(r"\(byte (\d+)\)", error)
    return int(position[1]) if position else len(data)


def _type_error(file: Path, data: bytes, error: str, kind: JsonFormat) -> ValueError:
    """Adds the entry and its value to msgspec's message, such as "Expected `str`, got `int` - at `$.images[7].id`"."""
    path = _ENTRY_PATH.search(error)
    if path is None:
        return ValueError(f"{file}: not {kind.name}: {error}")
    key, position = path[1], int(path[2])
    where = _entry_name(key, position)
    try:
        entry = _read_entry(data, key, position)
    except (*_MALFORMED, ValueError, RecursionError):  # the rest of the file is damaged
        return ValueError(f"{file}: {where} can't be used: {error}")
    if not isinstance(entry, dict):
        return ValueError(f"{file}: {where} is no object: {shown(entry)}")
    missing = _MISSING_FIELD.search(error)
    field = missing[1] if missing else path[3]
    expected = kind.expected.get(field, "a text")
    if field == kind.id_field:
        return ValueError(f"{file}: {where} has no {field} ({expected}): {shown(entry)}")
    problem = f"has the {field} {shown(entry[field])}, not {expected}" if field in entry else f"has no {field}"
    return kind.entry_error(file, key, position, entry.get(kind.id_field), problem)


def _read_entry(data: bytes, key: str | None, position: int) -> Any:
    try:  # without building objects of the other entries
        entries: Any = msgspec.json.decode(data, type=dict[str, msgspec.Raw])[key] if key else data
        return json.loads(bytes(msgspec.json.decode(entries, type=list[msgspec.Raw])[position]))
    except _MALFORMED:
        content = json.loads(data)
        return (content[key] if key else content)[position]


def _entry_name(key: str | None, position: int) -> str:
    return f"entry {position} of {key!r}" if key else f"entry {position}"
