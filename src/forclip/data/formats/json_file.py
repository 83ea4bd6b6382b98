"""Read lists of entries from a JSON file: the whole file at once, or entry by entry if some entries are unusual."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.text_encoding import decode_unknown
from forclip.placeholder import describe_placeholder
from forclip.types import SkippedEntry

Content = TypeVar("Content")
Entry = TypeVar("Entry", bound=msgspec.Struct)
Id = int | str
Fields = Mapping[str, Any]
Notes = list[tuple[str, object]]  # the reason and the value of each part of an entry that is left out

# In older releases of msgspec, DecodeError is no ValueError.
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError)
_ENTRY_ID = re.compile(rb'"(?:id|token)"\s*:\s*(?:"[^"\\]{1,80}"|-?\d{1,40}(?=\D))')
_STRING_OR_NUMBER = re.compile(rb'"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity)')
# Too large for any float: msgspec refuses them, and Python reads the last two as infinite.
_BEYOND_JSON = {b"NaN": b"1e999999", b"Infinity": b"1e9999", b"-Infinity": b"-1e9999"}
_SEARCHED = 1 << 20  # bytes before an error in which the last entry's id is looked for
_SHOWN = 80  # characters of an offending value
_BOM = b"\xef\xbb\xbf"
_OTHER_CONTENT = {
    b"\x1f\x8b": "compressed with gzip; unpack it",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"<": "XML or a web page",
}


@dataclass(frozen=True)
class EntryKind(Generic[Entry]):
    """How the entries of one list are read.

    noun: what an entry is called. list_name: the key of the list, or the name of a file that is one list. schema: the
    type of an entry as the format defines it. mend: reads an entry that differs from the schema, which may give several
    entries; it raises UnusableEntry for one that can't be used, and notes a part that is left out. id_field: the field
    that identifies an entry.
    """

    noun: str
    list_name: str
    schema: type[Entry]
    mend: Callable[[Fields, Notes], Iterable[Entry]]
    id_field: str = "id"


@dataclass(frozen=True)
class Entries(Generic[Entry]):
    """The entries of a list that can be decoded. positions: where each is in the file. lost: ids of the others."""

    file: Path
    kind: EntryKind[Entry]
    values: Sequence[Entry]
    positions: Sequence[int]
    lost: frozenset[str] = frozenset()

    def skip(self, k: int, reason: str, value: object = "", used_in_part: bool = False) -> SkippedEntry:
        """Report entry k of the values as left out."""
        name = _entry_name(self.file, self.kind, self.positions[k], getattr(self.values[k], self.kind.id_field))
        return SkippedEntry(name, reason, shown(value), used_in_part)


class Undecoded:
    """The content of a JSON file that has other types than its schema; its parts may be bytes."""

    def __init__(self, content: Any) -> None:
        self._content = content

    def fields(self) -> dict[str, Any] | None:
        """The object that the file holds, or None."""
        if isinstance(self._content, msgspec.Raw):
            return _decode_or_none(self._content, dict[str, msgspec.Raw])
        return self._content if isinstance(self._content, dict) else None

    def entries(self) -> list[Any] | None:
        """The list that the file holds, or None."""
        if isinstance(self._content, msgspec.Raw):
            return _decode_or_none(self._content, list[msgspec.Raw])
        return self._content if isinstance(self._content, list) else None

    @staticmethod
    def list_in(fields: dict[str, Any], key: str) -> list[Any] | None:
        """The list under a key: empty if it is missing or null, None if it is no list."""
        value = fields.get(key)
        is_empty = value is None or (isinstance(value, msgspec.Raw) and bytes(value).strip() == b"null")
        return [] if is_empty else Undecoded(value).entries()


def read_json(file: Path, schema: type[Content], expected: str) -> Content | Undecoded:
    """Read a file as msgspec's type `schema`, or without types where its values have others.

    expected: what a missing file should be. Raises ValueError, naming the file, if it is missing or no JSON.
    """
    try:
        # Not memory-mapped: if another program truncates a mapped file, the process is killed.
        data = file.read_bytes().removeprefix(_BOM)
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file; expected {expected}") from None
    except OSError as error:
        raise ValueError(f"{file}: not readable as JSON: {error.strerror}") from None
    try:
        try:
            return msgspec.json.decode(data, type=schema)
        except (msgspec.ValidationError, *_MALFORMED):
            return Undecoded(_decode_loosely(data))
    except RecursionError:
        raise ValueError(f"{file}: not readable as JSON: nested too deeply") from None
    except (*_MALFORMED, ValueError) as error:
        raise ValueError(f"{file}: not readable as JSON: {_explain(data, error)}") from None


def read_entries(
    file: Path, parts: Sequence[Any], kind: EntryKind[Entry], skipped: list[SkippedEntry]
) -> Entries[Entry]:
    """Decode the parts of a list one by one, and add those that can't be used to `skipped`."""
    decode = msgspec.json.Decoder(kind.schema).decode
    values: list[Entry] = []
    positions: list[int] = []
    lost: set[str] = set()
    for position, part in enumerate(parts):
        if isinstance(part, msgspec.Raw):
            try:
                values.append(decode(part))
                positions.append(position)
                continue
            except (msgspec.ValidationError, *_MALFORMED):  # half a surrogate pair is malformed to msgspec
                part = json.loads(bytes(part), parse_float=_number)
        entry_id = part.get(kind.id_field) if isinstance(part, dict) else None
        name = _entry_name(file, kind, position, entry_id)
        notes: Notes = []
        try:
            if not isinstance(part, dict):
                raise UnusableEntry(f"{kind.noun} is no object", shown(part))
            mended = list(kind.mend(part, notes))
        except UnusableEntry as error:
            skipped.append(error.at(name))
            lost.add(str(entry_id))
            continue
        skipped += (SkippedEntry(name, reason, shown(value), used_in_part=True) for reason, value in notes)
        values += mended
        positions += [position] * len(mended)
    return Entries(file, kind, values, positions, frozenset(lost))


def read_id(fields: Fields, field: str) -> Id:
    """Read a field that holds an id: a whole number, also 7.0, or a text. Raises UnusableEntry for anything else."""
    value = fields.get(field)
    if value is None or value == "":
        raise UnusableEntry(f"no {field}")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UnusableEntry(f"{field} is no whole number and no text", shown(value))
    return value


def read_text(fields: Fields, field: str) -> str:
    """Read a text; a number is taken as its digits. Raises UnusableEntry for anything else, and for a blank text."""
    value = fields.get(field)
    if isinstance(value, float) and not math.isfinite(value):
        value = None  # pandas writes NaN for no value
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise UnusableEntry(f"no {field}", "" if value is None else shown(value))
    if not isinstance(value, str):
        raise UnusableEntry(f"{field} is no text", shown(value))
    return value


def read_box(value: object) -> tuple[float, float, float, float] | None:
    """Read four numbers, also if they are texts; None for null and an empty list. Raises UnusableEntry otherwise."""
    if value is None or value == []:
        return None
    try:
        if isinstance(value, list) and not any(isinstance(v, bool) for v in value):
            x, y, z, w = (math.inf if isinstance(v, int) and abs(v) > 1e300 else float(v) for v in value)
            return x, y, z, w
    except (TypeError, ValueError):
        pass
    raise UnusableEntry("the box is not four numbers", shown(value))


def shown(value: object) -> str:
    """A value as Python writes it, shortened for a message; a text without quotes if it is empty."""
    text = repr(value) if value != "" else ""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _entry_name(file: Path, kind: EntryKind[Any], position: int, entry_id: object) -> str:
    with_id = "" if entry_id is None else f" {shown(entry_id)}"
    return f"{file}: {kind.noun}{with_id} ({kind.list_name}[{position}])"


def _decode_or_none(content: msgspec.Raw, kind: type[Content]) -> Content | None:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError:
        return None


def _decode_loosely(data: bytes) -> Any:
    """The content as bytes that are checked to be JSON, or as Python's json reads it, which takes far more memory."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return json.loads(decode_unknown(data, "the file").text)
    if b"\0" in data[:4]:  # UTF-16 or UTF-32 of ASCII letters, without a mark
        return json.loads(decode_unknown(data, "the file").text)
    try:
        try:
            return msgspec.json.decode(data, type=msgspec.Raw)
        except _MALFORMED as error:
            if not data.startswith((b"NaN", b"Infinity"), _error_position(data, str(error))):
                raise
            return msgspec.json.decode(_replace_numbers(data), type=msgspec.Raw)
    except _MALFORMED as error:
        if "surrogate" in str(error):  # half a pair stands for a byte of a file name that is not UTF-8
            return json.loads(data)
        raise


def _replace_numbers(data: bytes) -> bytes:
    """Write NaN and Infinity, which Python's json writes and JSON doesn't have, as numbers that `_number` reads."""
    parts, end = [], 0
    for token in _STRING_OR_NUMBER.finditer(data):
        if replacement := _BEYOND_JSON.get(token[0]):
            parts += [data[end : token.start()], replacement]
            end = token.end()
    return b"".join((*parts, data[end:]))


def _number(text: str) -> float:
    return math.nan if text.encode() == _BEYOND_JSON[b"NaN"] else float(text)


def _explain(data: bytes, error: Exception) -> str:
    """Why a file is no JSON, and the last entry before the place."""
    start = data[:100].lstrip()
    if placeholder := describe_placeholder(start):
        return f"it is {placeholder}"
    for beginning, content in _OTHER_CONTENT.items():
        if start.startswith(beginning):
            return f"it is {content}"
    if not start:
        return "it is empty"
    reason = str(error).removeprefix("JSON is malformed: ").replace("Input data was truncated", "it ends too early")
    position = error.pos if isinstance(error, json.JSONDecodeError) else _error_position(data, reason)
    if ("trailing characters" in reason or "Extra data" in reason) and data[position - 1 :].lstrip()[:1] in (
        b"{",
        b"[",
    ):
        return "it holds several JSON values one after the other (JSON Lines), not one"
    ids = _ENTRY_ID.findall(data, max(0, position - _SEARCHED), position)
    after = f", after {ids[-1].decode(errors='replace')}" if ids else ""
    return f"{reason}{after}"


def _error_position(data: bytes, error: str) -> int:
    """The byte that msgspec stopped at, or the end of the data if the message has none."""
    position = re.search(r"\(byte (\d+)\)", error)
    return int(position[1]) if position else len(data)
