"""Group results that are near duplicates of better ones."""

import numpy as np
from anyio import CapacityLimiter
from fastapi import APIRouter

from forclip.index.duplicates import group_in_order, image_means
from forclip.index.threads import one_core
from forclip.server.cache import StoreCache
from forclip.server.gallery import Gallery
from forclip.server.image_schemas import DuplicatesBody, DuplicatesOut
from forclip.server.threads import in_threads
from forclip.types import Floats

_KEPT_BYTES = 128_000_000  # of mean vectors, enough for the longest list of most models
_GROUPINGS = 2  # at a time


class DuplicateFinder:
    """Sorts images into groups, a part of a list at a time. Keeps the mean vectors of images that were seen before."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._seen: StoreCache[str, tuple[str, Floats]] = StoreCache(_KEPT_BYTES, lambda seen: seen[1].nbytes)

    def group(self, body: DuplicatesBody) -> list[str]:
        """Return for each of the body's keys the first image of its group. An unknown image is its own."""
        index, firsts = self._gallery.index, list(dict.fromkeys(body.firsts))
        keys = list(dict.fromkeys([*firsts, *body.keys]))
        seen = self._seen.get_many(keys, self._read, index.view())
        ids, means = [image_id for image_id, _ in seen], np.stack([mean for _, mean in seen])
        found = group_in_order(index, ids, means, len(firsts), body.similarity)
        group_of = dict(zip(keys, [*firsts, *(keys[first] for first in found)], strict=True))
        return [group_of[key] for key in body.keys]

    def _read(self, keys: list[str]) -> list[tuple[str, Floats]]:
        ids = self._gallery.known_ids(keys)
        means = dict(zip(ids, image_means(self._gallery.index, list(ids.values())), strict=True))
        unknown = "", np.zeros(self._gallery.index.store.header.dim, np.float32)
        return [(ids[key], means[key]) if key in ids else unknown for key in keys]


def duplicate_routes(gallery: Gallery) -> APIRouter:
    """Routes below /api."""
    routes, finder = APIRouter(prefix="/api", tags=["search"]), DuplicateFinder(gallery)

    @routes.post("/duplicates")
    @in_threads(CapacityLimiter(_GROUPINGS))
    def duplicates(body: DuplicatesBody) -> DuplicatesOut:
        """Group images of a list: each joins the group of the better image that it is a near duplicate of.

        A long list is grouped part by part: `firsts` names the first images of the groups of the parts before.
        """
        with one_core():
            return DuplicatesOut(firsts=finder.group(body))

    return routes
