"""Segments: immutable groups of images whose vectors are contiguous, in memory or mapped from files.

A segment knows its images by key. Its user decides which of them are still in the store.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from forclip.index.image_lists import ImageLists, open_image_lists
from forclip.index.schema import Codes, StoreHeader
from forclip.index.store import StoredVectors
from forclip.types import Floats, Ints

VECTORS_FILE = "vectors.faiss"
_QUANTIZER = {"fp16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit_direct_signed}
_SIGNED_ZERO = 128  # FAISS keeps signed codes as unsigned ones, shifted by this
_IDS_AT_ONCE = 1 << 16  # converted to Python strings


class IdLookup:
    """Finds ids among [n] strings by their hashes. Keeps 16 bytes per id."""

    def __init__(self, ids: pa.Array) -> None:
        self._ids = ids
        blocks = (ids.slice(start, _IDS_AT_ONCE).to_pylist() for start in range(0, len(ids), _IDS_AT_ONCE))
        hashes = _hashes(chain.from_iterable(blocks))
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def find(self, wanted: Sequence[str]) -> Ints:
        """Return all positions of these ids, ascending. Unknown ids are ignored."""
        hashes = _hashes(set(wanted))
        starts, ends = (np.searchsorted(self._sorted, hashes, side) for side in ("left", "right"))
        spans = zip(starts.tolist(), ends.tolist(), strict=True)
        candidates = np.sort(np.concatenate([np.empty(0, np.int64), *(self._order[s:e] for s, e in spans if s < e)]))
        # Other ids may have the same hash.
        same = pc.is_in(self._ids.take(pa.array(candidates)), value_set=pa.array(wanted, pa.string()))
        found: Ints = candidates[np.asarray(same)]
        return found


def _hashes(ids: Iterable[str]) -> Ints:
    return np.fromiter(map(hash, ids), np.int64)


@dataclass(frozen=True)
class Segment:
    """Images with contiguous vectors.

    header: of the store; flat: a FAISS scalar quantiser that holds the store's codes unchanged; keys: [images];
    offsets: [images + 1], each image's rows; boxes: [vectors, 4] float16; images: a table of id and uri; folder: where
    the files are mapped from, None in memory.
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
        """Return the position of the image that each row belongs to."""
        # Most images have equally many vectors: a guess and a check are then faster than a search.
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
    def id_lookup(self) -> IdLookup:
        return IdLookup(self.ids)

    @cached_property
    def uris(self) -> pa.Array:
        """[images]."""
        return pa.concat_arrays(self.images["uri"].chunks)

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """[vectors, bytes] as FAISS keeps them: float16, or int8 shifted by 128. Not a copy."""
        if self.lists is not None:
            return self.lists.codes
        size = self.flat.code_size
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(self.flat.codes.data(), self.num_vectors * size)
        return codes.reshape(self.num_vectors, size)

    @cached_property
    def lists(self) -> ImageLists | None:
        """Search within chosen images by FAISS. None in memory, or if this FAISS version cannot do it."""
        return None if self.folder is None else open_image_lists(self.folder / VECTORS_FILE, self.flat, self.offsets)

    def decode(self, rows: Ints | slice) -> NDArray[np.float64]:
        """Return the vectors [rows, dim] that the stored codes stand for."""
        codes = np.ascontiguousarray(self.codes[rows])
        if self.header.precision == "fp16":
            return self.header.decode(codes.view(np.float16))
        return self.header.decode((codes.astype(np.int16) - _SIGNED_ZERO).astype(np.int8))

    def scores(self, queries: NDArray[np.float64], rows: Ints, query_of_row: Ints) -> NDArray[np.float64]:
        """Return the cosine [n] of each row with its query. queries: unit [Q, dim]; query_of_row: [n].

        Equal codes get equal scores, whatever else is scored with them.
        """
        wanted = queries[query_of_row] if len(queries) > 1 else np.broadcast_to(queries, (len(rows), queries.shape[1]))
        cosines: NDArray[np.float64] = np.einsum("ij,ij->i", self.decode(rows), wanted)
        return cosines

    def scale_queries(self, queries: Floats) -> Floats:
        """Scale unit queries [..., dim] so that FAISS's inner products with the codes are cosines."""
        return np.ascontiguousarray(queries * np.float32(self.header.scale), np.float32)


def segment_in_memory(header: StoreHeader, parts: Iterable[StoredVectors], num_vectors: int = 0) -> Segment:
    """Build a segment from stored images. num_vectors: memory to reserve, which avoids copies while it grows."""
    flat = faiss.IndexScalarQuantizer(header.dim, _QUANTIZER[header.precision], faiss.METRIC_INNER_PRODUCT)
    flat.codes.resize(num_vectors * flat.code_size)
    flat.codes.resize(0)  # keeps its capacity
    keys, counts, boxes = [np.empty(0, np.int64)], [np.zeros(1, np.int64)], [np.empty((0, 4), np.float16)]
    images = [pa.table({"id": pa.array([], pa.string()), "uri": pa.array([], pa.string())})]
    for part in parts:
        flat.add_sa_codes(_to_faiss(part.codes))
        keys.append(part.keys)
        counts.append(np.diff(part.offsets))
        boxes.append(part.boxes)
        images.append(part.images)
    offsets = np.cumsum(np.concatenate(counts))
    return Segment(header, flat, np.concatenate(keys), offsets, np.concatenate(boxes), pa.concat_tables(images))


def _to_faiss(codes: Codes) -> NDArray[np.uint8]:
    """Convert the store's codes [vectors, dim] to FAISS's [vectors, bytes]."""
    if codes.dtype == np.int8:
        return (codes.astype(np.int16) + _SIGNED_ZERO).astype(np.uint8)
    return np.ascontiguousarray(codes).view(np.uint8)
