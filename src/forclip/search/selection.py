"""Selections: images to export, with a label, scores and suggested boxes."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forclip.index.image_index import Index
from forclip.search.request import SearchRequest, run_search
from forclip.search.searcher import Searcher

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Item:
    """One image of a selection.

    width, height: in pixels of the stored image; box: xyxy as fractions of them; score: a cosine; present: the user's
    verdict on whether the image shows the label; own: the user's columns by name.
    """

    image_id: str
    path: Path
    width: int
    height: int
    score: float | None = None
    probability: float | None = None
    box: Box | None = None
    present: bool | None = None
    own: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pixel_box(self) -> Box | None:
        """The box as x, y, width, height in pixels, clipped to the image. Raises ValueError for an unknown size."""
        if self.box is None:
            return None
        if not (self.width > 0 and self.height > 0):
            raise ValueError(f"{self.image_id}: the store does not know its size in pixels: index it again")
        x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in self.box)
        x, y = round(x0 * self.width, 2), round(y0 * self.height, 2)
        return x, y, round(x1 * self.width - x, 2), round(y1 * self.height - y, 2)


@dataclass(frozen=True)
class Selection:
    """Images to export.

    label: what the images show, empty where unknown. root: the folder that file names are relative to; None: names are
    absolute. Raises ValueError for an image outside the root.
    """

    items: tuple[Item, ...]
    label: str = ""
    root: Path | None = None

    def __post_init__(self) -> None:
        for item in self.items:
            self.name_of(item)

    def name_of(self, item: Item) -> str:
        """The image's file name in the export, with / as separator."""
        path = Path(os.path.abspath(item.path))
        if self.root is None:
            return path.as_posix()
        root = Path(os.path.abspath(self.root))
        if not path.is_relative_to(root):
            raise ValueError(f"{path}: is not inside the root {root}")
        return path.relative_to(root).as_posix()


def select_search(
    searcher: Searcher, request: SearchRequest, label: str | None = None, root: Path | None = None
) -> Selection:
    """Select the results of a search. label: None for the request in one line."""
    answer = run_search(searcher, request)
    fields = {
        r.image_id: {"score": r.score, "probability": answer.probability(r), "box": r.box} for r in answer.results
    }
    items = _items(searcher.index, fields)
    return Selection(items, request.label if label is None else label, root)


def select_ids(index: Index, image_ids: Sequence[str], label: str = "", root: Path | None = None) -> Selection:
    """Select images by id, each once, without scores and boxes. Raises ValueError for an id that is not stored."""
    return Selection(_items(index, {i: {} for i in image_ids}), label, root)


def select_ids_for(
    searcher: Searcher, image_ids: Sequence[str], text: str, label: str | None = None, root: Path | None = None
) -> Selection:
    """Select images by id, best first, with the score and box that a text gives each. Raises as select_ids does."""
    select_ids(searcher.index, image_ids)
    results = searcher.index.search_among(image_ids, searcher.encode_text(text))
    items = _items(searcher.index, {r.image_id: {"score": r.score, "box": r.box} for r in results})
    return Selection(items, text if label is None else label, root)


def _items(index: Index, fields: Mapping[str, Mapping[str, Any]]) -> tuple[Item, ...]:
    """Items in the given order. fields: other fields of Item by image id. Raises ValueError for an unknown image."""
    files = index.store.files(list(fields))
    if missing := [image_id for image_id in fields if image_id not in files]:
        raise ValueError(f"{index.store.folder}: has no image {missing[0]!r}")
    return tuple(Item(i, Path(files[i].uri), files[i].width, files[i].height, **others) for i, others in fields.items())
