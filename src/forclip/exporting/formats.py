"""The formats that a selection is handed on in, by name, and the writing of one."""

from collections.abc import Callable
from pathlib import Path

from forclip.exporting.coco_file import write_coco
from forclip.exporting.csv_file import write_csv
from forclip.exporting.fiftyone_folder import write_fiftyone
from forclip.exporting.file_list import write_files
from forclip.exporting.selection import Selection

FORMATS: dict[str, Callable[[Selection, Path], None]] = {
    "coco": write_coco,
    "csv": write_csv,
    "fiftyone": write_fiftyone,
    "files": write_files,
}


def export(selection: Selection, format: str, to: Path) -> None:
    """Raises ValueError for an unknown format, a target that exists (someone may have worked on it), an empty
    selection, and as the format's writer does."""
    if format not in FORMATS:
        raise ValueError(f"unknown format {format!r}; there are: {', '.join(FORMATS)}")
    if to.exists():
        raise ValueError(f"{to}: exists already; choose another name")
    if not selection.items:
        raise ValueError(f"nothing to export: no image was found for {selection.label!r}")
    to.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[format](selection, to)
