"""What a published store is and how it is searched: one JSON text in its collection of texts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from forclip.index.milvus.columns import Precision, PublishedColumn
from forclip.index.milvus.server import MilvusServer
from forclip.index.schema import HEADER_KEY, StoreHeader, read_header

FORMAT_VERSION = 1
SETTINGS, VERSION, OPEN_KEYS = "settings", "version", "open"  # names of texts


@dataclass(frozen=True)
class VectorIndex:
    """Milvus's index of the vectors. kind: Milvus's name of its type; build: its parameters."""

    kind: str
    build: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_exact(self) -> bool:
        """Whether every vector is compared, as it is stored."""
        return self.kind == "FLAT"


@dataclass(frozen=True)
class SearchSettings:
    """params: of Milvus's search; compared: images scored exactly, per wanted image; recall: share of the best 50
    images found, the mean over `queries` sample queries; vectors: how many there were when it was measured."""

    params: Mapping[str, int] = field(default_factory=dict)
    compared: float = 1.1
    recall: float | None = None
    queries: int = 0
    vectors: int = 0


@dataclass(frozen=True)
class PublishSettings:
    """header: of the store as it is published, with its own precision and merging; precision: of Milvus's vectors;
    all_columns: whether all of the store's columns are published, also new ones;
    store: where the store was when it was published, for people to read; files: of the model, with the number of parts
    of each; model: identifies their contents."""

    header: StoreHeader
    precision: Precision
    columns: tuple[PublishedColumn, ...]
    all_columns: bool
    index: VectorIndex
    search: SearchSettings
    store: str = ""
    files: Mapping[str, int] = field(default_factory=dict)
    model: str = ""

    def to_json(self) -> str:
        columns = [[column.name, column.field, column.type] for column in self.columns]
        others = {"index": asdict(self.index), "search": asdict(self.search), "columns": columns}
        plain = {name: getattr(self, name) for name in ("precision", "all_columns", "store", "files", "model")}
        return json.dumps({"format_version": FORMAT_VERSION, "header": self.header.to_json(), **plain, **others})

    @staticmethod
    def from_json(content: Mapping[str, Any], place: str) -> "PublishSettings":
        """Raises ValueError, naming the place, for another format version."""
        if content.get("format_version") != FORMAT_VERSION:
            version = content.get("format_version")
            raise ValueError(f"{place}: format version {version!r}; this forclip reads version {FORMAT_VERSION}")
        columns = tuple(PublishedColumn(*column) for column in content["columns"])
        index, search = VectorIndex(**content["index"]), SearchSettings(**content["search"])
        header = read_header(pa.schema([], {HEADER_KEY: content["header"]}), place)
        others = {name: content[name] for name in ("precision", "all_columns", "store", "files", "model")}
        return PublishSettings(header=header, columns=columns, index=index, search=search, **others)


@dataclass(frozen=True)
class PublishedVersion:
    """number: rises with every change; store_version: of the store, None if not all of it is published."""

    number: int = 0
    store_version: int | None = None


def read_settings(server: MilvusServer) -> PublishSettings:
    """Read a published store's settings. Raises ValueError if there is none."""
    content = server.read_json(SETTINGS)
    if content is None:
        raise ValueError(f"{server.address}: no published store; forclip publish STORE {server.address} makes one")
    return PublishSettings.from_json(content, str(server.address))


def read_version(server: MilvusServer) -> PublishedVersion:
    """Read the newest version."""
    return PublishedVersion(**(server.read_json(VERSION) or {}))


def write_version(server: MilvusServer, store_version: int | None) -> None:
    """Count one change."""
    version = PublishedVersion(read_version(server).number + 1, store_version)
    server.write_texts({VERSION: json.dumps(asdict(version))})


def write_open_keys(server: MilvusServer, keys: Sequence[int]) -> None:
    """Note the images that are being written or deleted, so that a kill leaves no vectors without an image."""
    server.write_texts({OPEN_KEYS: json.dumps(list(keys))})


def read_open_keys(server: MilvusServer) -> list[int]:
    """Return the images that were being written or deleted."""
    keys: list[int] = server.read_json(OPEN_KEYS) or []
    return keys
