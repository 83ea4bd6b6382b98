"""Bring a published store up to date with its store: add, replace and delete images, and choose how it is searched.

Only images that changed are sent: a store's key names an image with its vectors, and a digest its columns. The rows of
an image's vectors are written before the image's own row and deleted after it, and the images under way are noted, so
that a kill leaves nothing that the next run does not finish: no image is there twice, or in part.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from forclip.index.milvus.address import parse_address
from forclip.index.milvus.catalogue import PublishedImages, state_folder
from forclip.index.milvus.columns import FILTERABLE
from forclip.index.milvus.create import PublishOptions, create, difference, drop, with_new_columns
from forclip.index.milvus.index import MilvusIndex
from forclip.index.milvus.recall import ExactBest, choose_search
from forclip.index.milvus.server import CURRENT, MilvusServer, integers
from forclip.index.milvus.settings import (
    SETTINGS,
    PublishSettings,
    read_open_keys,
    read_settings,
    read_version,
    write_open_keys,
    write_version,
)
from forclip.index.milvus.source import Reduce, Source, SourceBlock, select_columns
from forclip.index.milvus.vectors import pack_boxes, row_name, to_field
from forclip.index.store import Store
from forclip.index.table import read_rows
from forclip.progress import Track, untracked
from forclip.types import Ints

_ROWS_AT_ONCE = 4096  # vectors in a request: 8 MB of 512 dimensions in single precision
_KEYS_AT_ONCE = 1000  # deleted in a request
_GROWN = 2.0  # times as many vectors, from which on search is measured again
_UNUSED = [1.0, 0.0]
_MOST_SECONDS = 5.0  # between two looks at the server's index

# Makes a function that leaves fewer vectors of an image, from a lowest cosine and a largest number.
MakeReduce = Callable[[float | None, int | None], Reduce | None]


@dataclass(frozen=True)
class PublishSummary:
    """Counts of images, and of vectors on the server. too_long: texts that Milvus can't hold, which are left out.
    recall: measured on sample queries, None without images."""

    added: int
    updated: int
    deleted: int
    unchanged: int
    vectors: int
    too_long: int
    recall: float | None


def publish(
    store: Store, place: str, options: PublishOptions, make_reduce: MakeReduce, track: Track = untracked
) -> PublishSummary:
    """Publish a store, or what changed of it since it was published. May be killed and run again.

    Raises ValueError for a collection that another model or another store was published to, options that differ from
    the collection's, another publication under way on this machine, and what the server refuses.
    """
    server = MilvusServer(parse_address(place))
    folder = state_folder(place)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "publish.lock", timeout=0):
            return _publish(server, store, options, make_reduce, track)
    except Timeout:
        raise ValueError(f"{place}: another process is publishing there") from None


def _publish(
    server: MilvusServer, store: Store, options: PublishOptions, make_reduce: MakeReduce, track: Track
) -> PublishSummary:
    table = store.table()
    if options.replace and server.exists():
        drop(server)
    if not server.exists():
        create(server, store, table, options)
    server.load()
    settings = read_settings(server)
    if problem := difference(settings, store, options):
        raise ValueError(f"{server.address}: {problem}; --replace publishes it from scratch")
    stored = store.header
    header = replace(settings.header, roots=stored.roots, model=stored.model)
    settings = replace(settings, header=header, store=str(store.folder))
    settings = with_new_columns(server, settings, table)
    reduce = make_reduce(
        None if header.merge == stored.merge else header.merge,
        None if header.max_vectors == stored.max_vectors else header.max_vectors,
    )
    source = Source(table, stored, header, settings.columns, reduce)
    return _Publication(server, store, source, settings, track).run()


class _Publication:
    """One run of `publish`."""

    def __init__(
        self, server: MilvusServer, store: Store, source: Source, settings: PublishSettings, track: Track
    ) -> None:
        self.server, self.store, self.source, self.settings, self.track = server, store, source, settings, track
        self.images, self.too_long = PublishedImages(server, settings), 0
        self.version = int(source.table.version)
        self.left: set[int] = set()

    def run(self) -> PublishSummary:
        self.left = set(read_open_keys(self.server))
        is_same = read_settings(self.server) == self.settings
        if is_same and not self.left and read_version(self.server).store_version == self.version:
            return self._summary(0, 0, 0)
        if not is_same:
            self.server.write_texts({SETTINGS: self.settings.to_json()})
        self._delete_left()
        mine, digests = self.source.digests()
        theirs, published = self._published()
        kept = np.isin(mine, theirs)
        changed = mine[kept][published[np.searchsorted(theirs, mine[kept])] != digests[kept]]
        new, gone = mine[~kept], np.setdiff1d(theirs, mine)
        if len(mine) and len(gone) and len(gone) == len(theirs) and not self._is_same_set(gone):
            raise ValueError(
                f"{self.server.address}: holds {len(gone)} images and none of the store's; --replace deletes them"
            )
        replaced = self._replaced(gone, new)
        self._delete(np.setdiff1d(gone, np.array(list(replaced.values()), np.int64)))
        exact = ExactBest(self.source.sample_queries()) if len(new) == len(mine) else None
        digest_of = dict(zip(mine.tolist(), digests.tolist(), strict=True))
        advance = self.track("publishing", len(new) + len(changed))
        for keys, is_new in ((changed, False), (new, True)):
            for block in self.source.blocks(keys) if len(keys) else ():
                if exact is not None:
                    exact.add(self._decoded(block), block.stored.offsets)
                self._put(block, digest_of, is_new)
                old = [replaced[i] for i in block.stored.images["id"].to_pylist() if i in replaced]
                self._delete(np.array(old, np.int64))
                advance(len(block.stored.keys))
        write_open_keys(self.server, [])
        with self.server.errors():
            for name in (self.server.vectors, self.server.images, self.server.texts):
                self.server.client.flush(name)
        self._measure(exact)
        write_version(self.server, self.version)
        return self._summary(len(new) - len(replaced), len(changed) + len(replaced), len(gone) - len(replaced))

    def _delete_left(self) -> None:
        """Delete the vectors that a killed run left without their image."""
        keys, whole = sorted(self.left), set[int]()
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            part = keys[start : start + _KEYS_AT_ONCE]
            rows = self.server.query(self.server.images, ["image"], ids=part, consistency_level=CURRENT)
            whole |= {row["image"] for row in rows}
        self._delete_vectors([key for key in keys if key not in whole])

    def _published(self) -> tuple[Ints, Ints]:
        """Return the ascending keys of the published images and their digests."""
        rows = [(row["image"], row["digest"]) for row in self.images.all(["digest"], consistency_level=CURRENT)]
        values = np.array(rows, np.int64).reshape(-1, 2)
        values = values[np.argsort(values[:, 0])]
        return values[:, 0], values[:, 1]

    def _is_same_set(self, keys: Ints) -> bool:
        """Whether the store has images of the same ids as some of the published ones: all were indexed again."""
        rows = self.server.query(self.server.images, ["id"], ids=keys[:_KEYS_AT_ONCE].tolist())
        return bool(self.store.known_ids([row["id"] for row in rows]))

    def _replaced(self, gone: Ints, new: Ints) -> dict[str, int]:
        """Return the old keys, by id, of the images among `gone` that `new` keys replace."""
        old: dict[str, int] = {}
        for start in range(0, len(gone), _KEYS_AT_ONCE):
            ids = gone[start : start + _KEYS_AT_ONCE].tolist()
            for row in self.server.query(self.server.images, ["image", "id"], ids=ids, consistency_level=CURRENT):
                old[row["id"]] = row["image"]
        if not old or not len(new):
            return {}
        rows = read_rows(self.source.table, "id", list(old), ["number"])
        waiting = np.isin(rows["number"].to_numpy(), new)  # the others were written before a kill
        return {image_id: old[image_id] for image_id in rows["id"].filter(pa.array(waiting)).to_pylist()}

    def _put(self, block: SourceBlock, digest_of: Mapping[int, int], is_new: bool) -> None:
        """Write images: their vectors, then their own rows. is_new: they were not published before."""
        stored, settings = block.stored, self.settings
        keys = stored.keys.tolist()
        is_new = is_new and self.left.isdisjoint(keys)
        self.too_long += block.too_long
        write_open_keys(self.server, keys)
        values, boxes = to_field(stored.codes, settings.header, settings.precision), pack_boxes(stored.boxes)
        columns = (*FILTERABLE, *settings.columns)
        rows: list[dict[str, Any]] = []
        for image, key in enumerate(keys):
            own = select_columns(columns, block, image)
            for n, at in enumerate(range(*stored.offsets[image : image + 2].tolist())):
                rows.append({"row": row_name(key, n), "image": key, "box": boxes[at], "vector": values[at], **own})
            if len(rows) >= _ROWS_AT_ONCE or image + 1 == len(keys):
                self.server.write(self.server.vectors, rows, is_new)
                rows = []
        counts, whole = np.diff(stored.offsets).tolist(), []
        for image, key in enumerate(keys):
            kept = {"vectors": counts[image], "digest": digest_of[key], "draw": draw_of(key), "unused": _UNUSED}
            whole.append({"image": key, **kept, **{name: of[image] for name, of in block.columns.items()}})
        self.server.write(self.server.images, whole)
        write_version(self.server, None)

    def _delete(self, keys: Ints) -> None:
        """Delete images: their own rows, then their vectors."""
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            part = keys[start : start + _KEYS_AT_ONCE].tolist()
            write_open_keys(self.server, part)
            self.server.delete(self.server.images, f"image in {integers(part)}")
            self._delete_vectors(part)
        if len(keys):
            write_version(self.server, None)

    def _delete_vectors(self, keys: Sequence[int]) -> None:
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            self.server.delete(self.server.vectors, f"image in {integers(keys[start : start + _KEYS_AT_ONCE])}")

    def _decoded(self, block: SourceBlock) -> Any:
        return self.settings.header.decode(block.stored.codes).astype(np.float32)

    def _measure(self, exact: ExactBest | None) -> None:
        """Choose how to search, the first time and when the collection has grown much."""
        vectors, search = self.server.count(self.server.vectors, consistency_level=CURRENT), self.settings.search
        if not vectors or (search.recall is not None and vectors < _GROWN * search.vectors):
            return
        if exact is None:
            exact = ExactBest(self.source.sample_queries())
            advance = self.track("comparing exactly", self.source.table.count_rows())
            for block in self.source.blocks():
                exact.add(self._decoded(block), block.stored.offsets)
                advance(len(block.stored.keys))
        self._wait_for_index()
        self.settings = replace(self.settings, search=choose_search(MilvusIndex(self.server), exact))
        self.server.write_texts({SETTINGS: self.settings.to_json()})

    def _wait_for_index(self) -> None:
        """Wait until the server's index covers all vectors."""
        client, wait = self.server.client, 0.1
        with self.server.errors():
            client.load_collection(self.server.vectors)
            while True:
                (name,) = client.list_indexes(self.server.vectors, field_name="vector")
                if not int(client.describe_index(self.server.vectors, name).get("pending_index_rows") or 0):
                    return
                time.sleep(wait)
                wait = min(_MOST_SECONDS, 2 * wait)

    def _summary(self, added: int, updated: int, deleted: int) -> PublishSummary:
        images = self.server.count(self.server.images, consistency_level=CURRENT)
        vectors = self.server.count(self.server.vectors, consistency_level=CURRENT)
        unchanged, recall = images - added - updated, self.settings.search.recall
        return PublishSummary(added, updated, deleted, unchanged, vectors, self.too_long, recall)


def draw_of(key: int) -> int:
    """Return a number below 2**31 that looks random but is always the same for a key."""
    return int.from_bytes(blake2b(key.to_bytes(8, "big"), digest_size=4).digest(), "big") >> 1
