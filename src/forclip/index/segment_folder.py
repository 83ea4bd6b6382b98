"""The folder of a store that holds what makes search fast: segments and their indexes, derived from the images."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
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
from forclip.bucket_path import BucketPath, StorePath
from forclip.index.approximate_search import ApproximateIndex, IndexSettings
from forclip.index.local_cache import cached_store
from forclip.index.places import FragmentName, Places, Run
from forclip.index.schema import StoreHeader
from forclip.index.segment import VECTORS_FILE, Segment
from forclip.index.segment_writer import BOXES_FILE, IMAGES_FILE, KEYS_FILE, OFFSETS_FILE, write_files
from forclip.index.table import StoredVectors

FOLDER = "search"
_LOCK = "optimize.lock"
_DETAILS = "segment.json"
_PLACES = "places-{}.npy"

SegmentName = tuple[str, int]  # a segment's folder, and when its segment.json was written, in nanoseconds


@dataclass(frozen=True)
class StoredSegment:
    """A mapped segment, its index, None for exact search, when it was written, in nanoseconds since 1970, and where its
    images are in the table."""

    segment: Segment
    index: ApproximateIndex | None
    created_ns: int
    places: Places


class SegmentFolder:
    """Reads and writes segments. All of them can be deleted at any time; the next `optimize` writes them again.

    A segment's segment.json is written last, and records the sizes of the other files. header: of the store; segments
    of another store are refused. The segments of a store in a bucket are in the cache of this machine.
    """

    def __init__(self, store: StorePath, header: StoreHeader) -> None:
        self.store, self.header = store, header
        local = cached_store(store, header.identity()) if isinstance(store, BucketPath) else store
        self.folder = local / FOLDER
        self._identity = blake2b(header.identity().encode(), digest_size=16).hexdigest()

    def names(self) -> frozenset[SegmentName]:
        """Return the complete segments."""
        names = set()
        with suppress(FileNotFoundError):
            for name in os.listdir(self.folder):
                with suppress(FileNotFoundError, NotADirectoryError):  # incomplete, or being removed by another process
                    names.add((name, os.stat(f"{self.folder}/{name}/{_DETAILS}").st_mtime_ns))
        return frozenset(names)

    def write(self, blocks: Iterable[StoredVectors], names: Mapping[int, FragmentName] | None = None) -> str:
        """Write a segment block by block and return its name. A failed write leaves nothing.

        names: of the table's fragments by id.
        """
        name = uuid.uuid4().hex
        folder = self.folder / name
        folder.mkdir(parents=True)
        try:
            addresses = write_files(folder, self.header, blocks)
            places = Places.unknown(len(addresses)) if names is None else Places.of(addresses, names)
            self._complete(folder, {"made": time.time_ns(), **_write_places(folder, places)})
        except BaseException:
            self.remove(name)
            raise
        return name

    def write_index(self, stored: StoredSegment, index: ApproximateIndex | None) -> None:
        """Give a segment another index, or none."""
        folder = stored.segment.folder
        assert folder is not None
        details = {k: v for k, v in self._details(folder).items() if k not in ("ann", "ann_shards")}
        if index is not None:
            for number, shard in enumerate(index.shards):
                faiss.write_index(shard, f"{folder}/ann-{number}.faiss")
            details |= {"ann": asdict(index.settings), "ann_shards": len(index.shards)}
        self._complete(folder, details)

    def write_places(self, stored: StoredSegment, places: Places) -> None:
        """Record where the images of a segment are now, after fragments of the table were joined."""
        folder = stored.segment.folder
        assert folder is not None
        details = self._details(folder)
        for file in folder.glob(_PLACES.format("*")):  # a reader may be about to map the newest
            if file.name != details.get("places"):
                file.unlink()
        self._complete(folder, details | _write_places(folder, places))

    def _details(self, folder: Path) -> dict[str, Any]:
        details: dict[str, Any] = json.loads((folder / _DETAILS).read_text())
        return details

    def _complete(self, folder: Path, details: dict[str, Any]) -> None:
        sizes = {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.name != _DETAILS}
        content = details | {"store": self._identity, "files": sizes}
        write_text_atomically(folder / _DETAILS, json.dumps(content, indent=1))

    def open(self, name: str) -> StoredSegment:
        """Map a segment and its index. Raises ValueError if it is incomplete, damaged or of another store."""
        folder = self.folder / name
        try:
            details = self._details(folder)
            if details["store"] != self._identity:
                raise ValueError(f"{folder}: derived from another store")
            old_places = {f for f in details["files"] if f.startswith("places-")} - {details.get("places")}
            for file, size in details["files"].items():
                if file not in old_places and (folder / file).stat().st_size != size:
                    raise ValueError(f"{folder / file}: cut short")
            flat = faiss.read_index(str(folder / VECTORS_FILE), faiss.IO_FLAG_MMAP_IFC)
            images = pa.ipc.open_file(pa.memory_map(str(folder / IMAGES_FILE))).read_all()
            keys, offsets, boxes = (_map(folder / file) for file in (KEYS_FILE, OFFSETS_FILE, BOXES_FILE))
            if "places" not in details:
                places = Places.unknown(len(keys))
            else:
                runs = (Run((fragment, file), *edges) for fragment, file, *edges in details["runs"])
                places = Places(_map(folder / details["places"]), tuple(runs))
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
        segment = Segment(self.header, flat, keys, offsets, boxes, images, folder)
        return StoredSegment(segment, index, details["made"], places)

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
            raise ValueError(f"{self.store}: another process is optimizing it") from None


def _map(file: Path) -> np.ndarray:
    return np.asarray(np.load(file, mmap_mode="r"))


def _write_places(folder: Path, places: Places) -> dict[str, Any]:
    """Write places under a new name: other processes may have the old ones mapped."""
    name = _PLACES.format(uuid.uuid4().hex)
    np.save(folder / name, places.offsets)
    return {"places": name, "runs": [[*run.fragment, run.start, run.end, run.ordered] for run in places.runs]}
