"""Search within chosen images: a mapped segment as FAISS inverted lists, one list per image.

`faiss.OnDiskInvertedLists` is a table of sizes and offsets into a file. A table that points into a segment's vector
file lets FAISS compare the vectors of chosen images without copying any of them.
"""

import logging
import os
import struct
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from forclip.types import Floats, Ints

_POSITION_BITS = 0xFFFFFFFF  # FAISS returns (list << 32) + position in the list


class ImageLists:
    """One inverted list per image, over the file of a FAISS scalar quantiser, which must not change.

    offsets: [images + 1], the images' rows. Raises RuntimeError if this FAISS version reads other vectors from the
    lists than the quantiser holds.
    """

    def __init__(self, file: Path, flat: Any, offsets: Ints) -> None:
        self._starts, self._size, self._total = offsets[:-1], flat.code_size, flat.ntotal
        self._lists = _map_lists(file, flat, offsets)
        _check_lists(self._lists, flat, offsets)
        unused = faiss.IndexFlat(flat.d, flat.metric_type)
        self._index = faiss.IndexIVFScalarQuantizer(
            unused, flat.d, len(offsets) - 1, flat.sq.qtype, flat.metric_type, False
        )
        self._index.is_trained = True
        self._index.replace_invlists(self._lists, False)

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
        lists, queries = np.ascontiguousarray(images, np.int64), np.ascontiguousarray(queries, np.float32)
        arrays = (lists, np.zeros(len(images), np.float32), scores, labels)
        self._index.search_preassigned_c(
            len(images), faiss.swig_ptr(queries), count, *map(faiss.swig_ptr, arrays), True
        )
        missing = labels < 0
        rows = self._starts[images][:, None] + (labels & _POSITION_BITS)
        rows[missing], scores[missing] = -1, -np.inf
        return scores, rows


def open_image_lists(file: Path, flat: Any, offsets: Ints) -> ImageLists | None:
    """Return the lists, or None if this FAISS version cannot read them: scoring then decodes the vectors instead."""
    try:
        return ImageLists(file, flat, offsets)
    except RuntimeError as error:
        logging.getLogger(__name__).warning("exact scoring is slower with FAISS %s: %s", faiss.__version__, error)
        return None


def _map_lists(file: Path, flat: Any, offsets: Ints) -> Any:
    reader = faiss.VectorIOReader()
    faiss.copy_array_to_vector(np.frombuffer(_describe_lists(file, flat, offsets), np.uint8), reader.data)
    lists = faiss.downcast_InvertedLists(faiss.read_InvertedLists(reader, faiss.IO_FLAG_READ_ONLY))
    lists.prefetch_nthread = 0
    return lists


def _describe_lists(file: Path, flat: Any, offsets: Ints) -> bytes:
    """Describe the lists in FAISS's own file format, `ilod`.

    The description holds the number of lists, the bytes of a code, each list's size, capacity and offset, no free
    slots, the file's name and its size. FAISS writes a quantiser's codes last, so they end the file.
    """
    size, total, name = flat.code_size, file.stat().st_size, os.fsencode(file)
    table = np.empty((len(offsets) - 1, 3), "<u8")
    table[:, 0] = table[:, 1] = np.diff(offsets)
    table[:, 2] = total - flat.ntotal * size + offsets[:-1] * size
    start, end = struct.pack("<3Q", len(table), size, len(table)), struct.pack("<2Q", 0, len(name))
    return b"".join([b"ilod", start, table.tobytes(), end, name, struct.pack("<Q", total)])


def _check_lists(lists: Any, flat: Any, offsets: Ints) -> None:
    """Compare the description as it was read, and then the first, middle and last image's codes."""
    count, size = len(offsets) - 1, flat.code_size
    end = flat.ntotal * size
    if (lists.nlist, lists.code_size, lists.lists.size()) != (count, size, count):
        raise RuntimeError(f"{lists.nlist} lists of {lists.code_size} bytes were read, not {count} of {size}")
    codes = faiss.rev_swig_ptr(flat.codes.data(), end)
    for image in {0, count // 2, count - 1}:
        entry, first, last = lists.lists.at(image), *(int(row) for row in offsets[image : image + 2])
        if (entry.size, lists.totsize - entry.offset) != (last - first, end - first * size):
            raise RuntimeError(f"list {image} has {entry.size} vectors at byte {entry.offset}")
        read = faiss.rev_swig_ptr(lists.get_codes(image), (last - first) * size)
        if not np.array_equal(read, codes[first * size : last * size]):
            raise RuntimeError(f"list {image} holds other vectors")
