"""The store's images by key and by id: file, size and the user's columns.

A key is a number that no other image ever has. An image that is indexed again gets a new key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest
from typing import Any

import numpy as np

from forclip.index.protocol import SearchIndex
from forclip.index.store import ImageFile
from forclip.location import without_range
from forclip.server.cache import StoreCache
from forclip.server.errors import Refused
from forclip.types import Floats

NO_IMAGES = "one of the images was deleted or indexed again; search again"
NO_IMAGE = (404, "the image was deleted or indexed again; search again")
_FILE_COLUMNS = tuple(f.name for f in fields(ImageFile))
_MAX_KEY = 2**63 - 1
_DIRECTIONS = 8  # that a sample is drawn from


@dataclass(frozen=True)
class StoredImage:
    """An image of the store. row: its columns without vectors; own: the user's columns."""

    key: int
    row: Mapping[str, Any]
    own: dict[str, Any]

    @property
    def file(self) -> ImageFile:
        return ImageFile(**{name: self.row[name] for name in _FILE_COLUMNS})

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        uri: str = self.row["uri"]
        return without_range(uri).replace("\\", "/").rsplit("/", 1)[-1]


class Gallery:
    """Reads an index's images by key and by id. Images that were deleted are left out of every result."""

    def __init__(self, index: SearchIndex) -> None:
        self.index = index
        self._rows = index.row_reader()
        self._pages: StoreCache[tuple[int, ...], dict[int, StoredImage]] = StoreCache(maxsize=64)
        self._samples: StoreCache[int, list[StoredImage]] = StoreCache(maxsize=4)

    def by_key(self, keys: Sequence[int]) -> dict[int, StoredImage]:
        """Return images by key."""
        own = self.index.store.user_columns
        resolve, images = self.index.store.roots.resolve, {}
        for key, row in self._rows.read(keys).items():
            own_columns = {name: row.get(name) for name in own}
            images[key] = StoredImage(key, {**row, "uri": resolve(row["uri"])}, own_columns)
        return images

    def page(self, keys: Sequence[int]) -> dict[int, StoredImage]:
        """As by_key, for the images of one page of results. Recent pages are cached."""
        return self._pages.get(tuple(keys), lambda: self.by_key(keys), self.index.view())

    def one(self, key: str) -> StoredImage:
        """Return the image with this key. Raises Refused (404) where there is none."""
        if not (images := self.by_key([_parse_key(key)])):
            raise Refused(*NO_IMAGE)
        return images[_parse_key(key)]

    def by_id(self, image_ids: Sequence[str]) -> dict[str, StoredImage]:
        """Return images by id."""
        keys = self.keys_of_ids(image_ids)
        images = self.by_key(list(keys.values()))
        return {image_id: images[key] for image_id, key in keys.items() if key in images}

    def sample(self, count: int) -> list[StoredImage]:
        """Return images of all kinds, up to a number: those that lie in random directions. The same until changed."""
        return self._samples.get(count, lambda: self._draw(count), self.index.view())

    def _draw(self, count: int) -> list[StoredImage]:
        directions = np.random.default_rng(0).normal(size=(_DIRECTIONS, self.index.store.header.dim)).astype(np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lists = self.index.search_many(directions, count)
        # The first of each list, then the second of each, and so on.
        ids = dict.fromkeys(result.image_id for rank in zip_longest(*lists) for result in rank if result is not None)
        return list(self.by_id(list(ids)[:count]).values())

    def keys_of_ids(self, image_ids: Sequence[str]) -> dict[str, int]:
        """Return keys by id."""
        return self.index.keys_of_ids(image_ids)

    def ids_of_keys(self, keys: Sequence[str]) -> list[str]:
        """Return ids in the order of the keys, each once. Raises Refused (404) for an unknown key."""
        parsed = list(dict.fromkeys(_parse_key(key) for key in keys))
        rows = self._rows.read(parsed)
        if len(rows) < len(parsed):
            raise Refused(404, NO_IMAGES)
        return [rows[key]["id"] for key in parsed]

    def known_ids(self, keys: Sequence[str]) -> dict[str, str]:
        """Return ids by key. Unknown keys are left out."""
        rows = self._rows.read([_parse_key(key) for key in keys])
        return {key: rows[_parse_key(key)]["id"] for key in keys if _parse_key(key) in rows}

    def vectors(self, key: int) -> tuple[Floats, Floats]:
        """Return an image's stored vectors, unit [N, dim], and their regions, [N, 4]. Raises Refused (404)."""
        if (stored := self.index.vectors_of(key)) is None:
            raise Refused(*NO_IMAGE)
        vectors, boxes = stored
        unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit, boxes


def _parse_key(key: str) -> int:
    """The number, or -1, which no image has, for what is not a key."""
    number = int(key) if key.isascii() and key.isdigit() and len(key) < 20 else -1
    return number if number <= _MAX_KEY else -1
