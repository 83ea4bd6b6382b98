"""Selections: created and changed."""

from typing import Annotated

from fastapi import APIRouter, Path

from forclip.server.gallery import Gallery
from forclip.server.schemas import KeyList, Name, NewSelection, Problem, SelectionOut, SelectionSummary
from forclip.server.selections import Selections

Named = Annotated[Name, Path(description="The selection's name.")]


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
    numbers = gallery.numbers_of_ids(image_ids)
    keys = [str(numbers[i]) for i in image_ids if i in numbers]
    return SelectionOut(name=name, keys=keys, gone=len(image_ids) - len(keys))
