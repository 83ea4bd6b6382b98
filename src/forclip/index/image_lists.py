"""The nearest vectors of each of many images: a mapped segment as FAISS inverted lists, one list an image.

FAISS' lists on disk (`OnDiskInvertedLists`) are a table of places in a file. One that points into the file of vectors
side by side makes FAISS compare all vectors of given images and keep the best of each, without copying a vector.
"""

import ctypes
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from forclip.types import Floats, Ints

_WITHIN_LIST = 0xFFFFFFFF  # FAISS returns the list and the place in it, in one number


class ImageLists:
    """Reads the file of `flat`, which must stay as it is. offsets: [images + 1] rows of the vectors."""

    def __init__(self, file: Path, flat: Any, offsets: Ints) -> None:
        self._starts = offsets[:-1]
        self._lists = _lists(file, flat, offsets)
        self._codes_bytes = flat.ntotal * flat.code_size
        unused = faiss.IndexFlat(flat.d, flat.metric_type)
        self._index = faiss.IndexIVFScalarQuantizer(
            unused, flat.d, len(offsets) - 1, flat.sq.qtype, flat.metric_type, False
        )
        self._index.is_trained = True
        self._index.replace_invlists(self._lists, False)

    @cached_property
    def codes(self) -> NDArray[np.uint8]:
        """[vectors, bytes] as FAISS keeps them, where `nearest` reads them: pages of a file count once for each place
        where a process maps it. Not a copy."""
        raw: NDArray[np.uint8] = faiss.rev_swig_ptr(self._lists.ptr, self._lists.totsize)
        return raw[-self._codes_bytes :].reshape(-1, self._lists.code_size)

    def nearest(self, asked: Floats, images: Ints, count: int) -> tuple[Floats, Ints]:
        """Of each image its vectors nearest to what it is asked for, best first: scores and rows, both
        [images, count]; -inf and -1 where it has fewer. asked: [images, dim], queries as Segment.asked gives them."""
        shape = (len(images), count)
        scores, places = np.empty(shape, np.float32), np.empty(shape, np.int64)
        lists, asked = np.ascontiguousarray(images, np.int64), np.ascontiguousarray(asked, np.float32)
        given = (lists, np.zeros(len(images), np.float32), scores, places)
        self._index.search_preassigned_c(len(images), faiss.swig_ptr(asked), count, *map(faiss.swig_ptr, given), True)
        missing = places < 0
        rows = self._starts[images][:, None] + (places & _WITHIN_LIST)
        rows[missing], scores[missing] = -1, -np.inf
        return scores, rows


def _lists(file: Path, flat: Any, offsets: Ints) -> Any:
    """FAISS writes codes last, one after the other."""
    counts, size = np.diff(offsets), flat.code_size
    total = file.stat().st_size
    table = np.empty((len(counts), 3), np.uint64)  # FAISS' OnDiskOneList: size, capacity, offset
    table[:, 0] = table[:, 1] = counts
    table[:, 2] = total - flat.ntotal * size + offsets[:-1] * size
    lists = faiss.OnDiskInvertedLists()
    lists.nlist, lists.code_size = len(counts), size
    lists.filename, lists.totsize = str(file), total
    lists.read_only, lists.prefetch_nthread = True, 0
    lists.lists.resize(len(counts))
    ctypes.memmove(int(lists.lists.data().this), table.ctypes.data, table.nbytes)
    lists.do_mmap()
    return lists
