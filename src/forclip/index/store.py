"""The images of a store on disk: a Lance table, whose versions make every change atomic."""

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forclip.bucket_path import BucketPath, StorePath, store_path
from forclip.index.column_changes import make_columns, repair_columns
from forclip.index.columns import cast_exactly, is_readable, to_stored
from forclip.index.filters import lance_filter
from forclip.index.local_cache import cached_store, download_folder
from forclip.index.places import Addresses
from forclip.index.roots import Roots, from_json, to_json
from forclip.index.schema import BUILT_IN_COLUMNS, HEADER_KEY, StoreHeader, read_header, to_lists
from forclip.index.table import (
    TABLE,
    change,
    open_table,
    quoted,
    read_column,
    read_keys,
    read_rows,
    replace_rows,
    reword_errors,
    take_rows,
)
from forclip.index.upkeep import KEPT_VERSIONS, index_all_rows, join_fragments, tend, with_primary_key
from forclip.location import Uri
from forclip.path_text import path_to_text
from forclip.types import ImageEmbeddings, Ints

MODEL_FOLDER = "model"
OLD_DECODING = 1  # of stores of format version 2: EXIF orientation was ignored
_RECENT = 5_000_000_000  # nanoseconds: more than the clock of any file system needs to tick
_BUCKET_RECENT = 1_000_000_000  # nanoseconds in which a bucket is not asked again for changes by other machines
_ARROW_VALUES = (pa.Array, pa.ChunkedArray)
_COLUMN_ERRORS = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# By column name, one value per image, None for no value.
Metadata = Mapping[str, Sequence[Any] | pa.Array | pa.ChunkedArray]


@dataclass(frozen=True)
class ImageFile:
    """An image file as it was when it was indexed.

    uri: where the file is: ROOT/path/in/root (`Store.resolve` gives the path), an absolute path, or a URL; width,
    height: pixels of the upright image, 0 if unknown; content_hash: of the file's bytes, empty if unknown; size: bytes;
    modified: nanoseconds since 1970; source: the folder, pattern or annotation file that was indexed, relative to the
    root; decoding: the version of `forclip.data.images.decode` that read the file, 0 if unknown.
    """

    uri: str
    width: int = 0
    height: int = 0
    content_hash: str = ""
    size: int = 0
    modified: int = 0
    source: str = ""
    decoding: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.uri, os.PathLike):  # from callers that pass paths
            object.__setattr__(self, "uri", path_to_text(Path(self.uri)))


def _changes_table(
    method: Callable[Concatenate["Store", Arguments], Result],
) -> Callable[Concatenate["Store", Arguments], Result]:
    """Decorate a method that changes the table: it runs as `change` runs an operation, so it may run several times."""

    @wraps(method)
    def run(self: "Store", /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return change(self.folder, lambda: method(self, *args, **kwargs))
        finally:
            self._seen_change = -1

    return run


class Store:
    """The images of a store: their vectors, files and metadata, without search.

    Every change is atomic: it is stored whole or, after an error or a kill, not at all. Any number of processes read
    at the same time, each sees the newest version, and a table that was read before stays readable for an hour after it
    was replaced. One process at a time writes to a local store; others wait for up to ten minutes. Any number of
    machines write to a store in a bucket, and see each other's changes within a second. A large table has indexes, so
    that a change of a thousand images takes as long as in a small one.

    Every image has a key, an integer that is never used for another image. Replacing an image's vectors gives it a new
    key, so a client that caches vectors by key knows which of them are still valid.
    """

    def __init__(self, folder: str | os.PathLike[str] | BucketPath) -> None:
        """Open an existing store: a local folder, or a URL such as s3://bucket/store.

        Raises ValueError if there is none, it is damaged or of another format version, or the bucket can't be reached.
        """
        self.folder: StorePath = store_path(folder)
        self._table = open_table(self.folder)
        self._seen_change = -1  # see `_last_change`
        # Returns where images are in the newest version of the table, and the ids that must be looked up in the table.
        self.locate: Callable[[lance.LanceDataset, Sequence[str]], tuple[Addresses, list[str]]] | None = None
        self._read_header()

    def _read_header(self) -> None:
        self.header = read_header(self._table.schema, str(self.folder))
        self._roots = from_json(self.header.roots, self.folder)

    @property
    def roots(self) -> Roots:
        """The folders that image locations are relative to, in the newest version."""
        self.table()
        return self._roots

    @property
    def model_folder(self) -> Path:
        """The copy of the trained run that wrote the store. It does not exist if the head needed no training.

        Of a store in a bucket, it is downloaded once.
        """
        if isinstance(self.folder, Path):
            return self.folder / MODEL_FOLDER
        local = cached_store(self.folder, self.header.identity()) / MODEL_FOLDER
        if not local.exists():
            download_folder(self.folder / MODEL_FOLDER, local)
        return local

    def resolve(self, uri: str) -> str:
        """Return where an image is, from `ImageFile.uri`."""
        return self.roots.resolve(uri)

    def id_of(self, path: str | os.PathLike[str] | Uri) -> str:
        """Return the id that `forclip index` gives a file, as `Roots.id_of`."""
        return self.roots.id_of(path)

    def ids_of(self, names: Sequence[str]) -> list[str]:
        """Return the ids that names stand for: ids, or paths of images. What is neither stays as it is."""
        return self.roots.ids_of(names, self.known_ids)

    def table(self) -> lance.LanceDataset:
        """Return the newest version. Raises ValueError if it is damaged or was deleted."""
        with reword_errors(f"{self.folder}: damaged", place=self.folder):
            changed = self._last_change()
            # A slow clock gives two changes the same time, so a folder that has just changed is always checked.
            if changed != self._seen_change or (self.is_local and time.time_ns() - changed < _RECENT):
                if self._table.latest_version != self._table.version:
                    self._table = open_table(self.folder)
                    self._read_header()
                self._seen_change = changed
        return self._table

    @property
    def is_local(self) -> bool:
        """Whether the store is in a local folder, not in a bucket."""
        return isinstance(self.folder, Path)

    def _last_change(self) -> int:
        """A number that changes with the table: the time at which a local folder got its newest version.

        Of a bucket, a number that changes every second: asking it is a request.
        """
        if isinstance(self.folder, Path):
            return os.stat(f"{self.folder}/{TABLE}/_versions").st_mtime_ns
        return time.monotonic_ns() // _BUCKET_RECENT

    def _open_to_change(self) -> lance.LanceDataset:
        """Open the newest version to commit a change of it. What is read afterwards is at least as new.

        So a change by another machine of what was read is always seen as a conflict.
        """
        self._seen_change = -1
        table = self.table()
        if self.is_local:
            return with_primary_key(open_table(self.folder))
        return with_primary_key(lance.dataset(str(self.folder / TABLE), version=table.version))

    def _merge(self, table: lance.LanceDataset) -> Any:
        """Return a merge by id. A conflict in a bucket is an error at once, so that all is read again."""
        merge = table.merge_insert("id")
        return merge if self.is_local else merge.conflict_retries(0)

    @property
    def version(self) -> int:
        """The number of the newest version. Every change raises it."""
        return int(self.table().version)

    def __len__(self) -> int:
        with reword_errors(f"{self.folder}: damaged", place=self.folder):
            return int(self.table().count_rows())

    @_changes_table
    def add(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None = None) -> None:
        """Add images. Raises ValueError for an id that is already stored, and as `put` does; then none are added."""
        given = self._make_columns(metadata or {}, len(embeddings))
        table = self._open_to_change()
        if stored := self.known_ids(embeddings.image_ids):
            raise ValueError(f"{self.folder}: image {min(stored)!r} is already stored")
        rows = self._rows(embeddings, files, given)
        if self.is_local:
            tend(lance.write_dataset(rows, str(self.folder / TABLE), mode="append"))
        else:  # an append does not see that another machine adds the same images
            self._merge(table).when_not_matched_insert_all().execute(rows)
            tend(open_table(self.folder))

    @_changes_table
    def put(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None = None) -> None:
        """Add images, replacing those whose ids are already stored: all of them, or none.

        embeddings: unit vectors; a missing box stands for the whole image; files: one per image, in the same order;
        metadata: values of a user's columns, which are created where they are new, and get a wider type where values
        need it (whole numbers that meet fractions). A replaced image keeps the values that are None or not given.

        Raises ValueError for vectors of another dimension, metadata that do not fit their columns, a full disk, or
        another process that writes for ten minutes.
        """
        given = self._make_columns(metadata or {}, len(embeddings))
        table = self._open_to_change()
        if self.is_local:
            known = self._addresses(table, embeddings.image_ids)
            rows = self._rows(embeddings, files, given, known)
            if len(known):
                replace_rows(table, known, rows)
            else:
                lance.write_dataset(rows, str(self.folder / TABLE), mode="append")
        else:
            merge = self._merge(table).when_matched_update_all().when_not_matched_insert_all()
            merge.execute(self._rows(embeddings, files, given))
        tend(open_table(self.folder))

    @_changes_table
    def delete(self, where: str) -> int:
        """Delete the images for which an SQL expression holds, and return how many. Raises ValueError for bad SQL."""
        table = self._open_to_change()
        wanted = lance_filter(where, table.schema)
        with reword_errors(f"can't select images by {where!r}", place=self.folder):
            deleted = table.delete(wanted) if self.is_local else table.delete(wanted, conflict_retries=0)
        return int(deleted["num_deleted_rows"])

    def delete_ids(self, image_ids: Sequence[str]) -> int:
        """Delete images by id in one version, and return how many. Unknown ids are ignored."""
        return self._delete_ids(image_ids) if image_ids else 0

    @_changes_table
    def _delete_ids(self, image_ids: Sequence[str]) -> int:
        table = self._open_to_change()
        if self.is_local:
            known = self._addresses(table, image_ids)
            if len(known):
                replace_rows(table, known, None)
            return len(known)
        gone = pa.table({"id": pa.array(dict.fromkeys(image_ids), pa.string())})
        return int(self._merge(table).when_matched_delete().execute(gone)["num_deleted_rows"])

    @_changes_table
    def annotate(self, image_ids: Sequence[str], metadata: Metadata) -> None:
        """Set metadata of stored images; all others keep theirs, and keys do not change. Raises ValueError as `put`."""
        columns = {"id": pa.array(image_ids, pa.string()), **self._make_columns(metadata, len(image_ids))}
        self._merge(self._open_to_change()).when_matched_update_all().execute(pa.table(columns))

    @_changes_table
    def make_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Make metadata columns for values of these types, as `put` does for its values. Raises ValueError as `put`."""
        with reword_errors(f"{self.folder}", place=self.folder):
            make_columns(self.folder / TABLE, types)

    @_changes_table
    def move(self, moves: Mapping[str, tuple[str, ImageFile]]) -> None:
        """Give stored images another id and file, in one version, keeping their vectors and metadata.

        moves: by old id. The images get new keys.
        """
        table = self._open_to_change()
        rows = read_rows(table, "id", list(moves), table.schema.names)
        addresses, rows = rows["_rowaddr"].to_numpy(), rows.drop_columns(["_rowaddr"])
        targets = [moves[old] for old in rows["id"].to_pylist()]
        changed: dict[str, Any] = {
            "number": new_keys(len(rows)),
            "id": [new for new, _ in targets],
            **{n: [getattr(file, n) for _, file in targets] for n in ("uri", "size", "modified", "source")},
        }
        for name, values in changed.items():
            position = rows.schema.get_field_index(name)
            rows = rows.set_column(position, rows.schema.field(position), pa.array(values, rows.schema.types[position]))
        if self.is_local:
            replace_rows(table, addresses, rows)
        else:  # a merge, so that a new id that another machine has just added is a conflict
            merge = self._merge(table).when_matched_update_all().when_not_matched_insert_all()
            if gone := quoted(moves.keys() - {new for new, _ in targets}):
                merge = merge.when_not_matched_by_source_delete(f"id IN ({gone})")
            merge.execute(rows)
        tend(open_table(self.folder))

    @_changes_table
    def set_decoding(self, image_ids: Sequence[str], decoding: int) -> None:
        """Record by which version of the decoder the vectors of stored images are right. Keys do not change."""
        columns = {
            "id": pa.array(image_ids, pa.string()),
            "decoding": pa.array([decoding] * len(image_ids), pa.int8()),
        }
        self._merge(self._open_to_change()).when_matched_update_all().execute(pa.table(columns))

    def count_outdated(self) -> int:
        """Return how many images were decoded by a version of forclip that ignored EXIF orientation."""
        with reword_errors(f"{self.folder}: damaged", place=self.folder):
            return int(self.table().count_rows(f"decoding = {OLD_DECODING}"))

    def write_header(self, header: StoreHeader) -> None:
        """Replace what may change in the header: the model's location, its number formats and the roots.

        Roots and number formats that other machines have added meanwhile stay. Raises ValueError if one of them has a
        new root's name.
        """
        assert header.identity() == self.header.identity()
        self._write_header(header, self.header.roots)

    @_changes_table
    def _write_header(self, header: StoreHeader, known: Mapping[str, Mapping[str, str]]) -> None:
        """known: the roots from which those of the header were made."""
        table, roots = self._open_to_change(), dict(self.header.roots)
        for name, root in header.roots.items():
            if root != known.get(name):
                if roots.get(name) not in (known.get(name), root):
                    raise ValueError(f"{self.folder}: another process has just changed the root {name!r}; try again")
                roots[name] = root
        compute = list(dict.fromkeys([*self.header.compute, *header.compute]))
        table.update_schema_metadata({HEADER_KEY: replace(header, roots=roots, compute=compute).to_json()})

    def write_roots(self, roots: Roots) -> None:
        """Replace the roots."""
        self.write_header(replace(self.header, roots=to_json(roots, self.folder)))

    @_changes_table
    def compact(self, keep: timedelta = KEPT_VERSIONS) -> None:
        """Join small files, and remove deleted images and the versions older than `keep` from the disk."""
        repair_columns(self.folder / TABLE)
        table = self._open_to_change()
        join_fragments(table)
        index_all_rows(table)
        table.cleanup_old_versions(keep)

    def keys(self, where: str | None = None) -> Ints:
        """Return the keys of all images, or of those for which an SQL expression holds. Raises ValueError for bad
        SQL."""
        return read_keys(self.table(), where)

    def ids(self, where: str | None = None) -> set[str]:
        """Return the ids of all images, or of those for which an SQL expression holds, as `keys` does."""
        return set(read_column(self.table(), "id", where).to_pylist())

    def known_ids(self, image_ids: Sequence[str]) -> set[str]:
        """Return those of some ids that are stored."""
        with reword_errors(f"{self.folder}: damaged"):
            table = self.table()
            return set(take_rows(table, self._addresses(table, image_ids), ["id"])["id"].to_pylist())

    def first_id(self) -> str | None:
        """Return the first of all ids in alphabetical order, None without images."""
        with reword_errors(f"{self.folder}: damaged"):
            firsts = [pc.min(batch["id"]).as_py() for batch in self.table().to_batches(columns=["id"])]
        return min((first for first in firsts if first is not None), default=None)

    def ids_with_content(self, hashes: frozenset[str]) -> frozenset[str]:
        """Return the ids of the images whose files have one of these content hashes."""
        with reword_errors(f"{self.folder}: damaged"):
            return frozenset(read_rows(self.table(), "content_hash", sorted(hashes), ["id"])["id"].to_pylist())

    def files(self, image_ids: Sequence[str] | None = None) -> dict[str, ImageFile]:
        """Return files by image id: of all images, or of these; unknown ids are left out."""
        names = [f.name for f in fields(ImageFile)]
        with reword_errors(f"{self.folder}: damaged"):
            table = self.table()
            if image_ids is None:
                rows = table.to_table(["id", *names]).to_pylist()
            else:
                rows = read_rows(table, "id", image_ids, ["id", *names]).to_pylist()
        return {row["id"]: ImageFile(**{name: row[name] for name in names}) for row in rows}

    @property
    def user_columns(self) -> list[str]:
        """Names of the metadata columns."""
        return [n for n in self.table().schema.names if n not in BUILT_IN_COLUMNS and is_readable(n)]

    @property
    def column_types(self) -> dict[str, str]:
        """The Arrow type of each metadata column by name."""
        schema = self.table().schema
        return {name: str(schema.field(name).type) for name in self.user_columns}

    def _addresses(self, table: lance.LanceDataset, image_ids: Sequence[str]) -> Addresses:
        """Return where the images with these ids are in the newest version. Unknown ids are ignored."""
        located, others = np.empty(0, np.uint64), list(image_ids)
        if self.is_local and self.locate is not None:  # a bucket's table is as fast to ask
            located, others = self.locate(table, image_ids)
        looked_up = read_rows(table, "id", others, [])["_rowaddr"].to_numpy() if others else located[:0]
        return np.concatenate([located, looked_up])

    def _rows(
        self,
        embeddings: ImageEmbeddings,
        files: Sequence[ImageFile],
        given: Mapping[str, pa.Array],
        known: Addresses | None = None,
    ) -> pa.Table:
        """Convert images to a table of the store's schema.

        given: metadata in the types of their columns; known: where those of the images are that are stored, None to
        look them up.
        """
        count = len(embeddings)
        assert len(files) == count
        if embeddings.dim != self.header.dim:
            raise ValueError(f"{self.folder}: holds vectors of {self.header.dim} dimensions, not {embeddings.dim}")
        boxes = embeddings.boxes
        if boxes is None:
            boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (len(embeddings.vectors), 1))
        columns: dict[str, Any] = {
            "number": new_keys(count),
            "id": list(embeddings.image_ids),
            **{f.name: [getattr(file, f.name) for file in files] for f in fields(ImageFile)},
            "added": [datetime.now(UTC)] * count,
            "vectors": to_lists(self.header.encode(embeddings.vectors), embeddings.offsets),
            "boxes": to_lists(boxes.astype(np.float16), embeddings.offsets),
            **self._kept_values(embeddings.image_ids, given, known),
        }
        schema = self.table().schema
        arrays = [_to_column(columns.get(f.name, [None] * count), f, self.folder) for f in schema]
        return pa.Table.from_arrays(arrays, schema=schema)

    def _make_columns(self, metadata: Metadata, count: int) -> dict[str, pa.Array]:
        """Check metadata of `count` images, make their columns, and return the values in the columns' types."""
        given: dict[str, pa.Array] = {}
        for name, values in metadata.items():
            if len(values) != count:
                raise ValueError(f"{self.folder}: {count} images need as many values of {name!r}, not {len(values)}")
            with reword_errors(f"{self.folder}: metadata {name!r}", (ValueError, *_COLUMN_ERRORS)):
                given[name] = to_stored(values if isinstance(values, _ARROW_VALUES) else pa.array(list(values)))
        with reword_errors(f"{self.folder}", place=self.folder):
            make_columns(self.folder / TABLE, {name: values.type for name, values in given.items()})
            self._seen_change = -1
            schema = self.table().schema
            return {n: cast_exactly(v, schema.field(n).type) for n, v in given.items() if n in schema.names}

    def _kept_values(
        self, image_ids: Sequence[str], given: Mapping[str, pa.Array], known: Addresses | None
    ) -> dict[str, pa.Array]:
        """Fill in the metadata of images that are already stored where no value is given."""
        if not (columns := self.user_columns):
            return dict(given)
        if known is None:
            stored = read_rows(self.table(), "id", image_ids, columns)
        else:
            stored = take_rows(self.table(), known, ["id", *columns])
        rows = pc.index_in(pa.array(image_ids, pa.string()), value_set=stored["id"].combine_chunks())
        old = {name: stored[name].combine_chunks().take(rows) for name in columns}
        return {n: pc.coalesce(given[n], old[n]) if n in given else old[n] for n in columns}


def new_keys(count: int) -> Ints:
    """Return keys that nothing else has. They follow a random start of 63 bits: any number of machines may draw."""
    return secrets.randbelow(2**63 - count) + np.arange(count, dtype=np.int64)


def _to_column(values: Any, field: pa.Field, folder: StorePath) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    with reword_errors(f"{folder}: column {field.name!r} holds {field.type}", _COLUMN_ERRORS):
        return pa.array(values, field.type)
