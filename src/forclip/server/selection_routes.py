"""Create, read and change selections."""

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter

from forclip.server.gallery import Gallery
from forclip.server.schemas import KeyList, Name, NewSelection, Problem, SelectionOut, SelectionSummary
from forclip.server.selections import Selections

SelectionName = Annotated[Name, PathParameter(description="The selection's name.")]


def selection_routes(gallery: Gallery, selections: Selections) -> APIRouter:
    """Routes below /api/selections."""
    routes = APIRouter(
        prefix="/api/selections", tags=["selections"], responses={s: {"model": Problem} for s in (404, 409)}
    )

    def render(name: str, image_ids: list[str]) -> SelectionOut:
        keys = gallery.keys_of_ids(image_ids)
        present = [str(keys[i]) for i in image_ids if i in keys]
        return SelectionOut(name=name, keys=present, gone=len(image_ids) - len(present))

    @routes.get("")
    def list_selections() -> list[SelectionSummary]:
        """All selections and how many images each has."""
        return [SelectionSummary(name=name, count=len(ids)) for name, ids in selections.all().items()]

    @routes.post("", status_code=201)
    def create(body: NewSelection) -> SelectionOut:
        """Create a selection, empty or with some images."""
        ids = gallery.ids_of_keys(body.keys)
        selections.create(body.name, ids)
        return render(body.name, ids)

    @routes.get("/{name}")
    def read(name: SelectionName) -> SelectionOut:
        """A selection's images, in the order in which they were added."""
        return render(name, selections.one(name))

    @routes.post("/{name}/add")
    def add(name: SelectionName, body: KeyList) -> SelectionOut:
        """Add images; those that are already in it keep their position."""
        return render(name, selections.add(name, gallery.ids_of_keys(body.keys)))

    @routes.post("/{name}/remove")
    def remove(name: SelectionName, body: KeyList) -> SelectionOut:
        """Remove images."""
        return render(name, selections.remove(name, gallery.ids_of_keys(body.keys)))

    @routes.delete("/{name}", status_code=204)
    def delete(name: SelectionName) -> None:
        """Delete the selection. The images stay in the store."""
        selections.delete(name)

    return routes
