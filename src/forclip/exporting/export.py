"""`forclip export`: what a search found, or images by their ids, into a file or folder that other tools read."""

from collections.abc import Callable, Sequence
from pathlib import Path

from forclip.exporting.coco_file import write_coco
from forclip.exporting.csv_file import write_csv
from forclip.exporting.fiftyone_folder import write_fiftyone
from forclip.exporting.file_list import write_files
from forclip.exporting.selection import Selection, items_of_ids, items_of_results
from forclip.index.image_index import Index
from forclip.search import Searcher
from forclip.search_request import SearchRequest, answer

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


def select_found(
    searcher: Searcher, request: SearchRequest, label: str | None = None, root: Path | None = None
) -> Selection:
    """What a search finds. label: instead of the words searched for."""
    found = answer(searcher, request)
    items = items_of_results(searcher.index, found.results, found.probabilities)
    return Selection(items, request.label if label is None else label, root)


def select_ids(index: Index, image_ids: Sequence[str], label: str = "", root: Path | None = None) -> Selection:
    """Images by id, without scores and places."""
    return Selection(items_of_ids(index, image_ids), label, root)


def select_ids_for(
    searcher: Searcher, image_ids: Sequence[str], text: str, label: str | None = None, root: Path | None = None
) -> Selection:
    """Images by id, with the score and place that a text gives each, best first."""
    items_of_ids(searcher.index, image_ids)  # an id that is not there is told
    results = searcher.index.search_among(image_ids, searcher.encode_text(text))
    return Selection(items_of_results(searcher.index, results, []), text if label is None else label, root)
