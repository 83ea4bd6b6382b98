"""What `forclip export` hands on: what a search found, or images by their ids."""

from collections.abc import Sequence
from pathlib import Path

from forclip.exporting.selection import Selection, items_of_ids, items_of_results
from forclip.index.image_index import Index
from forclip.search import Searcher
from forclip.search_request import SearchRequest, answer


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
