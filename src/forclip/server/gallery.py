"""The store's images by key: what they are called, where they lie, and what is known of them.

A key is a number that no other image ever had or will have. An image that was indexed anew has another one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from forclip.index.image_index import Index
from forclip.index.store import ImageFile
from forclip.server.errors import Refused
from forclip.server.image_rows import ImageRows
from forclip.server.recent import Recent
from forclip.types import Floats

_FILE_COLUMNS = tuple(f.name for f in fields(ImageFile))
_HIGHEST = 2**63 - 1
_PAGES = 64


@dataclass(frozen=True)
class Described:
    """An image of the store. row: what is known of it, by column; own: the user's columns."""

    key: int
    row: Mapping[str, Any]
    own: dict[str, Any]

    @property
    def file(self) -> ImageFile:
        return ImageFile(**{name: self.row[name] for name in _FILE_COLUMNS})

    @property
    def name(self) -> str:
        """The file's, without its folder."""
        uri: str = self.row["uri"]
        return uri.replace("\\", "/").rsplit("/", 1)[-1]

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.row["width"])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.row["height"])


class Gallery:
    """An index, read by key and by id."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self._rows = ImageRows(index.store)
        self._pages: Recent[dict[int, Described]] = Recent(_PAGES)

    def describe(self, keys: Sequence[int]) -> dict[int, Described]:
        """By key; those that are gone are left out."""
        own = self.index.store.user_columns
        rows = self._rows.of(keys)
        return {n: Described(n, row, {name: row.get(name) for name in own}) for n, row in rows.items()}

    def one(self, key: str) -> Described:
        """Raises Refused, 404, for what is no key or not there."""
        parsed = _parse_key(key)
        found = self.describe([parsed]) if parsed is not None else {}
        if not found or parsed is None:
            raise gone()
        return found[parsed]

    def keys_of_ids(self, image_ids: Sequence[str]) -> dict[str, int]:
        """By id; those that are gone are left out."""
        found: dict[str, int] = {}
        for part in self.index.view().parts:
            places = part.positions(image_ids)
            ids = part.segment.ids.take(pa.array(places)).to_pylist()
            found |= dict(zip(ids, part.segment.keys[places].tolist(), strict=True))
        return found

    def described_ids(self, image_ids: Sequence[str]) -> dict[str, Described]:
        """By id; those that are gone are left out."""
        keys = self.keys_of_ids(image_ids)
        described = self.describe(list(keys.values()))
        return {i: described[n] for i, n in keys.items() if n in described}

    def described_page(self, keys: Sequence[int]) -> dict[int, Described]:
        """As describe, of a page of results: the last ones are kept for as long as the store stays as it is."""
        return self._pages.get(tuple(keys), lambda: self.describe(keys), of=self.index.store.table())

    def ids_of_keys(self, keys: Sequence[str]) -> list[str]:
        """In this order, each once. Raises Refused, 404, for one that is not there."""
        parsed = list(dict.fromkeys(_parse_key(key) for key in keys))
        known = [n for n in parsed if n is not None]
        rows = self._rows.of(known)
        if len(rows) < len(parsed):
            raise Refused(404, "there is no image with one of these keys")
        return [rows[n]["id"] for n in known]

    def vectors(self, key: int) -> tuple[Floats, Floats]:
        """An image's stored vectors, unit [N, dim], and the place of each, [N, 4]. Raises Refused, 404, where it is
        gone."""
        stored = self.index.vectors_of(key)
        if stored is None:
            raise gone()
        vectors, boxes = stored
        unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return unit, boxes

    def column_types(self) -> dict[str, str]:
        """Of the user's columns."""
        schema = self.index.store.table().schema
        return {name: str(schema.field(name).type) for name in self.index.store.user_columns}


def gone() -> Refused:
    """What is told of an image that is not there, or not any more."""
    return Refused(404, "there is no image with this key")


def _parse_key(text: str) -> int | None:
    key = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
    return key if key is not None and key <= _HIGHEST else None
