"""The images of a published store without their vectors: the part of `forclip.index.store.Store` that search needs."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from hashlib import blake2b
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from forclip.index.milvus.columns import FILTERABLE, OF_IMAGES
from forclip.index.milvus.filters import milvus_filter
from forclip.index.milvus.server import MilvusServer, texts
from forclip.index.milvus.settings import PublishSettings, read_version
from forclip.index.roots import Roots
from forclip.index.schema import StoreHeader
from forclip.index.store import OLD_DECODING, ImageFile
from forclip.location import Uri

_AT_ONCE = 2048  # keys or ids in a query
_FILE_FIELDS = [field.name for field in fields(ImageFile)]

Row = dict[str, Any]


class PublishedImages:
    """Methods are those of `Store`; they read the newest rows."""

    def __init__(self, server: MilvusServer, settings: PublishSettings) -> None:
        self.server, self.settings = server, settings

    @property
    def header(self) -> StoreHeader:
        return self.settings.header

    @property
    def roots(self) -> Roots:
        return Roots({name: root["path"] for name, root in self.header.roots.items()})

    @property
    def version(self) -> int:
        return read_version(self.server).number

    @property
    def user_columns(self) -> list[str]:
        return [column.name for column in self.settings.columns]

    @property
    def column_types(self) -> dict[str, str]:
        return {column.name: column.type for column in self.settings.columns}

    @property
    def model_folder(self) -> Path:
        """A local copy of the model's files, which are read from the server the first time."""
        folder = cache_folder() / "models" / (self.settings.model or "none")
        if self.settings.files and not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            copy = Path(mkdtemp(dir=folder.parent))
            try:
                digest = blake2b(digest_size=16)
                for name, parts in sorted(self.settings.files.items()):
                    content = self.server.read_file(name, parts)
                    digest.update(file_digest(name, content))
                    (copy / name).write_bytes(content)
                if digest.hexdigest() != self.settings.model:
                    raise ValueError(
                        f"{self.server.address}: the files of its model are damaged; publish the store again"
                    )
                try:
                    copy.rename(folder)
                except OSError:
                    if not folder.exists():  # else another process was first
                        raise
            finally:
                shutil.rmtree(copy, ignore_errors=True)
        return folder

    def resolve(self, uri: str) -> str:
        return self.roots.resolve(uri)

    def id_of(self, path: str | os.PathLike[str] | Uri) -> str:
        return self.roots.id_of(path)

    def ids_of(self, names: Sequence[str]) -> list[str]:
        return self.roots.ids_of(names, self.known_ids)

    def known_ids(self, image_ids: Sequence[str]) -> set[str]:
        return set(self.by_ids(image_ids, []))

    def first_id(self) -> str | None:
        rows = self.server.query(self.server.images, ["id"], filter="image >= 0", limit=1)
        return rows[0]["id"] if rows else None

    def ids_with_content(self, hashes: frozenset[str]) -> frozenset[str]:
        wanted, found = sorted(hashes), set[str]()
        for start in range(0, len(wanted), _AT_ONCE):
            condition = f"content_hash in {texts(wanted[start : start + _AT_ONCE])}"
            found |= {row["id"] for row in self.server.rows(self.server.images, ["id"], condition)}
        return frozenset(found)

    def files(self, image_ids: Sequence[str]) -> dict[str, ImageFile]:
        rows = self.by_ids(image_ids, _FILE_FIELDS)
        return {i: ImageFile(**{name: row[name] for name in _FILE_FIELDS}) for i, row in rows.items()}

    def count_outdated(self) -> int:
        return self.server.count(self.server.images, f"decoding == {OLD_DECODING}")

    def read(self, keys: Sequence[int]) -> dict[int, Row]:
        """Return all columns of images by key; deleted images are left out."""
        columns = {c.field: c for c in (*FILTERABLE, *OF_IMAGES, *self.settings.columns)}
        rows = self.by_keys([key for key in keys if key >= 0], list(columns))
        named: dict[int, Row] = {}
        for key, row in rows.items():
            named[key] = {column.name: column.from_milvus(row[name]) for name, column in columns.items()}
            del named[key]["added"]
        return named

    def by_keys(self, keys: Iterable[int], names: Sequence[str]) -> dict[int, Row]:
        """Return fields of images by key, without those that are not there or were replaced."""
        wanted, rows = list(keys), dict[int, Row]()
        for start in range(0, len(wanted), _AT_ONCE):
            ids = [int(key) for key in wanted[start : start + _AT_ONCE]]
            found = self.server.query(self.server.images, ["image", "id", "added", *names], ids=ids)
            rows |= {row["image"]: row for row in found}
        newest = _newest(rows.values())
        return {int(key): rows[key] for key in wanted if key in rows and newest[rows[key]["id"]] is rows[key]}

    def by_ids(self, image_ids: Sequence[str], names: Sequence[str], where: str | None = None) -> dict[str, Row]:
        """Return fields of images by id. where: an SQL expression that limits the images."""
        wanted, rows = list(dict.fromkeys(image_ids)), dict[int, Row]()
        condition = "" if where is None else f" AND {self.condition(where)}"
        for start in range(0, len(wanted), _AT_ONCE):
            filter = f"id in {texts(wanted[start : start + _AT_ONCE])}{condition}"
            for row in self.server.rows(self.server.images, ["image", "id", "added", *names], filter):
                rows[row["image"]] = row
        newest = _newest(rows.values())
        return {image_id: newest[image_id] for image_id in wanted if image_id in newest}

    def all(self, names: Sequence[str], where: str | None = None, **others: Any) -> Iterator[Row]:
        """Read fields of all images in the order of their keys. where: an SQL expression that limits them."""
        condition = "" if where is None else self.condition(where)
        return self.server.rows(self.server.images, ["image", *names], condition, **others)

    def condition(self, where: str | None) -> str:
        """Translate a filter, empty for none. Raises ValueError for bad SQL and what Milvus can't do."""
        return "" if where is None else milvus_filter(where, self.settings.columns)


def cache_folder() -> Path:
    """Return the user's folder for copies of what servers hold."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forclip"


def state_folder(address: str) -> Path:
    """Return the user's folder for what a service of a published store keeps."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "forclip" / blake2b(address.encode(), digest_size=8).hexdigest()


def file_digest(name: str, content: bytes) -> bytes:
    """Identify a file of a model by its name and content."""
    return blake2b(name.encode() + b"\0" + content, digest_size=16).digest()


def _newest(rows: Iterable[Row]) -> dict[str, Row]:
    """Return the newest row of each id: while an image is replaced, both versions are there."""
    newest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (row["added"], row["image"])):
        newest[row["id"]] = row
    return newest
