"""Read CSV files as spreadsheets write them: of any encoding and separator, with the line of every row."""

import csv
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from forclip.data.formats.text_encoding import read_unknown_text
from forclip.types import SkippedEntry

IMAGE_COLUMNS = (  # that may name pictures, the likeliest first
    *("image", "file", "filename", "file_name", "path", "image_path", "filepath", "file_path", "image_file"),
    *("image_name", "imagename", "sourcefile", "fname", "img", "img_path", "img_name", "picture", "photo"),
    *("image_url", "url", "uri", "external_id", "image_id", "imageid", "id", "name"),
)
_SHORT = 5  # letters; a column name of fewer may be a cell too
_HEADER_LINES = 10  # that may be above the header

_SEPARATORS = ",;\t|"
_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_SAMPLE_LINES = 50  # to choose the separator by
_LONGEST_ROW = 1000  # lines that a row may span in a file with a damaged row
_DAMAGED = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")  # control characters, and bytes that are no text


@dataclass(frozen=True)
class Row:
    """A row below the header, with a cell for each of its columns. line: in the file, from 1."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Spreadsheet:
    """A header and rows.

    header: names without white space around them, which may be empty or occur twice; skipped: rows that can't be read;
    every row of the file that is not blank is either here or there. encoding: the one that was guessed, or None where
    the file itself shows it.
    """

    file: Path
    header: tuple[str, ...]
    header_line: int
    rows: tuple[Row, ...]
    skipped: tuple[SkippedEntry, ...]
    separator: str
    encoding: str | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed and the reader of a report should know, as sentences."""
        if self.encoding is None:
            return ()
        return (f"{self.file}: is not UTF-8; read as {self.encoding}. If letters are wrong, save it in UTF-8",)

    def where(self, line: int) -> str:
        """The name of a line in messages."""
        return f"{self.file}: line {line}"


def read_spreadsheet(file: Path, kind: str = "file", known: Collection[str] = (), *, pad: bool = False) -> Spreadsheet:
    """Read a CSV file. Encoding (UTF-8, UTF-16, an older one) and separator (, ; tab |) are detected.

    Excel's first line `sep=;` is obeyed, blank lines are ignored, empty cells beyond the header are dropped. Rows that
    have too few or too many cells, broken quotes, bytes that are no text, or a cell of more than 131,072 characters
    are left out.

    kind: what a missing file is called; known: column names, as `column_key` gives them. If the first line has none of
    them and one of the next ten has, that is the header, and the lines above are left out; pad: fill up short rows with
    empty cells.

    Raises ValueError, naming the file, for one that is missing or no text.
    """
    decoded = read_unknown_text(file, kind)
    lines = list(StringIO(decoded.text.removeprefix("\ufeff"), newline=""))
    stated = re.fullmatch(r'"?sep=(.)"?', lines[0].strip("\r\n"), re.IGNORECASE) if lines else None
    start = 1 if stated else 0
    header = _header_line(lines, start, known)
    separator = stated[1] if stated else _likely_separator(lines[header:])
    records, skipped = _read_records(lines, header, separator, str(file))
    for number, text in enumerate(lines[start:header], start + 1):
        if text.strip():
            skipped.append(SkippedEntry(f"{file}: line {number}", "the line is above the header", text.strip()[:60]))
    if not records:
        return Spreadsheet(file, (), 1, (), tuple(skipped), separator, decoded.guessed)
    if pad:
        width = max(len(cells) for _, cells in records)
        records = [(line, cells + [""] * (width - len(cells))) for line, cells in records]
    header_line, cells = records[0]
    names = [cell.strip().strip("\ufeff\u200b") for cell in cells]
    if any(_DAMAGED.search(name) for name in names):
        raise ValueError(f"{file}: line {header_line}, the header, is not text: {','.join(names)[:60]!r}")
    while names and not names[-1] and all(len(c) < len(names) or not c[len(names) - 1].strip() for _, c in records):
        names.pop()  # an empty column that a spreadsheet program added
    damaged = _DAMAGED.search(decoded.text) is not None
    rows = []
    for line, cells in records[1:]:
        if any(cell.strip() for cell in cells[len(names) :]) or len(cells) < len(names):
            counts = f"{len(cells)} cells, the header {len(names)}"
            skipped.append(SkippedEntry(f"{file}: line {line}", "the row has another number of cells", counts))
        elif damaged and (bad := next((cell for cell in cells if _DAMAGED.search(cell)), None)):
            skipped.append(SkippedEntry(f"{file}: line {line}", "the row has bytes that are no text", repr(bad[:60])))
        else:
            rows.append(Row(line, tuple(cells[: len(names)])))
    skipped.sort(key=lambda entry: int(entry.entry.rpartition(" ")[2]))
    return Spreadsheet(file, tuple(names), header_line, tuple(rows), tuple(skipped), separator, decoded.guessed)


def column_key(name: str) -> str:
    """A column's name as it is compared: in lower case, with _ for blanks and dashes, without a # before it."""
    return re.sub(r"[\s-]+", "_", name.strip(" \t#\ufeff")).lower()


def separator_name(separator: str) -> str:
    """A separator's name in messages: comma, semicolon, tab or bar."""
    return _NAMES.get(separator, repr(separator))


def _header_line(lines: Sequence[str], start: int, known: Collection[str]) -> int:
    """Return how many lines are above the header."""
    for number, line in enumerate(lines[start : start + _HEADER_LINES], start=start):
        cells = {column_key(cell.strip('"')) for cell in re.split("[,;\t|]", line.strip())}
        names = known if number == start else [name for name in known if len(name) >= _SHORT]
        if not cells.isdisjoint(names):
            return number
    return start


def _likely_separator(lines: Sequence[str]) -> str:
    """Choose the separator with which most rows have as many cells as the header, then the most cells."""
    sample = lines[:_SAMPLE_LINES]

    def fit(separator: str) -> tuple[bool, float, int]:
        records, skipped = _read_records(sample, 0, separator, "")
        counts = [len(cells) for _, cells in records] or [1]
        same = sum(count == counts[0] for count in counts) / (len(counts) + len(skipped))
        return counts[0] > 1, same, counts[0]

    return max(_SEPARATORS, key=fit)  # the first of equals


def _read_records(
    lines: Sequence[str], start: int, separator: str, file: str
) -> tuple[list[tuple[int, list[str]]], list[SkippedEntry]]:
    """Return records that are not blank, each with its first line, and lines that are not readable as CSV."""
    records: list[tuple[int, list[str]]] = []
    position, reader = start, _reader(lines[start:], separator)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((position + 1, cells))
            position = start + reader.line_num
        return records, []
    except csv.Error:
        pass
    # A damaged row must not swallow the ones below it, so each is read by itself.
    records, skipped = [], []
    position = start
    while position < len(lines):
        reader = _reader(lines[position : position + _LONGEST_ROW], separator)
        try:
            cells = next(reader)
            if reader.line_num > 1 and records and len(cells) != len(records[0][1]):
                raise csv.Error("quotes that are not closed")
        except csv.Error as error:
            reason = "the row is not readable as CSV"
            skipped.append(SkippedEntry(f"{file}: line {position + 1}", reason, str(error)))
            position += 1
            continue
        if any(cell.strip() for cell in cells):
            records.append((position + 1, cells))
        position += reader.line_num
    return records, skipped


def _reader(lines: Sequence[str], separator: str) -> Any:
    return csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
