"""Handing on as files: a selection, a text's list, what was judged in one. These answers hold the pictures' paths."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi import Path as PathParameter

from forclip.search.selection import Item, Selection
from forclip.server.downloads import Images, download
from forclip.server.found import find
from forclip.server.gallery import Gallery
from forclip.server.list_labels import LabelledLists
from forclip.server.ranker import Ranker
from forclip.server.schemas import (
    ExportRequest,
    Format,
    KeyList,
    Name,
    NewSelection,
    Problem,
    SearchText,
    SelectionOut,
    SelectionSummary,
    VerdictsRequest,
)
from forclip.server.selections import Selections
from forclip.types import SearchResult

Named = Annotated[Name, PathParameter(description="The selection's name.")]


def selection_routes(gallery: Gallery, selections: Selections) -> APIRouter:
    """Under /api/selections."""
    routes = APIRouter(
        prefix="/api/selections", tags=["selections"], responses={s: {"model": Problem} for s in (404, 409)}
    )

    @routes.get("")
    def list_selections() -> list[SelectionSummary]:
        """All, with how many images each has."""
        return [SelectionSummary(name=name, count=len(ids)) for name, ids in selections.all().items()]

    @routes.post("", status_code=201)
    def create(request: NewSelection) -> SelectionOut:
        """A new selection, empty or with some images."""
        ids = gallery.ids_of_keys(request.keys)
        selections.create(request.name, ids)
        return _told(gallery, request.name, ids)

    @routes.get("/{name}")
    def read(name: Named) -> SelectionOut:
        """Its images, in the order in which they were added."""
        return _told(gallery, name, selections.one(name))

    @routes.post("/{name}/add")
    def add(name: Named, request: KeyList) -> SelectionOut:
        """Puts images into it; those that are in it stay where they are."""
        return _told(gallery, name, selections.add(name, gallery.ids_of_keys(request.keys)))

    @routes.post("/{name}/remove")
    def remove(name: Named, request: KeyList) -> SelectionOut:
        """Takes images out of it."""
        return _told(gallery, name, selections.remove(name, gallery.ids_of_keys(request.keys)))

    @routes.delete("/{name}", status_code=204)
    def delete(name: Named) -> None:
        """Forgets the selection. The images stay in the store."""
        selections.delete(name)

    return routes


def _told(gallery: Gallery, name: str, image_ids: list[str]) -> SelectionOut:
    key_of = gallery.keys_of_ids(image_ids)
    keys = [str(key_of[i]) for i in image_ids if i in key_of]
    return SelectionOut(name=name, keys=keys, gone=len(image_ids) - len(keys))


As = Annotated[Format, Query(description="coco: JSON; csv: a row an image; fiftyone: a zip; files: a path a line.")]
Shown = Annotated[
    SearchText | None, Query(description="What the images are said to show: with the place that answers it in each.")
]


def export_routes(ranker: Ranker, gallery: Gallery, labelled: LabelledLists, selections: Selections) -> APIRouter:
    """Under /api."""
    routes = APIRouter(prefix="/api", tags=["export"], responses={s: {"model": Problem} for s in (404, 409)})

    @routes.post("/export", response_class=Response)
    def export_list(request: ExportRequest) -> Response:
        """The list that POST /api/search answers to the same request."""
        found = find(ranker, gallery, labelled, request)
        page = found.page(request)
        images = gallery.described_ids([r.image_id for r in page])
        items = [_item(r.image_id, images, r, found.probability(r)) for r in page if r.image_id in images]
        return download(Selection(tuple(items), request.in_words), request.format, images, "list")

    @routes.post("/export/verdicts", response_class=Response)
    def export_verdicts(request: VerdictsRequest) -> Response:
        """What was judged, as the CSV that a run's `data: {verdicts: FILE}` reads."""
        said = dict.fromkeys(gallery.ids_of_keys(request.right), True)
        said |= dict.fromkeys(gallery.ids_of_keys(request.wrong), False)
        images = gallery.described_ids(list(said))
        items = [_item(i, images, present=present) for i, present in said.items() if i in images]
        return download(Selection(tuple(items), request.label), "csv", images, "verdicts")

    @routes.get("/selections/{name}/export", response_class=Response)
    def export_selection(name: Named, format: As = "csv", text: Shown = None) -> Response:
        """A selection: in its own order, or with a text the images that answer it best first."""
        ids = selections.one(name)
        images = gallery.described_ids(ids)
        there = [i for i in ids if i in images]
        if text is None:
            return download(Selection(tuple(_item(i, images) for i in there)), format, images, "selection")
        found = gallery.index.search_among(there, ranker.text_vector(text))
        items = tuple(_item(r.image_id, images, r) for r in found)
        return download(Selection(items, text), format, images, "selection")

    return routes


def _item(
    image_id: str,
    images: Images,
    result: SearchResult | None = None,
    probability: float | None = None,
    present: bool | None = None,
) -> Item:
    """result: what found it, if anything did."""
    image = images[image_id]
    score, box = (None, None) if result is None else (result.score, result.box)
    file = image.file
    return Item(image_id, Path(file.uri), file.width, file.height, score, probability, box, present, image.own)
