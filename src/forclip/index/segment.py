"""Segments: immutable groups of images whose vectors are contiguous, in memory or mapped from files.

A segment knows its images by key. Its user decides which of them are still in the store.
"""

import ctypes
import logging
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from zlib import crc32

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forclip.index.schema import Codes, StoreHeader
from forclip.index.table import StoredVectors
from forclip.types import Doubles, Floats, Ints

VECTORS_FILE = "vectors.faiss"
# Of `Lookup`, for keys and for hashes of ids. Segments of earlier versions of forclip lack them.
KEY_LOOKUP = "numbers_ordered.npy", "numbers_order.npy"
ID_LOOKUP = "id_hashes_ordered.npy", "id_hashes_order.npy"
_QUANTIZER = {"fp16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit_direct_signed}
_SIGNED_ZERO = 128  # FAISS keeps signed codes as unsigned ones, shifted by this
_POSITION_BITS = 0xFFFFFFFF  # FAISS returns (list << 32) + position in the list
IMAGES_SCHEMA = pa.schema({"id": pa.string(), "uri": pa.string()})
_IDS_AT_ONCE = 1 << 16  # converted to Python strings
_MEANS_AT_ONCE = 256  # images
_REGIONS, _REGION_LISTS = 32, 2_048  # threads that search within images at a time, and images of each


class Texts:
    """A column of texts in chunks, which may be mapped from a file and exceed one Arrow array."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = column.chunks
        self._starts = np.cumsum([0, *map(len, self._chunks)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, positions: Ints) -> list[str]:
        """Return the texts at these positions."""
        if len(self._chunks) == 1:
            texts = _take(self._chunks[0], positions)
        else:
            chunk_of = np.searchsorted(self._starts, positions, "right") - 1
            order = np.argsort(chunk_of, kind="stable")
            chunks, firsts = np.unique(chunk_of[order], return_index=True)
            texts = np.empty(len(positions), object)
            for chunk, at in zip(chunks.tolist(), np.split(order, firsts[1:]), strict=False):
                texts[at] = _take(self._chunks[chunk], positions[at] - self._starts[chunk])
        found: list[str] = texts.tolist()
        return found


def _take(texts: pa.StringArray, positions: Ints) -> NDArray[np.object_]:
    taken: NDArray[np.object_] = texts.take(pa.array(positions)).to_numpy(zero_copy_only=False)
    return taken


@dataclass(frozen=True)
class Lookup:
    """Finds values among [n] numbers. ordered: the numbers, ascending; order: [n], the position of each. Both may be
    mapped from files."""

    ordered: NDArray[Any]
    order: NDArray[Any]

    @staticmethod
    def of(values: NDArray[Any]) -> "Lookup":
        order = np.argsort(values, kind="stable")
        return Lookup(values[order], order.astype(np.uint32))

    def find(self, wanted: NDArray[Any]) -> Ints:
        """Return all positions of these values, ascending. Unknown values are ignored."""
        starts, ends = (np.searchsorted(self.ordered, wanted, side) for side in ("left", "right"))
        counts = ends - starts
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        found: Ints = np.unique(self.order[np.repeat(starts, counts) + within].astype(np.int64))
        return found


class IdLookup:
    """Finds ids among [n] strings by their hashes. lookup: of the hashes, None to compute them."""

    def __init__(self, ids: Texts, lookup: Lookup | None = None) -> None:
        self._ids = ids
        if lookup is None:
            starts = range(0, len(ids), _IDS_AT_ONCE)
            blocks = (ids.take(np.arange(start, min(start + _IDS_AT_ONCE, len(ids)))) for start in starts)
            lookup = Lookup.of(hash_ids(chain.from_iterable(blocks)))
        self._lookup = lookup

    def find(self, wanted: Sequence[str]) -> Ints:
        """Return all positions of these ids, ascending. Unknown ids are ignored."""
        unique = set(wanted)
        candidates = self._lookup.find(hash_ids(unique))
        # Other ids may have the same hash.
        same = [image_id in unique for image_id in self._ids.take(candidates)]
        found: Ints = candidates[np.array(same, bool)]
        return found


def hash_ids(ids: Iterable[str]) -> NDArray[np.uint32]:
    """Return a hash of each id, which is the same in every process."""
    return np.fromiter((crc32(image_id.encode()) for image_id in ids), np.uint32)


class ImageLists:
    """Search within chosen images: FAISS's inverted lists over a segment's vector file, one for each wanted image.

    `faiss.OnDiskInvertedLists` is a table of sizes and offsets into a file. Here it points into the file of a scalar
    quantiser, so FAISS compares the vectors of chosen images without copying them. That file must not change. The
    table is small: each call of `nearest` fills a region of it with its images. Threads have regions of their own.
    offsets: [images + 1], the images' rows. Raises RuntimeError if this FAISS version reads other vectors from the
    lists than the quantiser holds.
    """

    def __init__(self, file: Path, flat: Any, offsets: Ints) -> None:
        self._offsets, self._size, self._total = offsets, flat.code_size, flat.ntotal
        reader, count = faiss.VectorIOReader(), _REGIONS * _REGION_LISTS
        faiss.copy_array_to_vector(_describe_lists(file, flat.code_size, count), reader.data)
        self._lists = faiss.downcast_InvertedLists(faiss.read_InvertedLists(reader, faiss.IO_FLAG_READ_ONLY))
        self._lists.prefetch_nthread = 0
        del reader  # a copy of the description
        if (self._lists.nlist, self._lists.code_size, self._lists.lists.size()) != (count, flat.code_size, count):
            raise RuntimeError(f"{self._lists.nlist} lists of {self._lists.code_size} bytes were read")
        self._first_byte = self._lists.totsize - flat.ntotal * flat.code_size
        memory = (ctypes.c_uint64 * (3 * count)).from_address(int(self._lists.lists.data().this))
        self._table = np.ctypeslib.as_array(memory).reshape(count, 3)  # size, capacity, offset
        self._check(flat)
        self._free: SimpleQueue[int] = SimpleQueue()
        for region in range(_REGIONS):
            self._free.put(region * _REGION_LISTS)
        unused = faiss.IndexFlat(flat.d, flat.metric_type)
        self._index = faiss.IndexIVFScalarQuantizer(
            unused, flat.d, count, flat.sq.qtype, flat.metric_type, False, False
        )
        self._index.is_trained = True
        self._index.replace_invlists(self._lists, False)

    def _check(self, flat: Any) -> None:
        """Compare the codes of the first, middle and last image with the quantiser's."""
        codes = faiss.rev_swig_ptr(flat.codes.data(), flat.ntotal * flat.code_size).reshape(-1, flat.code_size)
        count = len(self._offsets) - 1
        images = np.unique([0, count // 2, count - 1])
        self._fill(0, images)
        for position, image in enumerate(images.tolist()):
            first, last = self._offsets[image : image + 2].tolist()
            entry = self._lists.lists.at(position)
            if (entry.size, entry.offset) != (last - first, self._first_byte + first * self._size):
                raise RuntimeError(f"list {position} has {entry.size} vectors at byte {entry.offset}")
            read = faiss.rev_swig_ptr(self._lists.get_codes(position), (last - first) * self._size)
            if not np.array_equal(read, codes[first:last].reshape(-1)):
                raise RuntimeError(f"list {position} holds other vectors")

    def _fill(self, start: int, images: Ints) -> None:
        """Let the lists from `start` on be those of these images."""
        firsts, table = self._offsets[images], self._table[start : start + len(images)]
        table[:, 0] = table[:, 1] = self._offsets[images + 1] - firsts
        table[:, 2] = firsts * self._size + self._first_byte

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """The codes [vectors, bytes] in the mapping that `nearest` reads, not a copy.

        A second mapping of the file would count its pages in memory twice.
        """
        codes: NDArray[np.uint8] = faiss.rev_swig_ptr(self._lists.ptr, self._lists.totsize)
        return codes[-self._total * self._size :].reshape(-1, self._size)

    def nearest(self, queries: Floats, images: Ints, count: int) -> tuple[Floats, Ints]:
        """Find each image's `count` vectors nearest to the query of the same row, best first.

        queries: [images, dim], scaled by `Segment.scale_queries`; images: positions in the segment. Returns scores and
        rows, both [images, count]; an image with fewer vectors is filled up with -inf and -1.
        """
        shape = (len(images), count)
        scores, labels = np.empty(shape, np.float32), np.empty(shape, np.int64)
        queries, start = np.ascontiguousarray(queries, np.float32), self._free.get()
        try:
            for at in range(0, len(images), _REGION_LISTS):
                block = slice(at, min(at + _REGION_LISTS, len(images)))
                self._fill(start, images[block])
                lists = np.arange(start, start + block.stop - at)
                arrays = (lists, np.zeros(len(lists), np.float32), scores[block], labels[block])
                self._index.search_preassigned_c(
                    len(lists), faiss.swig_ptr(queries[block]), count, *map(faiss.swig_ptr, arrays), True
                )
        finally:
            self._free.put(start)
        missing = labels < 0
        rows = self._offsets[images][:, None] + (labels & _POSITION_BITS)
        rows[missing], scores[missing] = -1, -np.inf
        return scores, rows


def _describe_lists(file: Path, code_size: int, count: int) -> NDArray[np.uint8]:
    """Describe empty lists in a file, in FAISS's own file format, `ilod`.

    The description holds the number of lists, the bytes of a code, each list's size, capacity and offset, no free
    slots, the file's name and its size. FAISS writes a quantiser's codes last, so they end the file.
    """
    name = os.fsencode(file)
    start = b"ilod" + struct.pack("<3Q", count, code_size, count)
    end = struct.pack("<2Q", 0, len(name)) + name + struct.pack("<Q", file.stat().st_size)
    return np.frombuffer(start + bytes(24 * count) + end, np.uint8)


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
    def ids(self) -> Texts:
        """[images]."""
        return Texts(self.images["id"])

    @cached_property
    def uris(self) -> Texts:
        """[images]."""
        return Texts(self.images["uri"])

    @cached_property
    def id_lookup(self) -> IdLookup:
        return IdLookup(self.ids, self._stored_lookup(ID_LOOKUP))

    @cached_property
    def key_lookup(self) -> Lookup:
        return self._stored_lookup(KEY_LOOKUP) or Lookup.of(self.keys)

    def _stored_lookup(self, files: tuple[str, str]) -> Lookup | None:
        if self.folder is None or not all((self.folder / file).exists() for file in files):
            return None
        return Lookup(*(np.asarray(np.load(self.folder / file, mmap_mode="r")) for file in files))

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
        """None in memory, or if this FAISS version cannot read them: scoring then decodes the vectors instead."""
        if self.folder is not None:
            try:
                return ImageLists(self.folder / VECTORS_FILE, self.flat, self.offsets)
            except RuntimeError as error:
                log = logging.getLogger(__name__)
                log.warning("exact scoring is slower with FAISS %s: %s", faiss.__version__, error)
        return None

    def decode(self, rows: Ints | slice) -> Doubles:
        """Return the vectors [rows, dim] that the stored codes stand for."""
        codes = np.ascontiguousarray(self.codes[rows])
        if self.header.precision == "fp16":
            return self.header.decode(codes.view(np.float16))
        return self.header.decode((codes.astype(np.int16) - _SIGNED_ZERO).astype(np.int8))

    def decode_single(self, rows: Ints) -> Floats:
        """Return codes [rows, dim] as numbers in single precision, to be compared with `scale_queries`."""
        decoded: Floats = self.flat.sa_decode(np.ascontiguousarray(self.codes[rows]))
        return decoded

    def unit_vectors(self, image: int) -> Floats:
        """Return the vectors, unit [N, dim], of the image at a position."""
        vectors = self.decode(slice(*self.offsets[image : image + 2].tolist())).astype(np.float32)
        unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def mean_vectors(self, images: Ints) -> Floats:
        """Return the mean vector of each of the images at these positions, of unit length: [images, dim]."""
        means = np.empty((len(images), self.header.dim), np.float32)
        for start in range(0, len(images), _MEANS_AT_ONCE):
            part = images[start : start + _MEANS_AT_ONCE]
            counts = self.offsets[part + 1] - self.offsets[part]
            firsts = np.cumsum(counts) - counts
            vectors = self.decode(np.repeat(self.offsets[part] - firsts, counts) + np.arange(counts.sum()))
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            sums = np.add.reduceat(vectors, firsts)
            means[start : start + len(part)] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)
        return means

    def scores(self, queries: Doubles, rows: Ints, query_of_row: Ints) -> Doubles:
        """Return the cosine [n] of each row with its query. queries: unit [Q, dim]; query_of_row: [n].

        Equal codes get equal scores, whatever else is scored with them.
        """
        cosines: Doubles = np.vecdot(self.decode(rows), queries if len(queries) == 1 else queries[query_of_row])
        return cosines

    def scale_queries(self, queries: Floats) -> Floats:
        """Scale unit queries [..., dim] so that FAISS's inner products with the codes are cosines."""
        return np.ascontiguousarray(queries * np.float32(self.header.scale), np.float32)


def segment_in_memory(header: StoreHeader, parts: Iterable[StoredVectors]) -> Segment:
    """Build a segment from stored images."""
    flat = empty_flat(header)
    keys, counts, boxes = [np.empty(0, np.int64)], [np.zeros(1, np.int64)], [np.empty((0, 4), np.float16)]
    images = [IMAGES_SCHEMA.empty_table()]
    for part in parts:
        flat.add_sa_codes(to_faiss(part.codes))
        keys.append(part.keys)
        counts.append(np.diff(part.offsets))
        boxes.append(part.boxes)
        images.append(part.images.cast(IMAGES_SCHEMA))
    offsets = np.cumsum(np.concatenate(counts))
    together = pa.concat_tables(images).combine_chunks()
    return Segment(header, flat, np.concatenate(keys), offsets, np.concatenate(boxes), together)


def empty_flat(header: StoreHeader) -> Any:
    """Return a FAISS scalar quantiser for a store's codes, without vectors."""
    return faiss.IndexScalarQuantizer(header.dim, _QUANTIZER[header.precision], faiss.METRIC_INNER_PRODUCT)


def to_faiss(codes: Codes) -> NDArray[np.uint8]:
    """Return a store's codes [total, dim] as FAISS keeps them: [total, bytes]."""
    if codes.dtype == np.int8:
        return (codes.astype(np.int16) + _SIGNED_ZERO).astype(np.uint8)
    return np.ascontiguousarray(codes).view(np.uint8)
