"""Boxes in CSV files of several tools: in columns, in JSON cells, and as regions of an annotator."""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.spreadsheet import Row, read_spreadsheet

CLASS_DESCRIPTIONS = "class-descriptions"  # in the names of Open Images' files that name its classes
OPEN_IMAGES_CODE = re.compile(r"/[a-z]/[0-9a-z_]+")  # such as /m/01yrx

Box = tuple[float, float, float, float]  # xyxy
# The box, as it is written, and whether it is in fractions of the image's sides.
BoxReader = Callable[[Row], tuple[Box | None, str, bool]]

_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("bboxxmin", "bboxymin", "bboxxmax", "bboxymax"),
    ("x1", "y1", "x2", "y2"),
    ("x0", "y0", "x1", "y1"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("left", "top", "right", "bottom"),
)
_SIZES = (
    ("bboxx", "bboxy", "bboxwidth", "bboxheight"),
    ("bboxx", "bboxy", "bboxw", "bboxh"),
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
)
_NAME_KEYS = ("class", "label", "name", "type", "category", "object", "species")  # of regions, the likeliest first


def box_reader(names: Sequence[str], rows: Sequence[Row]) -> BoxReader | None:
    """Return how the box of a row is read, None if the columns hold none.

    Columns are corners such as xmin, ymin, xmax, ymax, a corner and a size, or a list of x, y, width and height in a
    column bbox. Numbers that are all between 0 and 1, some of them fractions, are fractions of the image's sides.
    """
    short = [re.sub(r"[^a-z0-9]", "", name) for name in names]
    columns = next((group for group in (*_CORNERS, *_SIZES) if set(group) <= set(short)), None)
    if columns is not None:
        positions = [short.index(name) for name in columns]

        def cells(row: Row) -> list[str]:
            return [row.cells[position].strip() for position in positions]

        def numbers(row: Row) -> list[float] | None:
            return [read_number(cell) for cell in cells(row)] if any(cells(row)) else None

        is_sized = columns in _SIZES
    elif "bbox" in short:
        position, is_sized = short.index("bbox"), True

        def cells(row: Row) -> list[str]:
            return [row.cells[position].strip()]

        def numbers(row: Row) -> list[float] | None:
            (cell,) = cells(row)
            found = [read_number(part) for part in re.split(r"[\s,;]+", cell.strip("[]() ")) if part]
            return (found if len(found) == 4 else [math.nan] * 4) if cell else None

    else:
        return None
    values = [value for row in rows for value in numbers(row) or () if math.isfinite(value)]
    in_fractions = bool(values) and max(map(abs, values)) <= 1 and any(value % 1 for value in values)

    def read(row: Row) -> tuple[Box | None, str, bool]:
        found = numbers(row)
        if found is None:
            return None, "", False
        text = ", ".join(cells(row))
        x0, y0, x1, y1 = found
        return (x0, y0, x0 + x1, y0 + y1) if is_sized else (x0, y0, x1, y1), text, in_fractions

    return read


def size_of(names: Sequence[str], row: Row) -> tuple[int, int] | None:
    """Return the image's width and height if columns give them: image_width, image_height, or width and height."""
    short = [re.sub(r"[^a-z0-9]", "", name) for name in names]
    is_box = any("width" in group and set(group) <= set(short) for group in _SIZES)
    for pair in (("imagewidth", "imageheight"), *([] if is_box else [("width", "height")])):
        if set(pair) <= set(short):
            cells = [row.cells[short.index(name)].strip() for name in pair]
            if all(re.fullmatch(r"[1-9]\d{0,5}(\.0)?", cell) for cell in cells):
                return int(float(cells[0])), int(float(cells[1]))
    return None


def read_via_region(shape: str, attributes: str) -> tuple[list[str], Box | None]:
    """Read a region of VGG Image Annotator: the class names and the box in pixels, None for a region without area.

    Raises UnusableEntry for cells that are no JSON objects, and for a region without a class.
    """
    outline, described = (_json_object(cell) for cell in (shape, attributes))
    if not outline and not described:
        return [], None  # a picture without a region
    keys = [key for key in _NAME_KEYS if key in described] or list(described)
    names: list[str] = []
    for key in keys:
        value = described[key]
        names = [n for n, on in value.items() if on] if isinstance(value, dict) else [str(value).strip()]
        if any(names):
            break
    if not any(names):
        raise UnusableEntry("the region has no class", attributes)
    return [name for name in names if name], _via_box(outline)


def label_studio_regions(cell: str) -> list[tuple[str, Box | None]] | None:
    """Read a cell of Label Studio's CSV export: names with boxes in fractions. None for a cell without JSON objects.

    A region without a label has an empty name. Raises UnusableEntry for damaged JSON, and if no region has a label.
    """
    if not cell.strip().startswith(("[{", "{", "[ {")):
        return None
    try:
        content = json.loads(cell)
    except (ValueError, RecursionError):
        if cell.strip().startswith(('[{"', '{"')):
            raise UnusableEntry("the JSON in the cell is damaged", cell) from None
        return None
    regions = content if isinstance(content, list) else [content]
    if not all(isinstance(region, dict) for region in regions):
        return None
    found: list[tuple[str, Box | None]] = []
    for region in regions:
        names = [v for k, v in region.items() if k.endswith(("labels", "choices")) and isinstance(v, list)]
        found += [(str(name), _percent_box(region)) for name in (names[0] if names else []) or ([""] if region else [])]
    if found and not any(name for name, _ in found):
        raise UnusableEntry("the JSON in the cell has no labels that are known", cell)
    return found


def open_images_names(folder: Path) -> dict[str, str]:
    """Read Open Images' names of its classes (/m/01yrx: Cat) from the file next to the labels, if there is one."""
    names: dict[str, str] = {}
    for file in sorted(folder.glob(f"*{CLASS_DESCRIPTIONS}*.csv")):
        sheet = read_spreadsheet(file)
        names |= {c[0].strip(): c[1].strip() for c in (sheet.header, *(r.cells for r in sheet.rows)) if len(c) > 1}
    return names


def read_number(cell: str) -> float:
    """Read a number, with a point or a comma, as in 1.234,5. NaN for anything else."""
    if re.fullmatch(r"-?\d{1,3}(\.\d{3})+,\d*", cell):
        cell = cell.replace(".", "")
    try:
        return float(cell.replace(",", "."))
    except ValueError:
        return math.nan


def _json_object(cell: str) -> dict[str, Any]:
    try:
        content = json.loads(cell or "{}")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UnusableEntry("the region is no JSON object", cell)
    return content


def _via_box(outline: dict[str, Any]) -> Box | None:
    try:
        match outline.get("name"):
            case "rect":
                x, y = float(outline["x"]), float(outline["y"])
                return x, y, x + float(outline["width"]), y + float(outline["height"])
            case "circle" | "ellipse":
                x, y = float(outline["cx"]), float(outline["cy"])
                rx, ry = (float(outline[key] if key in outline else outline["r"]) for key in ("rx", "ry"))
                return x - rx, y - ry, x + rx, y + ry
            case "polygon" | "polyline":
                return _bounds(outline["all_points_x"], outline["all_points_y"])
    except (KeyError, TypeError, ValueError):
        return math.nan, math.nan, math.nan, math.nan
    return None


def _percent_box(region: dict[str, Any]) -> Box | None:
    try:
        if "points" in region:
            box = _bounds([p[0] for p in region["points"]], [p[1] for p in region["points"]])
        elif "x" in region:
            x, y, width, height = (float(region[key]) for key in ("x", "y", "width", "height"))
            box = x, y, x + width, y + height
        else:
            return None
    except (KeyError, TypeError, ValueError, IndexError):
        return math.nan, math.nan, math.nan, math.nan
    x0, y0, x1, y1 = (min(max(value / 100, 0.0), 1.0) if math.isfinite(value) else value for value in box)
    return x0, y0, x1, y1


def _bounds(xs: Iterable[Any], ys: Iterable[Any]) -> Box:
    across, down = [float(x) for x in xs], [float(y) for y in ys]
    return min(across), min(down), max(across), max(down)
