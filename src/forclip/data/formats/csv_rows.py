"""Read rows of labels from CSV files of several tools, which their headers tell apart."""

import ast
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.csv_shapes import (
    Box,
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
Labels = tuple[tuple[str, bool | None], ...]
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
    labels: Labels
    box: Box | None = None
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
    found = _without_header(sheet) or _with_header(sheet)
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


def _find(columns: Sequence[str], *names: str) -> int | None:
    """Return the position of the first of these names that is a column."""
    return next((columns.index(name) for name in names if name in columns), None)


def _with_header(sheet: Spreadsheet) -> LabelSheet:
    columns = [column_key(name) for name in sheet.header]
    for name in ("image", "label", "labels", "id", "present"):
        if columns.count(name) > 1:
            raise ValueError(f"{sheet.where(sheet.header_line)}, the header, has the column {name} twice")
    image, label = _find(columns, *IMAGE_COLUMNS), _find(columns, *_LABEL_COLUMNS)
    if image is None:
        raise ValueError(_unknown_header(sheet))
    if "region_shape_attributes" in columns:
        return _via(sheet, columns, image)
    if "label" in columns and "labels" in columns:
        raise ValueError(_unknown_header(sheet))
    if label is not None and label != image:
        return _listed(sheet, columns, image, label)
    return _one_hot(sheet, image)


def _unknown_header(sheet: Spreadsheet) -> str:
    names = ", ".join(sheet.header) or "nothing"
    where = f"{sheet.where(sheet.header_line)}, the header,"
    separator = f" (separated by {separator_name(sheet.separator)}s)" if len(sheet.header) > 1 else ""
    return f"{where} needs a column image and one of label or labels, but has: {names[:200]}{separator}"


def _listed(sheet: Spreadsheet, columns: Sequence[str], image: int, label: int) -> LabelSheet:
    """Rows that name their labels."""
    image_id = _find(columns, "id") if columns[image] == "image" else None
    is_open_images = columns[label] == "labelname"
    has_present = "present" in columns
    present = _find(columns, "present", *(["confidence"] if is_open_images else []))
    read_box = None if has_present else box_reader(columns, sheet.rows)
    federated = present is not None and read_box is None  # Open Images: 1 and 0 are what people have verified
    split, notes = _label_splitter(sheet, label, columns[label])
    described = open_images_names(sheet.file.parent) if is_open_images else {}

    def read(row: Row) -> Iterator[LabelRow]:
        regions = label_studio_regions(row.cells[label])
        names = [] if regions is not None or row.cells[label].strip() in _NO_LABEL else split(row.cells[label])
        said = True if present is None else parse_present(row.cells[present])
        start = _row(sheet, row, image)
        if image_id is not None:
            start = replace(start, image_id=row.cells[image_id].strip())
        if regions is not None:
            yield start
            for name, box in regions:
                if not name:
                    notes.append(SkippedEntry(start.where, "a region has no label", row.cells[image].strip()))
                    continue
                yield replace(start, labels=((name, True),), box=box, in_fractions=True)
            return
        labels = tuple((described.get(name, name), said) for name in names)
        box, text, in_fractions = (None, "", False) if read_box is None else read_box(row)
        size = size_of(columns, row)
        yield replace(start, labels=labels, box=box, box_text=text, in_fractions=in_fractions, size=size)

    found = _collect(sheet, read)
    return replace(found, skipped=(*found.skipped, *notes), federated=federated, has_present=has_present)


def _one_hot(sheet: Spreadsheet, image: int) -> LabelSheet:
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

    def read(row: Row) -> Iterator[LabelRow]:
        labels: list[tuple[str, bool | None]] = []
        for position in classes:
            cell = row.cells[position].strip()
            name, present = sheet.header[position], None
            try:
                present = None if _UNCERTAIN.fullmatch(cell) else parse_present(cell)
            except UnusableEntry as error:
                reason = "a class has neither 0 nor 1, so it is unknown there"
                value = f"{name}: {error.value}"
                notes.append(SkippedEntry(sheet.where(row.line), reason, value, used_in_part=True))
            labels.append((name, present))
        yield _row(sheet, row, image, tuple(labels))

    found = _collect(sheet, read)
    federated = any(shown is None for row in found.rows for _, shown in row.labels)
    return replace(found, skipped=(*found.skipped, *notes), federated=federated)


def _via(sheet: Spreadsheet, columns: Sequence[str], image: int) -> LabelSheet:
    """Regions of VGG Image Annotator."""
    shape, attributes = columns.index("region_shape_attributes"), _find(columns, "region_attributes")

    def read(row: Row) -> Iterator[LabelRow]:
        names, box = read_via_region(row.cells[shape], "{}" if attributes is None else row.cells[attributes])
        yield _row(sheet, row, image, tuple((name, True) for name in names), box)

    return _collect(sheet, read)


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
        sheet = replace(sheet, rows=(Row(sheet.header_line, sheet.header), *sheet.rows))
        return _collect(sheet, lambda row: _google_row(sheet, row, 1 if has_use else 0))
    is_retina = len(first.cells) == 6 and _PICTURE.fullmatch(first.cells[0])
    if is_retina and all(re.fullmatch(r"-?\d*\.?\d*", cell) for cell in first.cells[1:5]):
        return _collect(replace(sheet, rows=(first, *sheet.rows)), lambda row: _retina_row(sheet, row))
    if len(first.cells) == len(_MAKE_SENSE) and _PICTURE.fullmatch(first.cells[5]):
        return _with_header(replace(sheet, header=_MAKE_SENSE, rows=(first, *sheet.rows)))
    return None


def _google_row(sheet: Spreadsheet, row: Row, image: int) -> Iterator[LabelRow]:
    """[use,]file,label,xmin,ymin,,,xmax,ymax,, in fractions; or [use,]file,label,label,..."""
    cells = [cell.strip() for cell in row.cells]
    names = cells[image + 1 :]
    values = names[1:]
    numbers = [value for value in values if value]
    if len(values) >= 6 and len(numbers) >= 4 and any(math.isfinite(read_number(value)) for value in numbers):
        xs, ys = ([read_number(v) for v in values[axis::2] if v] or [math.nan] for axis in (0, 1))
        box = (min(xs), min(ys), max(xs), max(ys)) if all(map(math.isfinite, (*xs, *ys))) else (math.nan,) * 4
        yield _row(sheet, row, image, ((names[0], True),), box, ",".join(values).rstrip(","), in_fractions=True)
        return
    yield _row(sheet, row, image, tuple((name, True) for name in names if name))


def _retina_row(sheet: Spreadsheet, row: Row) -> Iterator[LabelRow]:
    """file,x1,y1,x2,y2,label in pixels; all but the file empty for a picture without objects."""
    _, *corners, label = (cell.strip() for cell in row.cells)
    if not any(corners) and not label:
        yield _row(sheet, row, 0)
        return
    x0, y0, x1, y1 = map(read_number, corners)
    yield _row(sheet, row, 0, ((label, True),) if label else (), (x0, y0, x1, y1), ",".join(corners))


def _row(
    sheet: Spreadsheet,
    row: Row,
    image: int,
    labels: Labels = (),
    box: Box | None = None,
    box_text: str = "",
    in_fractions: bool = False,
) -> LabelRow:
    return LabelRow(sheet.where(row.line), row.cells[image].strip(), None, labels, box, box_text, in_fractions)


def _collect(sheet: Spreadsheet, read: Callable[[Row], Iterable[LabelRow]]) -> LabelSheet:
    rows: list[LabelRow] = []
    skipped = [*sheet.skipped]
    for row in sheet.rows:
        try:
            rows += list(read(row))
        except UnusableEntry as error:
            skipped.append(error.at(sheet.where(row.line)))
    return LabelSheet(tuple(rows), tuple(skipped), federated=False, has_present=False, header=sheet.header)


def _label_splitter(
    sheet: Spreadsheet, position: int, column: str
) -> tuple[Callable[[str], list[str]], list[SkippedEntry]]:
    """Return how the cells of a column are split into labels, and those that may hold several all the same."""
    cells = [row.cells[position].strip() for row in sheet.rows]
    marked = any("|" in cell or ";" in cell for cell in cells)
    separators = r"[|;\n]" if marked else r"[,\n]" if column in _PLURAL else None

    def split(cell: str) -> list[str]:
        listed = _list_in(cell)
        parts = listed if listed is not None else re.split(separators, cell) if separators else [cell]
        return [part.strip() for part in parts if part.strip()]

    names = {cell for cell in cells if cell and not cell.startswith(("[", "{"))}
    doubtful = set() if marked else _doubtful(names, " ")
    if column in _PLURAL and not marked:
        doubtful |= {name for name in names if " " in name and not names.isdisjoint(name.split())}
    if separators is None:
        doubtful |= _doubtful(names, ",")
    elif any("," in name for name in names):
        doubtful = set()
    reason = "the cell may hold several labels; separate them by | to split it"
    none = "the label is what programs write for no value; the picture has no label"
    rows = [(sheet.where(row.line), cell) for row, cell in zip(sheet.rows, cells, strict=True)]
    found = [SkippedEntry(where, reason, cell, used_in_part=True) for where, cell in rows if cell in doubtful]
    found += (SkippedEntry(where, none, cell, used_in_part=True) for where, cell in rows if cell in _NO_LABEL)
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
