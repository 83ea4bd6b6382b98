"""The files of a store's images as planning needs them: looked up in the store's indexes, or read once in columns."""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forclip.index.filter_values import begins_with, quote
from forclip.index.store import ImageFile, Store
from forclip.index.table import read_rows, reword_errors
from forclip.types import Bools, Ints

_READ_PER_LOOKUP = 64  # if more than one image in 64 is needed, all are read
_ROWS_AT_ONCE = 65_536
_NAMES = [f.name for f in fields(ImageFile)]


@dataclass(frozen=True)
class FileStates:
    """What tells whether files have changed. All arrays have one value per id.

    known: whether the store has the image; size, modified, decoding: as `ImageFile` has them, any number otherwise.
    """

    known: Bools
    size: Ints
    modified: Ints
    decoding: NDArray[np.int8]


class StoredFiles:
    """The files of one version of a store. None stands for a store that does not exist yet.

    many: how many images are going to be looked up. If they are a large part of the store, their sizes and times of
    change are read once: 25 bytes of memory for each image of the store.
    """

    def __init__(self, store: Store | None, many: int = 0) -> None:
        self._store = store
        self._table = None if store is None else store.table()
        self._folder = "" if store is None else str(store.folder)
        self._read_all = many * _READ_PER_LOOKUP > len(self)
        self._columns: tuple[Ints, Ints, Ints, NDArray[np.int8]] | None = None

    def __len__(self) -> int:
        return 0 if self._table is None else int(self._table.count_rows())

    def files(self, image_ids: Sequence[str]) -> dict[str, ImageFile]:
        """Return files by id. Unknown ids are left out."""
        return self._files("id", image_ids)

    def with_content(self, hashes: Sequence[str]) -> dict[str, ImageFile]:
        """Return the files with one of these contents, by id."""
        return self._files("content_hash", hashes)

    def known(self, image_ids: Sequence[str]) -> set[str]:
        """Return those of some ids that are stored."""
        return set() if self._store is None or not image_ids else self._store.known_ids(image_ids)

    def states(self, image_ids: Sequence[str]) -> FileStates:
        """Return sizes and times of change. Images may be known that are not, but only with a state of their own:
        `files` tells for sure."""
        count = len(image_ids)
        known, size, modified = np.zeros(count, bool), np.zeros(count, np.int64), np.zeros(count, np.int64)
        decoding = np.zeros(count, np.int8)
        if self._table is None or not len(self):
            return FileStates(known, size, modified, decoding)
        if self._read_all:
            hashes, size, modified, decoding = self._all_states()
            wanted = np.fromiter(map(hash, image_ids), np.int64, count)
            at = np.searchsorted(hashes, wanted).clip(max=len(hashes) - 1)
            known = hashes[at] == wanted
            return FileStates(known, size[at], modified[at], decoding[at])
        position = {image_id: k for k, image_id in enumerate(image_ids)}
        rows = self._rows("id", image_ids, ["size", "modified", "decoding"])
        at = np.array([position[i] for i in rows["id"].to_pylist()], np.int64)
        known[at] = True
        for column, name in ((size, "size"), (modified, "modified"), (decoding, "decoding")):
            column[at] = rows[name].to_numpy()
        return FileStates(known, size, modified, decoding)

    def locations(self) -> Iterator[tuple[str, str]]:
        """Yield the id and location of every image."""
        yield from self._scan("")

    def below(self, prefix: str) -> list[str]:
        """Return the ids that begin with a text."""
        return [image_id for image_id, _ in self._scan(begins_with("id", prefix))] if self._table else []

    def count_below(self, prefix: str) -> int:
        """Return how many ids begin with a text."""
        return 0 if self._table is None else int(self._table.count_rows(begins_with("id", prefix)))

    def from_sources(
        self, sources: Iterable[str], prefixes: Iterable[str], without: Container[str]
    ) -> Iterator[tuple[str, str, str]]:
        """Yield id, location and source of the images of these sources and of locations that begin with these texts.

        without: ids to leave out, which tells them fast.
        """
        wanted = [f"source = {quote(source)}" for source in sources if source]
        wanted += [begins_with("uri", prefix) for prefix in prefixes]
        if self._table is None or not wanted:
            return
        for batch in self._batches(["id", "uri", "source"], " OR ".join(wanted)):
            rows = [k for k, image_id in enumerate(batch["id"].to_pylist()) if image_id not in without]
            if rows:
                for row in batch.take(rows).to_pylist():
                    yield row["id"], row["uri"], row["source"]

    def _files(self, key: str, values: Sequence[str]) -> dict[str, ImageFile]:
        if self._table is None or not values:
            return {}
        rows = self._rows(key, values, ["id", *_NAMES]).to_pylist()
        return {row["id"]: ImageFile(**{name: row[name] for name in _NAMES}) for row in rows}

    def _rows(self, key: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
        with reword_errors(f"{self._folder}: damaged"):
            return read_rows(self._table, key, values, columns)

    def _scan(self, where: str) -> Iterator[tuple[str, str]]:
        for batch in self._batches(["id", "uri"], where) if self._table is not None else ():
            yield from zip(batch["id"].to_pylist(), batch["uri"].to_pylist(), strict=True)

    def _batches(self, columns: list[str], where: str) -> Iterator[pa.RecordBatch]:
        assert self._table is not None
        with reword_errors(f"{self._folder}: damaged"):
            yield from self._table.scanner(
                columns, filter=where or None, batch_size=_ROWS_AT_ONCE, use_scalar_index=not self._read_all
            ).to_batches()

    def _all_states(self) -> tuple[Ints, Ints, Ints, NDArray[np.int8]]:
        """Return hash of the id, size, time of change and decoding of every image, by ascending hash."""
        if self._columns is None:
            count, end = len(self), 0
            hashes, size, modified = (np.empty(count, np.int64) for _ in range(3))
            decoding = np.empty(count, np.int8)
            for batch in self._batches(["id", "size", "modified", "decoding"], ""):
                rows = slice(end, end + batch.num_rows)
                hashes[rows] = np.fromiter(map(hash, batch["id"].to_pylist()), np.int64, batch.num_rows)
                for column, name in ((size, "size"), (modified, "modified"), (decoding, "decoding")):
                    column[rows] = batch[name].to_numpy()
                end = rows.stop
            order = np.argsort(hashes)
            self._columns = hashes[order], size[order], modified[order], decoding[order]
        return self._columns
