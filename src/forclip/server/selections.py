"""Selections: named lists of images that a user picked, kept in the store's folder, and their routes.

Images are kept by id, so that an image that is indexed again stays selected.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter
from fastapi import Path as PathParameter

from forclip.bucket_path import StorePath
from forclip.server import limits
from forclip.server.errors import Refused
from forclip.server.gallery import Gallery
from forclip.server.schemas import KeyList, Name, NewSelection, Problem, SelectionOut, SelectionSummary
from forclip.server.state_file import StateFile

Lists = dict[str, list[str]]
SelectionName = Annotated[Name, PathParameter(description="The selection's name.")]


class Selections:
    """The selections of one store."""

    def __init__(self, store: StorePath, shared: Path | None = None) -> None:
        """shared: as `StateFile` takes it."""
        self._state = StateFile(store, "selections", shared)

    def all(self) -> Lists:
        """Return image ids by selection name, in the order added. Raises ValueError for a damaged file."""
        return self._state.read()

    def one(self, name: str) -> list[str]:
        """Return the ids of one selection. Raises Refused (404)."""
        return _known(self.all(), name)

    def create(self, name: str, image_ids: Sequence[str]) -> None:
        """Create a selection. Raises Refused (409) for a name that is taken, and where there are too many."""
        with self._state.changing() as lists:
            if name in lists:
                raise Refused(409, "a selection of this name exists already")
            if len(lists) >= limits.SELECTIONS:
                raise Refused(409, f"there may be at most {limits.SELECTIONS} selections")
            lists[name] = list(dict.fromkeys(image_ids))

    def add(self, name: str, image_ids: Sequence[str]) -> list[str]:
        """Add images and return all ids. Raises Refused: 404, or 409 where it becomes too long."""
        return self._change(name, lambda ids: list(dict.fromkeys([*ids, *image_ids])))

    def remove(self, name: str, image_ids: Sequence[str]) -> list[str]:
        """Remove images and return the remaining ids; unknown ids are ignored. Raises Refused (404)."""
        removed = set(image_ids)
        return self._change(name, lambda ids: [i for i in ids if i not in removed])

    def delete(self, name: str) -> None:
        """Delete a selection, not its pictures. Raises Refused (404)."""
        with self._state.changing() as lists:
            _known(lists, name)
            del lists[name]

    def _change(self, name: str, change: Callable[[list[str]], list[str]]) -> list[str]:
        with self._state.changing() as lists:
            changed = lists[name] = change(_known(lists, name))
            if len(changed) > limits.SELECTED:
                raise Refused(409, f"a selection holds at most {limits.SELECTED} images")
            return changed


def _known(lists: Lists, name: str) -> list[str]:
    if name not in lists:
        raise Refused(404, "there is no selection of this name")
    return lists[name]


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
