"""Select images to hand on, from a search or by id."""

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from forclip.index.protocol import SearchIndex
from forclip.location import Location, absolute, as_location, location_text, parse_location, without_range
from forclip.search.request import SearchRequest, run_search
from forclip.search.searcher import AnySearcher
from forclip.types import Floats

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Item:
    """One image of a selection.

    width, height: in pixels of the upright image; box: xyxy as fractions of them; score: a cosine; present: the user's
    verdict on whether the image shows the label; own: the user's columns by name; name: the file's name in the export,
    None for that of the path; part: train or val in an export that is split, else empty.
    """

    image_id: str
    path: Location
    width: int
    height: int
    score: float | None = None
    probability: float | None = None
    box: Box | None = None
    present: bool | None = None
    own: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    part: str = ""

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
    root: Location | None = None

    def __post_init__(self) -> None:
        for item in self.items:
            self.name_of(item)

    def without(self, image_ids: Container[str]) -> "Selection":
        """The selection without some images."""
        return replace(self, items=tuple(item for item in self.items if item.image_id not in image_ids))

    def name_of(self, item: Item) -> str:
        """The image's file name in the export, with / as separator and escapes for bytes that are not UTF-8."""
        if item.name is not None:
            return item.name
        name = without_range(location_text(absolute(item.path))).replace(os.sep, "/")
        if self.root is None:
            return name
        root = location_text(absolute(self.root)).replace(os.sep, "/").rstrip("/")
        if not name.startswith(f"{root}/"):
            raise ValueError(f"{name}: is not inside the root {root}")
        return name.removeprefix(f"{root}/")


def select_search(
    searcher: AnySearcher, request: SearchRequest, label: str | None = None, root: Location | str | None = None
) -> Selection:
    """Select the results of a search. label: None for the request in one line."""
    answer = run_search(searcher, request)
    rows = {r.image_id: {"score": r.score, "probability": answer.probability(r), "box": r.box} for r in answer.results}
    return Selection(_items(searcher.index, rows), request.label if label is None else label, _root(root))


def select_ids(
    index: SearchIndex,
    image_ids: Sequence[str],
    label: str = "",
    root: Location | str | None = None,
    query: Floats | None = None,
) -> Selection:
    """Select images by id or path, each once. Raises ValueError for an image that is not stored.

    query: a text's unit vector [dim]; the images are then sorted best first, with the score and box that it gives each.
    """
    image_ids = index.store.ids_of(image_ids)
    items = _items(index, {i: {} for i in image_ids})
    if query is not None:
        results = index.search_among(image_ids, query)
        items = _items(index, {r.image_id: {"score": r.score, "box": r.box} for r in results})
    return Selection(items, label, _root(root))


def _root(root: Location | str | None) -> Location | None:
    return None if root is None else as_location(root)


def _items(index: SearchIndex, fields: Mapping[str, Mapping[str, Any]]) -> tuple[Item, ...]:
    """Items in the given order. fields: other fields of Item by image id. Raises ValueError for an unknown image."""
    files = index.store.files(list(fields))
    if missing := [image_id for image_id in fields if image_id not in files]:
        raise ValueError(f"{index.name}: has no image {missing[0]!r}")
    paths = {i: parse_location(index.store.resolve(file.uri)) for i, file in files.items()}
    return tuple(Item(i, paths[i], files[i].width, files[i].height, **others) for i, others in fields.items())
