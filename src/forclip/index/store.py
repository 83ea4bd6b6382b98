"""The images of a store on disk: a Lance table, whose versions make every change atomic. What is derived from it for
speed lies beside it and can be thrown away. No torch here."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock, Timeout

from forclip.index.schema import OWN_COLUMNS, Codes, StoreHeader, flat, nested, read_header
from forclip.types import ImageEmbeddings, Ints

_TABLE, _LOCK = "images.lance", "writer.lock"
_PATIENCE = 600.0  # seconds that a writer waits for another one
_JUST_NOW = 5_000_000_000  # nanoseconds: more than between two ticks of any file system's clock
_OLD_ENOUGH = timedelta(hours=1)  # readers may still be at versions younger than that

Metadata = Mapping[str, Sequence[Any]]  # a user's own columns: a value for each image, None where it has none


@dataclass(frozen=True)
class ImageFile:
    """Where an image lies and how to tell that it changed. size: bytes; modified: nanoseconds since 1970;
    source: what was indexed when it was found, such as a folder."""

    uri: str
    width: int = 0
    height: int = 0
    content_hash: str = ""
    size: int = 0
    modified: int = 0
    source: str = ""


@dataclass(frozen=True)
class StoredVectors:
    """Some images as they are stored. keys [images]; codes [total, dim]; offsets [images + 1]; boxes [total, 4]
    float16; images: id and uri."""

    keys: Ints
    codes: Codes
    offsets: Ints
    boxes: np.ndarray
    images: pa.Table


class Store:
    """Opens what `create_store` made; raises ValueError for anything else.

    Every image has a key that no other image ever had or will have, and an update gives it a new one: whoever keeps
    a copy of vectors by key can tell which of them still count.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._table = _opened(folder)
        self._versions = folder / _TABLE / "_versions"  # a new file in it makes a new version
        self._unchanged_since = -1  # when that folder had changed last, as it was last looked into
        self.header = read_header(self._table.schema, str(folder))

    def table(self) -> lance.LanceDataset:
        """The newest version. Raises ValueError where there is none any more or it is damaged."""
        with _damage_told(self.folder):
            changed = os.stat(self._versions).st_mtime_ns
            # A clock that ticks slowly gives two changes one time, so a folder that just changed is looked into.
            if changed != self._unchanged_since or time.time_ns() - changed < _JUST_NOW:
                if self._table.latest_version != self._table.version:
                    self._table = _opened(self.folder)
                self._unchanged_since = changed
        return self._table

    @property
    def version(self) -> int:
        """Of the newest state; every change raises it."""
        return int(self.table().version)

    def add(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None = None) -> None:
        """Adds images, all or none. Raises ValueError for an id that is there already, and as `put` does."""
        with self._writing():
            ids = self._read(["id"])["id"]
            present = ids.filter(pc.is_in(ids, value_set=pa.array(embeddings.image_ids, pa.string())))
            if len(present):
                raise ValueError(f"{self.folder}: image {present[0].as_py()!r} is there already")
            self._append(embeddings, files, metadata)

    def put(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None = None) -> None:
        """Adds images and replaces those whose ids are there, all or none.

        Raises ValueError for vectors of another dimension, metadata that don't fit the columns there are, no space left
        on the disk, or another process that does not stop writing.
        """
        with self._writing():
            rows = self._rows(embeddings, files, metadata)
            with self._told():
                merge = self._for_writing().merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
                merge.execute(rows)

    def delete(self, where: str) -> int:
        """Deletes the images for which an SQL expression holds. Returns how many. Raises ValueError for bad SQL."""
        with self._writing():
            before = self.table().count_rows()
            with asked(where):
                self._for_writing().delete(where)
            return int(before - self.table().count_rows())

    def delete_ids(self, image_ids: Sequence[str]) -> int:
        """Deletes images by id, all in one version. Ids that are not there don't matter. Returns how many were."""
        return self.delete(_one_of(image_ids)) if image_ids else 0

    def annotate(self, image_ids: Sequence[str], metadata: Metadata) -> None:
        """Sets a user's own columns of images that are there; other images keep what they have."""
        with self._writing():
            self._own_columns(metadata, len(image_ids))
            kinds = [f for f in self.table().schema if f.name in metadata]
            columns = {"id": pa.array(image_ids, pa.string())}
            columns |= {f.name: _as_column(metadata[f.name], f, self.folder) for f in kinds}
            with self._told():
                self._for_writing().merge_insert("id").when_matched_update_all().execute(pa.table(columns))

    def compact(self, keep: timedelta = _OLD_ENOUGH) -> None:
        """Joins small files and drops what was deleted, and versions older than that."""
        with self._writing(), self._told():
            table = self._for_writing()
            table.optimize.compact_files()
            table.cleanup_old_versions(keep)

    def keys(self, where: str | None = None) -> Ints:
        """Of all images, or of those for which an SQL expression holds. Raises ValueError for bad SQL."""
        return read_keys(self.table(), where)

    def ids(self) -> set[str]:
        return set(self._read(["id"])["id"].to_pylist())

    def files(self, image_ids: Sequence[str] | None = None) -> dict[str, ImageFile]:
        """By image id: of all images, or of these; those that are not there are left out."""
        names = [f.name for f in fields(ImageFile)]
        wanted = None if image_ids is None else pc.field("id").isin(pa.array(image_ids, pa.string()))
        rows = self._read(["id", *names], wanted).to_pylist()
        return {row["id"]: ImageFile(**{name: row[name] for name in names}) for row in rows}

    @property
    def own_columns(self) -> list[str]:
        """Names of the user's columns."""
        return [name for name in self.table().schema.names if name not in OWN_COLUMNS]

    def _read(self, columns: list[str], wanted: pc.Expression | None = None) -> pa.Table:
        """Of the newest version. Raises ValueError where a file is damaged."""
        with _damage_told(self.folder):
            return self.table().to_table(columns, filter=wanted)

    def _for_writing(self) -> lance.LanceDataset:
        """Another handle: a change moves the one that it is made by to the new version, and readers hold theirs."""
        return _opened(self.folder)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One process writes at a time; a kill sets the others free."""
        lock = FileLock(self.folder / _LOCK, timeout=_PATIENCE)
        try:
            with lock:
                yield
        except Timeout:
            raise ValueError(f"{self.folder}: another process has been writing for {_PATIENCE:.0f} s") from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What Lance says in one sentence."""
        try:
            yield
        except (OSError, RuntimeError, pa.ArrowInvalid) as error:
            raise ValueError(f"{self.folder}: nothing was changed: {_short(error)}") from None

    def _append(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None) -> None:
        rows = self._rows(embeddings, files, metadata)
        with self._told():
            lance.write_dataset(rows, str(self.folder / _TABLE), mode="append")

    def _rows(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None) -> pa.Table:
        """As a table of the store's schema; columns of the user that are new are added to that first."""
        assert len(files) == len(embeddings)
        if embeddings.dim != self.header.dim:
            raise ValueError(f"{self.folder}: holds vectors of {self.header.dim} dimensions, not {embeddings.dim}")
        own = metadata or {}
        self._own_columns(own, len(embeddings))
        schema = self.table().schema
        count = len(embeddings)
        boxes = embeddings.boxes
        if boxes is None:  # a whole image is the place we know nothing about
            boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (len(embeddings.vectors), 1))
        columns: dict[str, Any] = {
            "number": self._new_keys(count),
            "id": list(embeddings.image_ids),
            **{f.name: [getattr(file, f.name) for file in files] for f in fields(ImageFile)},
            "added": [datetime.now(UTC)] * count,
            "vectors": nested(self.header.encode(embeddings.vectors), embeddings.offsets),
            "boxes": nested(boxes.astype(np.float16), embeddings.offsets),
            **own,
        }
        nothing = [None] * count
        arrays = [_as_column(columns.get(f.name, nothing), f, self.folder) for f in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _own_columns(self, metadata: Metadata, count: int) -> None:
        """Checked, and known to the table from here on."""
        known = self.table().schema.names
        for name, values in metadata.items():
            if name in OWN_COLUMNS:
                raise ValueError(f"{self.folder}: metadata can't be named {name!r}: forclip has a column of that name")
            if len(values) != count:
                raise ValueError(f"{self.folder}: {count} images need as many values of {name!r}, not {len(values)}")
        new = {name: values for name, values in metadata.items() if name not in known}
        kinds = [pa.field(name, _kind_of(name, values)) for name, values in new.items()]
        if kinds:
            with self._told():
                self._for_writing().add_columns(pa.schema(kinds))

    def _new_keys(self, count: int) -> Ints:
        """Clock time keeps a key from being used again after the image with the highest one was deleted."""
        highest = pc.max(self._read(["number"])["number"]).as_py()
        return max(time.time_ns(), (highest or 0) + 1) + np.arange(count, dtype=np.int64)


def create_store(folder: Path, header: StoreHeader) -> Store:
    """A new store, or the one already there. Raises ValueError where another model wrote that one, or it is something
    else."""
    if (folder / _TABLE / "_versions").exists():
        store = Store(folder)
        require_model(store, header.fingerprint)
        return store
    leftovers = {_TABLE, _LOCK}  # of a creation that was killed
    if folder.exists() and (not folder.is_dir() or any(f.name not in leftovers for f in folder.iterdir())):
        raise ValueError(f"{folder}: exists and is no forclip store")
    folder.mkdir(parents=True, exist_ok=True)
    lance.write_dataset(header.schema().empty_table(), str(folder / _TABLE), mode="create")
    return Store(folder)


def require_model(store: Store, fingerprint: str) -> None:
    """Raises ValueError where another model wrote the store: vectors of two models can't be compared."""
    if store.header.fingerprint != fingerprint:
        name = store.header.model.get("name")
        raise ValueError(f"{store.folder}: was written by another model ({name!r}, or other weights of that name)")


def read_keys(table: lance.LanceDataset, where: str | None = None) -> Ints:
    """As Store.keys, of one version."""
    with _damage_told(table.uri) if where is None else asked(where):
        keys: Ints = table.to_table(["number"], filter=where)["number"].to_numpy()
    return keys


def read_vectors(table: lance.LanceDataset, dim: int, keys: Ints | None = None) -> Iterator[StoredVectors]:
    """All images of one version, or those of these keys, some at a time."""
    wanted = None if keys is None else pa.array(np.sort(keys))
    columns = ["number", "id", "uri", "width", "height", "vectors", "boxes"]
    batches = _batches(table, columns, wanted)
    while True:
        with _damage_told(table.uri):
            batch = next(batches, None)
        if batch is None:
            return
        codes, offsets = flat(batch["vectors"], dim)
        boxes, _ = flat(batch["boxes"], 4)
        yield StoredVectors(batch["number"].to_numpy(), codes, offsets, boxes, batch.select(columns[1:5]))


def _batches(table: lance.LanceDataset, columns: list[str], wanted: pa.Array | None) -> Iterator[pa.Table]:
    """By row positions, so that only what is wanted is read."""
    rows_at_once = 4096
    if wanted is None:
        for batch in table.to_batches(columns=columns, batch_size=rows_at_once):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])
        return
    present = table.to_table(["number"])["number"]
    positions = np.flatnonzero(pc.is_in(present, value_set=wanted).to_numpy())
    for start in range(0, len(positions), rows_at_once):
        yield table.take(positions[start : start + rows_at_once].tolist(), columns=columns)


@contextmanager
def asked(where: str) -> Iterator[None]:
    """What is wrong with an SQL expression, in one sentence that holds it."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"can't select images by {where!r}: {_short(error)}") from None


def _opened(folder: Path) -> lance.LanceDataset:
    if (folder / "store.json").exists():
        raise ValueError(f"{folder}: format version 1; this forclip reads version 2: index the pictures anew")
    if not (folder / _TABLE / "_versions").is_dir():
        raise ValueError(f"{folder}: no forclip store there")
    with _damage_told(folder):
        return lance.dataset(str(folder / _TABLE))


@contextmanager
def _damage_told(folder: Path | str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{folder}: damaged: {_short(error)}") from None


def _short(error: BaseException) -> str:
    """Without the place in Lance's own source that ends its messages."""
    return str(error).split(", /")[0].strip()[:300]


def _one_of(image_ids: Sequence[str]) -> str:
    listed = ", ".join("'" + i.replace("'", "''") + "'" for i in image_ids)
    return f"id IN ({listed})"


def _kind_of(name: str, values: Sequence[Any]) -> pa.DataType:
    try:
        kind = pa.array(list(values)).type
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"metadata {name!r}: {error}") from None
    return pa.string() if pa.types.is_null(kind) else kind


def _as_column(values: Any, field: pa.Field, folder: Path) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    try:
        return pa.array(values, field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(f"{folder}: column {field.name!r} holds {field.type}: {error}") from None
