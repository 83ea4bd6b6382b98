"""The folder of a store that holds what makes search fast: segments and their indexes, derived from the images."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout

from forclip.atomic_write import write_text_atomically
from forclip.index.approximate_search import ApproximateIndex, IndexSettings
from forclip.index.schema import StoreHeader
from forclip.index.segment import VECTORS_FILE, Segment

FOLDER = "search"
_LOCK = "optimize.lock"
_DETAILS, _KEYS, _OFFSETS = "segment.json", "numbers.npy", "offsets.npy"
_BOXES, _IMAGES = "boxes.npy", "images.arrow"

SegmentName = tuple[str, int]  # a segment's folder, and when its segment.json was written, in nanoseconds


@dataclass(frozen=True)
class StoredSegment:
    """A mapped segment, its index, None for exact search, and when it was written, in nanoseconds since 1970."""

    segment: Segment
    index: ApproximateIndex | None
    created_ns: int


class SegmentFolder:
    """Reads and writes segments. All of them can be deleted at any time; the next `optimize` writes them again.

    A segment's segment.json is written last, and records the sizes of the other files. header: of the store; segments
    of another store are refused.
    """

    def __init__(self, store: Path, header: StoreHeader) -> None:
        self.folder, self.header = store / FOLDER, header
        self._identity = blake2b(header.identity().encode(), digest_size=16).hexdigest()

    def names(self) -> frozenset[SegmentName]:
        """Return the complete segments."""
        names = set()
        for name in os.listdir(self.folder) if self.folder.exists() else ():
            with suppress(FileNotFoundError, NotADirectoryError):  # incomplete, or being removed by another process
                names.add((name, os.stat(f"{self.folder}/{name}/{_DETAILS}").st_mtime_ns))
        return frozenset(names)

    def write(self, segment: Segment) -> str:
        """Write a segment that is in memory and return its name. A failed write leaves nothing."""
        name = uuid.uuid4().hex
        folder = self.folder / name
        folder.mkdir(parents=True)
        try:
            faiss.write_index(segment.flat, str(folder / VECTORS_FILE))
            np.save(folder / _KEYS, segment.keys)
            np.save(folder / _OFFSETS, segment.offsets)
            np.save(folder / _BOXES, segment.boxes)
            schema = segment.images.schema
            with pa.OSFile(str(folder / _IMAGES), "wb") as file, pa.ipc.new_file(file, schema) as writer:
                writer.write_table(segment.images.combine_chunks(), max_chunksize=max(1, len(segment)))
            self._complete(folder, {"made": time.time_ns()})
        except BaseException:
            self.remove(name)
            raise
        return name

    def write_index(self, stored: StoredSegment, index: ApproximateIndex | None) -> None:
        """Give a segment another index, or none."""
        folder = stored.segment.folder
        assert folder is not None
        details: dict[str, Any] = {"made": stored.created_ns}
        if index is not None:
            for number, shard in enumerate(index.shards):
                faiss.write_index(shard, f"{folder}/ann-{number}.faiss")
            details |= {"ann": asdict(index.settings), "ann_shards": len(index.shards)}
        self._complete(folder, details)

    def _complete(self, folder: Path, details: dict[str, Any]) -> None:
        sizes = {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.name != _DETAILS}
        content = {"store": self._identity, "files": sizes, **details}
        write_text_atomically(folder / _DETAILS, json.dumps(content, indent=1))

    def open(self, name: str) -> StoredSegment:
        """Map a segment and its index. Raises ValueError if it is incomplete, damaged or of another store."""
        folder = self.folder / name
        try:
            details: dict[str, Any] = json.loads((folder / _DETAILS).read_text())
            if details["store"] != self._identity:
                raise ValueError(f"{folder}: derived from another store")
            for file, size in details["files"].items():
                if (folder / file).stat().st_size != size:
                    raise ValueError(f"{folder / file}: cut short")
            flat = faiss.read_index(str(folder / VECTORS_FILE), faiss.IO_FLAG_MMAP_IFC)
            images = pa.ipc.open_file(pa.memory_map(str(folder / _IMAGES))).read_all()
            keys, offsets = np.load(folder / _KEYS), np.load(folder / _OFFSETS)
            boxes = np.asarray(np.load(folder / _BOXES, mmap_mode="r"))
            index = None
            # Another version of forclip may have written an index with other settings.
            if set(details.get("ann", ())) == {f.name for f in fields(IndexSettings)}:
                index_files = [f"{folder}/ann-{number}.faiss" for number in range(details["ann_shards"])]
                shards = tuple(faiss.read_index(file, faiss.IO_FLAG_MMAP_IFC) for file in index_files)
                total = sum(shard.ntotal for shard in shards)
                if total != len(boxes):
                    raise ValueError(f"{folder}: the index has {total} vectors, the segment {len(boxes)}")
                index = ApproximateIndex(shards, IndexSettings(**details["ann"]))
        except (OSError, KeyError, TypeError, RuntimeError, pa.ArrowInvalid) as error:
            raise ValueError(f"{folder}: incomplete or damaged segment: {str(error)[:200]}") from None
        return StoredSegment(Segment(self.header, flat, keys, offsets, boxes, images, folder), index, details["made"])

    def remove(self, name: str) -> None:
        """Delete a segment. Processes that have it mapped can still search it."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock for changes and remove incomplete segments. Raises ValueError if another process holds it."""
        self.folder.mkdir(exist_ok=True)
        try:
            with FileLock(self.folder / _LOCK, timeout=0):
                for folder in self.folder.iterdir():
                    if folder.is_dir() and not (folder / _DETAILS).exists():
                        self.remove(folder.name)
                yield
        except Timeout:
            raise ValueError(f"{self.folder.parent}: another process is optimizing it") from None
