"""Reviews: the verdicts and saved searches of each reviewer, kept in the store's folder, and their routes.

Images are kept by id, so that verdicts stay when an image is indexed again. Names are not accounts: whoever may use the
service may use each of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Path as PathParameter

from forclip.bucket_path import StorePath
from forclip.server import limits
from forclip.server.errors import Refused
from forclip.server.gallery import Gallery
from forclip.server.schemas import (
    Name,
    NewVerdicts,
    Problem,
    ReviewedImage,
    ReviewOut,
    SavedSearch,
    SavedSearchTitle,
    SearchVerdicts,
)
from forclip.server.state_file import StateFile

ReviewerName = Annotated[Name, PathParameter(description="The reviewer's name.")]


class Reviews:
    """The reviews of one store. A search is identified by a text that the client chooses."""

    def __init__(self, store: StorePath, shared: Path | None = None) -> None:
        self._state = StateFile(store, "reviews", shared)

    def names(self) -> list[str]:
        """Return the reviewers. Raises ValueError for a damaged file."""
        return sorted(self._state.read())

    def one(self, name: str) -> dict[str, Any]:
        """Return what a reviewer said: `verdicts`, by search and image id, `saved` and `queues`, by search.

        All are empty for an unknown name.
        """
        return {"verdicts": {}, "saved": [], "queues": {}, **self._state.read().get(name, {})}

    def give(self, name: str, search: str, verdicts: Mapping[str, bool | None]) -> None:
        """Add verdicts by image id; None removes one. Raises Refused (409) where there are too many."""
        with self.changing(name) as review:
            set_verdicts(review, search, verdicts)

    def save_search(self, name: str, title: str, address: str) -> None:
        """Save a search under a title, which replaces an older one. Raises Refused (409) where there are too many."""
        with self.changing(name) as review:
            others = [saved for saved in review["saved"] if saved["title"] != title]
            review["saved"] = [{"title": title, "address": address}, *others]
            if len(review["saved"]) > limits.SAVED_SEARCHES:
                raise Refused(409, f"a reviewer may have at most {limits.SAVED_SEARCHES} saved searches")

    def remove_search(self, name: str, title: str) -> None:
        """Remove a saved search. Raises Refused (404)."""
        with self.changing(name) as review:
            others = [saved for saved in review["saved"] if saved["title"] != title]
            if len(others) == len(review["saved"]):
                raise Refused(404, "there is no saved search of this title")
            review["saved"] = others

    @contextmanager
    def changing(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield what a reviewer said, and keep what is changed in it. Raises Refused (409) where there are too many."""
        with self._state.changing() as reviewers:
            if name not in reviewers and len(reviewers) >= limits.REVIEWERS:
                raise Refused(409, f"there may be at most {limits.REVIEWERS} reviewers")
            yield reviewers.setdefault(name, {"verdicts": {}, "saved": []})


def set_verdicts(review: dict[str, Any], search: str, verdicts: Mapping[str, bool | None]) -> None:
    """Set a reviewer's verdicts by image id; None removes one. Raises Refused (409) where there are too many."""
    given = review["verdicts"].setdefault(search, {})
    given.update(verdicts)
    for image_id in [i for i, verdict in given.items() if verdict is None]:
        del given[image_id]
    if not given:
        del review["verdicts"][search]
    if sum(map(len, review["verdicts"].values())) > limits.REVIEWED:
        raise Refused(409, f"a reviewer may have at most {limits.REVIEWED} verdicts")


def review_routes(gallery: Gallery, reviews: Reviews) -> APIRouter:
    """Routes below /api/reviewers."""
    routes = APIRouter(prefix="/api/reviewers", tags=["reviews"], responses={s: {"model": Problem} for s in (404, 409)})

    def render(search: str, verdicts: Mapping[str, bool]) -> SearchVerdicts:
        images = gallery.by_id(list(verdicts))

        def of(right: bool) -> list[ReviewedImage]:
            found = [images[i] for i, verdict in verdicts.items() if verdict is right and i in images]
            return [ReviewedImage(key=str(image.key), name=image.name) for image in found]

        return SearchVerdicts(search=search, right=of(True), wrong=of(False), gone=len(verdicts) - len(images))

    @routes.get("")
    def list_reviewers() -> list[str]:
        """All names that have verdicts or saved searches."""
        return reviews.names()

    @routes.get("/{name}")
    def read(name: ReviewerName) -> ReviewOut:
        """A reviewer's verdicts and saved searches; none for a new name."""
        review = reviews.one(name)
        return ReviewOut(
            name=name,
            searches=[render(search, verdicts) for search, verdicts in review["verdicts"].items()],
            saved=[SavedSearch(**saved) for saved in review["saved"]],
        )

    @routes.post("/{name}/verdicts", status_code=204)
    def give(name: ReviewerName, body: NewVerdicts) -> None:
        """Give verdicts on images for a search, or take them back."""

        def of(keys: Sequence[str], verdict: bool | None) -> dict[str, bool | None]:
            return dict.fromkeys(gallery.ids_of_keys(keys), verdict) if keys else {}

        reviews.give(name, body.search, of(body.right, True) | of(body.wrong, False) | of(body.removed, None))

    @routes.post("/{name}/saved", status_code=204)
    def save(name: ReviewerName, body: SavedSearch) -> None:
        """Save a search. One with the same title is replaced."""
        reviews.save_search(name, body.title, body.address)

    @routes.post("/{name}/saved/remove", status_code=204)
    def remove(name: ReviewerName, body: SavedSearchTitle) -> None:
        """Remove a saved search."""
        reviews.remove_search(name, body.title)

    return routes
