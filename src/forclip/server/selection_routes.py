"""Selections: created, changed, and handed on as files."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from forclip.server.gallery import Described, Gallery
from forclip.server.schemas import KeyList, Name, NewSelection, Problem, SelectionOut, SelectionSummary
from forclip.server.selection_files import as_csv, as_file_list
from forclip.server.selections import Selections

Named = Annotated[Name, Path(description="The selection's name.")]
Format = Annotated[Literal["csv", "files"], Query(description="csv: a row an image; files: a path a line.")]


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

    @routes.get("/{name}/export", response_class=Response)
    def export(name: Named, format: Format = "csv") -> Response:
        """A file to hand on. This is the one answer that holds the paths of pictures."""
        images = _images(gallery, selections.one(name))
        if format == "csv":
            return _file(as_csv(images, gallery.index.store.own_columns), "text/csv", "selection.csv")
        return _file(as_file_list(images), "text/plain", "selection.txt")

    return routes


def _told(gallery: Gallery, name: str, image_ids: list[str]) -> SelectionOut:
    numbers = gallery.numbers_of_ids(image_ids)
    keys = [str(numbers[i]) for i in image_ids if i in numbers]
    return SelectionOut(name=name, keys=keys, gone=len(image_ids) - len(keys))


def _images(gallery: Gallery, image_ids: list[str]) -> list[Described]:
    described = gallery.described_ids(image_ids)
    return [described[i] for i in image_ids if i in described]


def _file(content: str, media_type: str, name: str) -> Response:
    """As a download, so that no browser shows it as something else. A name that is not UTF-8 gets question marks."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content.encode("utf-8", "replace"), media_type=f"{media_type}; charset=utf-8", headers=headers)
