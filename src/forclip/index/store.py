"""The images of a store on disk: a Lance table, whose versions make every change atomic."""

import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forclip.index.column_changes import make_columns, repair_columns
from forclip.index.columns import cast_exactly, is_readable, to_stored
from forclip.index.filters import lance_filter
from forclip.index.roots import Roots, from_json, to_json
from forclip.index.schema import BUILT_IN_COLUMNS, HEADER_KEY, StoreHeader, read_header, to_lists
from forclip.index.table import (
    LOCK,
    TABLE,
    open_table,
    read_column,
    read_keys,
    read_rows,
    replace_rows,
    reword_errors,
    writers_lock,
)
from forclip.index.upkeep import KEPT_VERSIONS, index_all_rows, join_fragments, tend, with_primary_key
from forclip.location import Uri
from forclip.path_text import path_to_text
from forclip.types import ImageEmbeddings, Ints

MODEL_FOLDER = "model"
OLD_DECODING = 1  # of stores of format version 2: EXIF orientation was ignored
# The last one marks a whole run.
_RUN_FILES = ("model.safetensors", "calibration.json", "split.json", "training_images.txt", "config.json")
_RECENT = 5_000_000_000  # nanoseconds: more than the clock of any file system needs to tick
_ARROW_VALUES = (pa.Array, pa.ChunkedArray)
_COLUMN_ERRORS = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError)

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


class Store:
    """The images of a store: their vectors, files and metadata, without search.

    Every change is atomic: it is stored whole or, after an error or a kill, not at all. One process writes at a time;
    others wait for up to ten minutes. Any number of processes read at the same time, each sees the newest version, and
    a table that was read before stays readable for an hour after it was replaced. A large table has indexes, so that
    a change of a thousand images takes as long as in a small one.

    Every image has a key, an integer that is never used for another image. Replacing an image's vectors gives it a new
    key, so a client that caches vectors by key knows which of them are still valid.
    """

    def __init__(self, folder: Path) -> None:
        """Open an existing store. Raises ValueError if there is none, or it is damaged or of another format version."""
        self.folder = folder
        self._table = open_table(folder)
        self._versions = folder / TABLE / "_versions"  # a new file in it makes a new version
        self._seen_change = -1  # the folder's time of change at the last check
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
        """The copy of the trained run that wrote the store. It does not exist if the head needed no training."""
        return self.folder / MODEL_FOLDER

    def resolve(self, uri: str) -> str:
        """Return where an image is, from `ImageFile.uri`."""
        return self.roots.resolve(uri)

    def id_of(self, path: str | os.PathLike[str] | Uri) -> str:
        """Return the id that `forclip index` gives a file, as `Roots.id_of`."""
        return self.roots.id_of(path)

    def ids_of(self, names: Sequence[str]) -> list[str]:
        """Return the ids that names stand for: ids, or paths of images. What is neither stays as it is."""
        names = [path_to_text(name) for name in names]
        by_path = {name: self.id_of(name) for name in names}
        stored = self.known_ids([*names, *by_path.values()])
        return [name if name in stored or by_path[name] not in stored else by_path[name] for name in names]

    def table(self) -> lance.LanceDataset:
        """Return the newest version. Raises ValueError if it is damaged or was deleted."""
        with reword_errors(f"{self.folder}: damaged"):
            changed = os.stat(self._versions).st_mtime_ns
            # A slow clock gives two changes the same time, so a folder that has just changed is always checked.
            if changed != self._seen_change or time.time_ns() - changed < _RECENT:
                if self._table.latest_version != self._table.version:
                    self._table = open_table(self.folder)
                    self._read_header()
                self._seen_change = changed
        return self._table

    @property
    def version(self) -> int:
        """The number of the newest version. Every change raises it."""
        return int(self.table().version)

    def __len__(self) -> int:
        with reword_errors(f"{self.folder}: damaged"):
            return int(self.table().count_rows())

    def add(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None = None) -> None:
        """Add images. Raises ValueError for an id that is already stored, and as `put` does; then none are added."""
        with self._writing():
            if stored := self.known_ids(embeddings.image_ids):
                raise ValueError(f"{self.folder}: image {min(stored)!r} is already stored")
            self._to_write()
            table = lance.write_dataset(
                self._rows(embeddings, files, metadata), str(self.folder / TABLE), mode="append"
            )
            tend(table)

    def put(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None = None) -> None:
        """Add images, replacing those whose ids are already stored: all of them, or none.

        embeddings: unit vectors; a missing box stands for the whole image; files: one per image, in the same order;
        metadata: values of a user's columns, which are created where they are new, and get a wider type where values
        need it (whole numbers that meet fractions). A replaced image keeps the values that are None or not given.

        Raises ValueError for vectors of another dimension, metadata that do not fit their columns, a full disk, or
        another process that writes for ten minutes.
        """
        with self._writing():
            self._to_write()
            rows = self._rows(embeddings, files, metadata)
            merge = open_table(self.folder).merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(rows)
            tend(open_table(self.folder))

    def delete(self, where: str) -> int:
        """Delete the images for which an SQL expression holds, and return how many. Raises ValueError for bad SQL."""
        wanted = lance_filter(where, self.table().schema)
        with self._writing(), reword_errors(f"can't select images by {where!r}"):
            return int(self._to_write().delete(wanted)["num_deleted_rows"])

    def delete_ids(self, image_ids: Sequence[str]) -> int:
        """Delete images by id in one version, and return how many. Unknown ids are ignored."""
        if not image_ids:
            return 0
        with self._writing():
            gone = pa.table({"id": pa.array(dict.fromkeys(image_ids), pa.string())})
            merge = self._to_write().merge_insert("id").when_matched_delete()
            return int(merge.execute(gone)["num_deleted_rows"])

    def annotate(self, image_ids: Sequence[str], metadata: Metadata) -> None:
        """Set metadata of stored images; all others keep theirs, and keys do not change. Raises ValueError as `put`."""
        with self._writing():
            columns = {"id": pa.array(image_ids, pa.string()), **self._make_columns(metadata, len(image_ids))}
            self._to_write().merge_insert("id").when_matched_update_all().execute(pa.table(columns))

    def make_columns(self, types: Mapping[str, pa.DataType]) -> None:
        """Make metadata columns for values of these types, as `put` does for its values. Raises ValueError as `put`."""
        with self._writing(), reword_errors(f"{self.folder}"):
            make_columns(self.folder / TABLE, types)

    def move(self, moves: Mapping[str, tuple[str, ImageFile]]) -> None:
        """Give stored images another id and file, in one version, keeping their vectors and metadata.

        moves: by old id. The images get new keys.
        """
        with self._writing():
            table = self._to_write()
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
                rows = rows.set_column(
                    position, rows.schema.field(position), pa.array(values, rows.schema.types[position])
                )
            replace_rows(table, addresses, rows)
            tend(open_table(self.folder))

    def set_decoding(self, image_ids: Sequence[str], decoding: int) -> None:
        """Record by which version of the decoder the vectors of stored images are right. Keys do not change."""
        with self._writing():
            columns = {
                "id": pa.array(image_ids, pa.string()),
                "decoding": pa.array([decoding] * len(image_ids), pa.int8()),
            }
            self._to_write().merge_insert("id").when_matched_update_all().execute(pa.table(columns))

    def count_outdated(self) -> int:
        """Return how many images were decoded by a version of forclip that ignored EXIF orientation."""
        with reword_errors(f"{self.folder}: damaged"):
            return int(self.table().count_rows(f"decoding = {OLD_DECODING}"))

    def write_header(self, header: StoreHeader) -> None:
        """Replace what may change in the header: the model's location and the roots."""
        assert header.identity() == self.header.identity()
        with self._writing():
            open_table(self.folder).update_schema_metadata({HEADER_KEY: header.to_json()})

    def write_roots(self, roots: Roots) -> None:
        """Replace the roots."""
        self.write_header(replace(self.header, roots=to_json(roots, self.folder)))

    def compact(self, keep: timedelta = KEPT_VERSIONS) -> None:
        """Join small files, and remove deleted images and the versions older than `keep` from the disk."""
        with self._writing():
            repair_columns(self.folder / TABLE)
            table = self._to_write()
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
            return set(read_rows(self.table(), "id", image_ids, [])["id"].to_pylist())

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

    def _writing(self) -> AbstractContextManager[None]:
        return writers_lock(self.folder)

    def _to_write(self) -> lance.LanceDataset:
        """Open the newest version to change it."""
        return with_primary_key(open_table(self.folder))

    def _rows(self, embeddings: ImageEmbeddings, files: Sequence[ImageFile], metadata: Metadata | None) -> pa.Table:
        """Convert images to a table of the store's schema, to which new metadata columns are added first."""
        count = len(embeddings)
        assert len(files) == count
        if embeddings.dim != self.header.dim:
            raise ValueError(f"{self.folder}: holds vectors of {self.header.dim} dimensions, not {embeddings.dim}")
        given = self._make_columns(metadata or {}, count)
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
            **self._kept_values(embeddings.image_ids, given),
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
        with reword_errors(f"{self.folder}"):
            make_columns(self.folder / TABLE, {name: values.type for name, values in given.items()})
            schema = self.table().schema
            return {n: cast_exactly(v, schema.field(n).type) for n, v in given.items() if n in schema.names}

    def _kept_values(self, image_ids: Sequence[str], given: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """Fill in the metadata of images that are already stored where no value is given."""
        if not (columns := self.user_columns):
            return dict(given)
        stored = read_rows(self.table(), "id", image_ids, columns)
        rows = pc.index_in(pa.array(image_ids, pa.string()), value_set=stored["id"].combine_chunks())
        old = {name: stored[name].combine_chunks().take(rows) for name in columns}
        return {n: pc.coalesce(given[n], old[n]) if n in given else old[n] for n in columns}


def create_store(folder: Path, header: StoreHeader, run: Path | None = None) -> Store:
    """Create a store, or open the one in the folder.

    run: folder of the trained run whose files the store keeps. Raises ValueError if another model wrote an existing
    store, or the folder holds something else.
    """
    if not has_table(folder):
        if has_store(folder):
            raise ValueError(f"{folder}: exists and is no forclip store")
        folder.mkdir(parents=True, exist_ok=True)
        with writers_lock(folder):
            if not has_table(folder):  # no other job was faster
                if run is not None:
                    copy_run(run, folder)
                lance.write_dataset(header.schema().empty_table(), str(folder / TABLE), mode="create")
    store = Store(folder)
    require_model(store, header.fingerprint)
    return store


def has_table(folder: Path) -> bool:
    """Whether a store was created in the folder."""
    return (folder / TABLE / "_versions").exists()


def has_store(folder: Path) -> bool:
    """Whether a store, or anything else that is no store, is there.

    It is not so for a folder that is missing or empty, or that holds a store whose creation was killed or goes on.
    """
    unfinished = {TABLE, LOCK, MODEL_FOLDER}
    if not folder.is_dir():
        return folder.exists()
    return has_table(folder) or any(file.name not in unfinished for file in folder.iterdir())


def new_keys(count: int) -> Ints:
    """Return keys that nothing else has. They follow a random start of 63 bits: any number of machines may draw."""
    return secrets.randbelow(2**63 - count) + np.arange(count, dtype=np.int64)


def copy_run(run: Path, store: Path) -> None:
    """Copy what searching needs of a trained run into a store: head, class vectors, calibration and class split."""
    (store / MODEL_FOLDER).mkdir(exist_ok=True)
    for name in _RUN_FILES:
        if (run / name).exists():
            shutil.copyfile(run / name, store / MODEL_FOLDER / name)


def require_model(store: Store, fingerprint: str) -> None:
    """Raise ValueError if another model wrote the store: vectors of two models cannot be compared."""
    if store.header.fingerprint != fingerprint:
        raise ValueError(written_by_another(str(store.folder), store.header))


def written_by_another(name: str, header: StoreHeader) -> str:
    """Say that another model wrote a store. name: of the store."""
    return f"{name}: was written by another model ({header.model.get('name')!r}, or other weights of that name)"


def _to_column(values: Any, field: pa.Field, folder: Path) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    with reword_errors(f"{folder}: column {field.name!r} holds {field.type}", _COLUMN_ERRORS):
        return pa.array(values, field.type)
