"""Vectors side by side for scanning: in memory, or mapped from files that were derived from a store.

A segment never changes. It holds some images by key; which of them still count is for its user to say.
"""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from forclip.index.image_lists import ImageLists
from forclip.index.schema import Codes, StoreHeader
from forclip.index.store import StoredVectors
from forclip.types import Bools, Floats, Ints

_IDS_AT_ONCE = 1 << 16  # as Python's strings
_MANY = 50  # ids asked for, one in so many: Arrow's pass over all ids is as fast


class IdPlaces:
    """ids: [n] strings, which may be there several times. Keeps 16 bytes for each."""

    def __init__(self, ids: pa.Array) -> None:
        parts = (ids.slice(start, _IDS_AT_ONCE).to_pylist() for start in range(0, len(ids), _IDS_AT_ONCE))
        hashes = np.concatenate([np.empty(0, np.int64), *map(_hashes, parts)])
        self._ids = ids
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def find(self, wanted: Sequence[str]) -> Ints:
        """Every place where one of these stands, in ascending order."""
        asked_for = pa.array(wanted, pa.string())
        if len(asked_for) * _MANY > len(self._ids):
            everywhere: Ints = np.flatnonzero(np.asarray(pc.is_in(self._ids, value_set=asked_for)))
            return everywhere
        hashes = _hashes(dict.fromkeys(wanted))
        starts, ends = (np.searchsorted(self._sorted, hashes, side) for side in ("left", "right"))
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        places = np.sort(np.concatenate([np.empty(0, np.int64), *(self._order[s:e] for s, e in spans if s < e)]))
        # Other ids may have the same hash.
        found: Ints = places[np.asarray(pc.is_in(self._ids.take(pa.array(places)), value_set=asked_for))]
        return found


def _hashes(ids: Iterable[str]) -> Ints:
    return np.array([hash(i) for i in ids], np.int64)


_META, _FLAT, _NUMBERS, _OFFSETS = "segment.json", "vectors.faiss", "numbers.npy", "offsets.npy"
_BOXES, _IMAGES = "boxes.npy", "images.arrow"
_QUANTIZER = {"fp16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit_direct_signed}
_SIGNED_ZERO = 128  # FAISS keeps a signed code as an unsigned one, moved by this


@dataclass(frozen=True)
class Segment:
    """header: of the store; flat: FAISS' scalar-quantised vectors, code by code what the store has.

    keys [images]; offsets [images + 1]; boxes [vectors, 4] float16; images: id and uri. folder: where it is mapped
    from, None in memory.
    """

    header: StoreHeader
    flat: Any
    keys: Ints
    offsets: Ints
    boxes: NDArray[np.float16]
    images: pa.Table
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def num_vectors(self) -> int:
        return int(self.offsets[-1])

    def owners(self, rows: Ints) -> Ints:
        """The image, as a place in `keys`, of each vector."""
        # Most images have as many vectors as all others: then the place follows, which is faster than to look for it.
        owners: Ints = rows * len(self) // max(1, self.num_vectors)
        wrong = (self.offsets[owners] > rows) | (self.offsets[owners + 1] <= rows)
        if wrong.any():
            owners[wrong] = np.searchsorted(self.offsets, rows[wrong], "right") - 1
        return owners

    @cached_property
    def ids(self) -> pa.Array:
        """[images]."""
        return pa.concat_arrays(self.images["id"].chunks)

    @cached_property
    def id_places(self) -> IdPlaces:
        """Of `ids`."""
        return IdPlaces(self.ids)

    @cached_property
    def uris(self) -> pa.Array:
        """[images]."""
        return pa.concat_arrays(self.images["uri"].chunks)

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """[vectors, bytes] as FAISS keeps them: float16, or the store's int8 moved by 128. Not a copy."""
        if self.lists is not None:
            return self.lists.codes
        raw = faiss.rev_swig_ptr(self.flat.codes.data(), self.num_vectors * self.flat.code_size)
        kept: NDArray[np.uint8] = raw.reshape(self.num_vectors, self.flat.code_size)
        return kept

    @cached_property
    def lists(self) -> ImageLists | None:
        """For comparing the vectors of some images; None in memory."""
        return None if self.folder is None else ImageLists(self.folder / _FLAT, self.flat, self.offsets)

    def decoded(self, rows: Ints | slice) -> NDArray[np.float64]:
        """[rows, dim]: what the stored codes stand for."""
        kept = np.ascontiguousarray(self.codes[rows])
        if self.header.precision == "fp16":
            return self.header.decode(kept.view(np.float16))
        return self.header.decode((kept.astype(np.int16) - _SIGNED_ZERO).astype(np.int8))

    def scores(self, queries: NDArray[np.float64], rows: Ints, of: Ints) -> NDArray[np.float64]:
        """Cosines of vectors [n] with those of the unit queries [Q, dim] that each is for, [n]. The same code gives the
        same score, whatever stands beside it."""
        asked = queries[of] if len(queries) > 1 else np.broadcast_to(queries, (len(rows), queries.shape[1]))
        cosines: NDArray[np.float64] = np.einsum("ij,ij->i", self.decoded(rows), asked)
        return cosines

    def asked(self, queries: Floats) -> Floats:
        """Queries [..., dim] as the flat vectors' codes are to be asked: FAISS then returns cosines."""
        return np.ascontiguousarray(queries * np.float32(self.header.scale), np.float32)

    def rows_of(self, images: Bools) -> Bools:
        """[images] to [vectors]."""
        return np.repeat(images, np.diff(self.offsets))


def segment_in_memory(header: StoreHeader, parts: Iterable[StoredVectors], total: int = 0) -> Segment:
    """Of what was read from a store. total: vectors, where they are known to be many: no more memory is taken then."""
    flat = _empty_flat(header)
    flat.codes.resize(total * flat.code_size)
    flat.codes.resize(0)  # keeps what it was given
    keys, counts, boxes, images = [], [], [], []
    for part in parts:
        flat.add_sa_codes(_as_kept(part.codes))
        keys.append(part.keys)
        counts.append(np.diff(part.offsets))
        boxes.append(part.boxes)
        images.append(part.images)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([[], *counts]))]).astype(np.int64)
    together = pa.concat_tables(images) if images else pa.table({"id": [], "uri": []})
    return Segment(
        header,
        flat,
        np.concatenate([np.empty(0, np.int64), *keys]),
        offsets,
        np.concatenate([np.empty((0, 4), np.float16), *boxes]),
        together,
    )


def write_segment(segment: Segment, folder: Path, store: str, extra: dict[str, Any]) -> Path:
    """Into a new folder below `folder`, whose segment.json is written last. store: of which it is derived.

    What could not be written whole is taken away again. Returns the new folder.
    """
    target = folder / uuid.uuid4().hex
    target.mkdir(parents=True)
    try:
        faiss.write_index(segment.flat, str(target / _FLAT))
        np.save(target / _NUMBERS, segment.keys)
        np.save(target / _OFFSETS, segment.offsets)
        np.save(target / _BOXES, segment.boxes)
        with pa.OSFile(str(target / _IMAGES), "wb") as file, pa.ipc.new_file(file, segment.images.schema) as writer:
            writer.write_table(segment.images.combine_chunks(), max_chunksize=max(1, len(segment)))
        complete_segment(target, store, extra)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target


def complete_segment(folder: Path, store: str, extra: dict[str, Any]) -> None:
    """Writes what is known of a segment; its files' sizes tell later whether they are whole."""
    sizes = {f.name: f.stat().st_size for f in sorted(folder.iterdir()) if f.name != _META}
    partial = folder / "segment.partial"
    partial.write_text(json.dumps({"store": store, "files": sizes, **extra}, indent=1))
    os.replace(partial, folder / _META)


def read_segment(header: StoreHeader, folder: Path, store: str) -> tuple[Segment, dict[str, Any]]:
    """Maps it, and says what is known of it. Raises ValueError where it is not whole or not of that store."""
    try:
        known: dict[str, Any] = json.loads((folder / _META).read_text())
        if known["store"] != store:
            raise ValueError(f"{folder}: derived from another store")
        for name, size in known["files"].items():
            if (folder / name).stat().st_size != size:
                raise ValueError(f"{folder / name}: cut short")
        flat = faiss.read_index(str(folder / _FLAT), faiss.IO_FLAG_MMAP_IFC)
        images = pa.ipc.open_file(pa.memory_map(str(folder / _IMAGES))).read_all()
        keys, offsets = np.load(folder / _NUMBERS), np.load(folder / _OFFSETS)
        boxes = np.asarray(np.load(folder / _BOXES, mmap_mode="r"))
    except (OSError, KeyError, TypeError, RuntimeError, pa.ArrowInvalid) as error:
        raise ValueError(f"{folder}: not a whole segment: {error}") from None
    return Segment(header, flat, keys, offsets, boxes, images, folder), known


def _empty_flat(header: StoreHeader) -> Any:
    return faiss.IndexScalarQuantizer(header.dim, _QUANTIZER[header.precision], faiss.METRIC_INNER_PRODUCT)


def _as_kept(codes: Codes) -> NDArray[np.uint8]:
    """The store's codes as FAISS keeps them, [total, bytes]."""
    if codes.dtype == np.int8:
        return (codes.astype(np.int16) + _SIGNED_ZERO).astype(np.uint8)
    return np.ascontiguousarray(codes).view(np.uint8)
