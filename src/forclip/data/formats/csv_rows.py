"""Read rows of labels from CSV files of several tools, which are told apart by their headers."""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.csv_shapes import (
    BoxReader,
    box_reader,
    label_studio_regions,
    open_images_names,
    read_number,
    read_via_region,
    size_of,
)
from forclip.data.formats.spreadsheet import (
    IMAGE_COLUMNS,
    Row,
    Spreadsheet,
    column_key,
    read_spreadsheet,
    separator_name,
)
from forclip.types import SkippedEntry

_LABEL_COLUMNS = (
    *("label", "labels", "class", "classes", "class_name", "classname", "category", "categories", "category_name"),
    *("label_name", "labelname", "tag", "tags", "choice", "choices"),
)
_PLURAL = ("labels", "classes", "categories", "tags", "choices")
_TRUE = re.compile(r"1([.,]0*)?|true|yes|y|ja|wahr|oui|vrai|si|sí|right|correct", re.IGNORECASE)
_FALSE = re.compile(r"0([.,]0*)?|false|no|n|nein|falsch|non|faux|wrong|incorrect", re.IGNORECASE)
_UNCERTAIN = re.compile(r"|-1([.,]0*)?|nan|u", re.IGNORECASE)  # in tables with a column for each class
_NO_LABEL = ("nan", "NaN", "None", "<NA>", "NULL", "null")
_MANY = 0.5  # share of the names that shows that commas separate labels
_ONE_HOT_SHARE = 0.5  # of a column's cells that show that it is a class
_PICTURE = re.compile(r"(gs://.+|.+\.(jpe?g|png|bmp|gif|tiff?|webp|ico|heic|avif))", re.IGNORECASE)
_MAKE_SENSE = (
    *("label_name", "bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    *("image_name", "image_width", "image_height"),
)
_ML_USES = ("train", "training", "validate", "validation", "test", "unassigned", "")


@dataclass(frozen=True)
class LabelRow:
    """What one row says about an image.

    where: the file and line, for messages; labels: class names, each with whether the image shows it, None where the
    row does not tell; box: xyxy of all its labels, in pixels or in fractions of the image's sides, or None; box_text:
    as it is written; size: width and height of the image as the row gives them.
    """

    where: str
    image: str
    image_id: str | None
    labels: tuple[tuple[str, bool | None], ...]
    box: tuple[float, float, float, float] | None = None
    box_text: str = ""
    in_fractions: bool = False
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class LabelSheet:
    """The rows that can be used.

    federated: only the listed pairs are verified; has_present: there is a column present; header: names of the columns.
    """

    rows: tuple[LabelRow, ...]
    skipped: tuple[SkippedEntry, ...]
    federated: bool
    has_present: bool
    header: tuple[str, ...]


def read_label_rows(file: Path) -> LabelSheet:
    """Read labels from a CSV file with a header; encoding and separator are detected.

    The first of these layouts that the header fits, with a column for the picture (image, filename, path, ...):

    - VGG Image Annotator: region_shape_attributes and region_attributes;
    - a column for the label (label, labels, class, category, tag, ...), with a box in columns such as xmin, ymin, xmax,
      ymax, or bbox; and in `present` or Open Images' Confidence whether the image shows it;
    - a column of 0 and 1 for each class, as Roboflow and Kaggle have it; -1 and empty: unknown;
    - without a header: Google AutoML and Vertex AI, keras-retinanet, and Make Sense.

    Raises ValueError, naming the file, for one that is missing or no text, and, with the columns that it has, for a
    header that fits none.
    """
    sheet = read_spreadsheet(file, known=IMAGE_COLUMNS)
    notes = []
    if sheet.encoding is not None:
        reason = "the encoding is a guess; if letters are wrong, save the file in UTF-8"
        notes.append(SkippedEntry(str(file), reason, sheet.encoding, used_in_part=True))
    if (found := _without_header(sheet)) is None:
        found = _with_header(sheet)
        notes += sheet.skipped
    return replace(found, skipped=(*notes, *found.skipped))


def parse_present(cell: str) -> bool | None:
    """Read yes or no as people and spreadsheets write it: 1, 1.0, true, yes, ja, WAHR, ... None for an empty cell.

    Raises UnusableEntry for anything else, which is never guessed.
    """
    text = cell.strip()
    if not text or text.lower() == "nan":
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    raise UnusableEntry("present is neither yes nor no", cell)


class _Columns:
    """The columns of a header by their names in lower case, without blanks."""

    def __init__(self, sheet: Spreadsheet) -> None:
        self.names = [column_key(name) for name in sheet.header]
        for name, count in Counter(self.names).items():
            if count > 1 and name in ("image", "label", "labels", "id", "present"):
                raise ValueError(f"{sheet.where(sheet.header_line)}, the header, has the column {name} twice")

    def find(self, *names: str) -> int | None:
        """The position of the first of these names that there is."""
        return next((self.names.index(name) for name in names if name in self.names), None)


def _with_header(sheet: Spreadsheet) -> LabelSheet:
    columns = _Columns(sheet)
    image = columns.find(*IMAGE_COLUMNS)
    if image is None:
        raise ValueError(_unknown_header(sheet))
    if (shape := columns.find("region_shape_attributes")) is not None:
        attributes = columns.find("region_attributes")
        return _collect(sheet, lambda row: _via_row(sheet, row, image, shape, attributes), federated=False)
    label = columns.find(*_LABEL_COLUMNS)
    if "label" in columns.names and "labels" in columns.names:
        raise ValueError(_unknown_header(sheet))
    if label is not None and label != image:
        return _listed(sheet, columns, image, label)
    return _one_hot(sheet, columns, image)


def _unknown_header(sheet: Spreadsheet) -> str:
    names = ", ".join(sheet.header) or "nothing"
    where = f"{sheet.where(sheet.header_line)}, the header,"
    separator = f" (separated by {separator_name(sheet.separator)}s)" if len(sheet.header) > 1 else ""
    return f"{where} needs a column image and one of label or labels, but has: {names[:200]}{separator}"


def _listed(sheet: Spreadsheet, columns: _Columns, image: int, label: int) -> LabelSheet:
    """Rows that name their labels."""
    is_plain = columns.names[image] == "image"
    image_id = columns.find("id") if is_plain and columns.names[image] != "id" else None
    present = columns.find("present")
    federated = present is not None
    read_box: BoxReader | None = None if federated else box_reader(columns.names, sheet.rows)
    if (
        present is None
        and columns.names[label] == "labelname"
        and (confidence := columns.find("confidence")) is not None
    ):
        present, federated = confidence, read_box is None  # Open Images: 1 and 0 are what people have verified
    split, notes = _label_splitter(sheet, label, columns.names[label])
    described = open_images_names(sheet.file.parent) if columns.names[label] == "labelname" else {}

    def read(row: Row) -> Iterable[LabelRow]:
        shown = None
        regions = label_studio_regions(row.cells[label])
        names = [] if regions is not None or row.cells[label].strip() in _NO_LABEL else split(row.cells[label])
        if present is not None:
            shown = parse_present(row.cells[present])
        start = LabelRow(
            sheet.where(row.line),
            row.cells[image].strip(),
            None if image_id is None else row.cells[image_id].strip(),
            (),
        )
        if regions is not None:
            yield start
            for name, box in regions:
                if not name:
                    notes.append(SkippedEntry(start.where, "a region has no label", row.cells[image].strip()))
                    continue
                yield replace(start, labels=((name, True),), box=box, in_fractions=True)
            return
        said = True if present is None else shown
        labels = tuple((described.get(name, name), said) for name in names)
        box, text, in_fractions = (None, "", False) if read_box is None else read_box(row)
        size = size_of(columns.names, row)
        yield replace(start, labels=labels, box=box, box_text=text, in_fractions=in_fractions, size=size)

    collected = _collect(sheet, read, federated)
    return replace(collected, skipped=(*collected.skipped, *notes), has_present=columns.find("present") is not None)


def _one_hot(sheet: Spreadsheet, columns: _Columns, image: int) -> LabelSheet:
    """Rows with a cell for each class."""
    classes = []
    notes: list[SkippedEntry] = []
    for position, name in enumerate(sheet.header):
        cells = [row.cells[position].strip() for row in sheet.rows]
        good = sum(bool(_TRUE.fullmatch(c) or _FALSE.fullmatch(c) or _UNCERTAIN.fullmatch(c)) for c in cells)
        given = any(_TRUE.fullmatch(c) or _FALSE.fullmatch(c) for c in cells)
        if position != image and name and given and good >= _ONE_HOT_SHARE * len(cells):
            classes.append(position)
        elif position != image and name and given:
            reason = "the column has other values than 0 and 1, so it is no class"
            value = next(cell for cell in cells if not _TRUE.fullmatch(cell) and not _FALSE.fullmatch(cell))
            notes.append(SkippedEntry(str(sheet.file), reason, f"{name}, such as {value}", used_in_part=True))
    names = [sheet.header[position] for position in classes]
    if not classes or len(set(names)) < len(names):
        raise ValueError(_unknown_header(sheet))
    unknown = False

    def read(row: Row) -> Iterable[LabelRow]:
        nonlocal unknown
        labels: list[tuple[str, bool | None]] = []
        for position in classes:
            cell = row.cells[position].strip()
            name, present = sheet.header[position], None
            if not _UNCERTAIN.fullmatch(cell):
                try:
                    present = parse_present(cell)
                except UnusableEntry as error:
                    reason = "a class has neither 0 nor 1, so it is unknown there"
                    where = sheet.where(row.line)
                    notes.append(SkippedEntry(where, reason, f"{name}: {error.value}", used_in_part=True))
            unknown |= present is None
            labels.append((name, present))
        yield LabelRow(sheet.where(row.line), row.cells[image].strip(), None, tuple(labels))

    collected = _collect(sheet, read, federated=False)
    return replace(collected, skipped=(*collected.skipped, *notes), federated=unknown)


def _via_row(sheet: Spreadsheet, row: Row, image: int, shape: int, attributes: int | None) -> Iterator[LabelRow]:
    names, box = read_via_region(row.cells[shape], "{}" if attributes is None else row.cells[attributes])
    yield LabelRow(sheet.where(row.line), row.cells[image].strip(), None, tuple((name, True) for name in names), box)


def _without_header(sheet: Spreadsheet) -> LabelSheet | None:
    """Rows of Google's AutoML and Vertex AI, keras-retinanet, or Make Sense, whose first line is a row already.

    None if it is not.
    """
    first = Row(sheet.header_line, sheet.header)
    if not first.cells or any(name.lower() in IMAGE_COLUMNS for name in first.cells):
        return None
    has_use = first.cells[0].lower() in _ML_USES and len(first.cells) > 1 and _PICTURE.fullmatch(first.cells[1])
    if has_use or first.cells[0].lower().startswith("gs://"):
        sheet = read_spreadsheet(sheet.file, pad=True)  # rows have as many cells as labels
        first = Row(sheet.header_line, sheet.header)
        rows = _collect_all(sheet, first, lambda row: _google_row(sheet, row, 1 if has_use else 0))
        return replace(rows, skipped=(*sheet.skipped, *rows.skipped))
    is_retina = len(first.cells) == 6 and _PICTURE.fullmatch(first.cells[0])
    if is_retina and all(re.fullmatch(r"-?\d*\.?\d*", cell) for cell in first.cells[1:5]):
        rows = _collect_all(sheet, first, lambda row: _retina_row(sheet, row))
        return replace(rows, skipped=(*sheet.skipped, *rows.skipped))
    if len(first.cells) == len(_MAKE_SENSE) and _PICTURE.fullmatch(first.cells[5]):
        rows_with_first = replace(sheet, header=_MAKE_SENSE, rows=(first, *sheet.rows))
        found = _with_header(rows_with_first)
        return replace(found, skipped=(*sheet.skipped, *found.skipped))
    return None


def _google_row(sheet: Spreadsheet, row: Row, image: int) -> Iterator[LabelRow]:
    """[use,]file,label,xmin,ymin,,,xmax,ymax,, in fractions; or [use,]file,label,label,..."""
    cells = [cell.strip() for cell in row.cells]
    start = LabelRow(sheet.where(row.line), cells[image], None, ())
    values = cells[image + 2 :]
    numbers = [value for value in values if value]
    if len(values) >= 6 and len(numbers) >= 4 and any(math.isfinite(read_number(value)) for value in numbers):
        xs, ys = ([read_number(v) for v in values[axis::2] if v] or [math.nan] for axis in (0, 1))
        box = (min(xs), min(ys), max(xs), max(ys)) if all(map(math.isfinite, (*xs, *ys))) else (math.nan,) * 4
        shown = ",".join(values).rstrip(",")
        yield replace(start, labels=((cells[image + 1], True),), box=box, box_text=shown, in_fractions=True)
        return
    yield replace(start, labels=tuple((name, True) for name in cells[image + 1 :] if name))


def _retina_row(sheet: Spreadsheet, row: Row) -> Iterator[LabelRow]:
    """file,x1,y1,x2,y2,label in pixels; all but the file empty for a picture without objects."""
    name, *corners, label = (cell.strip() for cell in row.cells)
    start = LabelRow(sheet.where(row.line), name, None, ())
    if not any(corners) and not label:
        yield start
        return
    x0, y0, x1, y1 = map(read_number, corners)
    labels = ((label, True),) if label else ()
    yield replace(start, labels=labels, box=(x0, y0, x1, y1), box_text=",".join(corners))


def _collect_all(sheet: Spreadsheet, first: Row, read: Callable[[Row], Iterable[LabelRow]]) -> LabelSheet:
    return _collect(replace(sheet, rows=(first, *sheet.rows)), read, federated=False)


def _collect(sheet: Spreadsheet, read: Callable[[Row], Iterable[LabelRow]], federated: bool) -> LabelSheet:
    rows: list[LabelRow] = []
    skipped = []
    for row in sheet.rows:
        try:
            rows += list(read(row))
        except UnusableEntry as error:
            skipped.append(error.at(sheet.where(row.line)))
    return LabelSheet(tuple(rows), tuple(skipped), federated, has_present=False, header=sheet.header)


def _label_splitter(
    sheet: Spreadsheet, position: int, column: str
) -> tuple[Callable[[str], list[str]], list[SkippedEntry]]:
    """Return how the cells of a column are split into labels, and those that may hold several all the same."""
    cells = [row.cells[position] for row in sheet.rows]
    marked = any("|" in cell or ";" in cell for cell in cells)
    separators = r"[|;\n]" if marked else r"[,\n]" if column in _PLURAL else None

    def split(cell: str) -> list[str]:
        listed = _list_in(cell)
        parts = listed if listed is not None else re.split(separators, cell) if separators else [cell]
        return [part.strip() for part in parts if part.strip()]

    names = {cell.strip() for cell in cells if cell.strip() and not cell.strip().startswith(("[", "{"))}
    doubtful = set() if marked else _doubtful(names, " ")
    if column in _PLURAL and not marked:
        doubtful |= {name for name in names if " " in name and not names.isdisjoint(name.split())}
    if separators is None:
        doubtful |= _doubtful(names, ",")
    elif any("," in name for name in names):
        doubtful = set()
    reason = "the cell may hold several labels; separate them by | to split it"
    none = "the label is what programs write for no value; the picture has no label"
    rows = [(row, row.cells[position].strip()) for row in sheet.rows]
    found = [SkippedEntry(sheet.where(r.line), reason, cell, used_in_part=True) for r, cell in rows if cell in doubtful]
    found += (SkippedEntry(sheet.where(r.line), none, cell, used_in_part=True) for r, cell in rows if cell in _NO_LABEL)
    return split, found


def _doubtful(names: set[str], separator: str) -> set[str]:
    """The names that may be several: of other names, or if most names consist of few parts."""
    parts = {name: {part.strip() for part in name.split(separator)} for name in names}
    several = {name for name in names if len(parts[name]) > 1}
    distinct = {part for name in names for part in parts[name]}
    if len(several) >= _MANY * len(names) and (separator == "," or 2 * len(distinct) <= len(names)):
        return several
    return {name for name in several if parts[name] <= names}


def _list_in(cell: str) -> list[str] | None:
    """The texts of a list in JSON or Python's notation, or None."""
    if not (cell.strip().startswith("[") and cell.strip().endswith("]")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            content = read(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(content, list) and all(isinstance(part, str | int) for part in content):
            return [str(part) for part in content]
    return None
