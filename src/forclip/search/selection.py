"""What is handed on: images, what they are said to show, and a score and a suggested place where a text found them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forclip.index.image_index import Index
from forclip.index.store import ImageFile
from forclip.search.request import SearchRequest, answer
from forclip.search.searcher import Searcher
from forclip.types import SearchResult

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Item:
    """One image. width, height: pixels of the stored image; box: xyxy as fractions of them; score: a cosine; present:
    whether someone said that it shows what the label says; own: the user's columns, by name."""

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
        """x, y, width, height in pixels, within the image. Raises ValueError where the image's size is not known."""
        if self.box is None:
            return None
        if not (self.width > 0 and self.height > 0):
            raise ValueError(f"{self.image_id}: the store does not know its size in pixels: index it anew")
        x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in self.box)
        x, y = round(x0 * self.width, 2), round(y0 * self.height, 2)
        return x, y, round(x1 * self.width - x, 2), round(y1 * self.height - y, 2)


@dataclass(frozen=True)
class Selection:
    """label: what the images are said to show, empty where nobody said it. root: the folder that file names are
    relative to, None: they are absolute. Raises ValueError for an image outside the root."""

    items: tuple[Item, ...]
    label: str = ""
    root: Path | None = None

    def __post_init__(self) -> None:
        for item in self.items:
            self.name_of(item)

    def name_of(self, item: Item) -> str:
        """The image's file name, with / between its parts."""
        path = Path(os.path.abspath(item.path))
        if self.root is None:
            return path.as_posix()
        root = Path(os.path.abspath(self.root))
        if not path.is_relative_to(root):
            raise ValueError(f"{path}: is not inside the root {root}")
        return path.relative_to(root).as_posix()


def items_of_results(index: Index, results: Sequence[SearchResult], probabilities: Sequence[float]) -> tuple[Item, ...]:
    """In their order. probabilities: one for each, or none at all. Raises ValueError for an image that was deleted."""
    files = _files(index, [r.image_id for r in results])
    sure: Sequence[float | None] = probabilities or [None] * len(results)
    return tuple(
        Item(r.image_id, Path(f.uri), f.width, f.height, r.score, p, r.box)
        for r, f, p in zip(results, files, sure, strict=True)
    )


def items_of_ids(index: Index, image_ids: Sequence[str]) -> tuple[Item, ...]:
    """In their order, each once. Raises ValueError for an id that the store has not."""
    once = list(dict.fromkeys(image_ids))
    files = _files(index, once)
    return tuple(Item(i, Path(f.uri), f.width, f.height) for i, f in zip(once, files, strict=True))


def _files(index: Index, image_ids: Sequence[str]) -> list[ImageFile]:
    known = index.store.files(image_ids)
    for image_id in image_ids:
        if image_id not in known:
            raise ValueError(f"{index.store.folder}: has no image {image_id!r}")
    return [known[image_id] for image_id in image_ids]


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
