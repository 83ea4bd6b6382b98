"""Queries in FAISS' inverted lists: several shared out to the cores, or the lists of one."""

from typing import Any

import faiss
import numpy as np

from forclip.index.threads import cores, one_core, side_by_side
from forclip.types import Floats, Ints

_VECTORS_A_THREAD = 1 << 15  # fewer are not worth another thread


def count_lists(index: Any) -> int:
    """0 for an index without inverted lists."""
    inverted = faiss.try_extract_index_ivf(index)
    return 0 if inverted is None else int(inverted.nlist)


def search_lists(index: Any, asked: Floats, fetch: int, nprobe: int) -> list[Ints]:
    """For each query [Q, dim] the ids of the nearest vectors in so many lists, best first: at most `fetch`.

    index: with inverted lists, behind any transformation of vectors.
    """
    inverted = faiss.extract_index_ivf(index)
    with one_core():
        moved = _moved(index, asked)
        distances, lists = inverted.quantizer.search(moved, nprobe)
    worth = len(asked) * nprobe * index.ntotal // inverted.nlist // _VECTORS_A_THREAD
    threads = max(1, min(cores(), worth))
    if len(asked) == 1:
        return [_of_one(inverted, moved, fetch, lists, distances, threads)]
    shares = np.array_split(np.arange(len(asked)), min(threads, len(asked)))
    parts = side_by_side(lambda s: _search(inverted, moved[s], fetch, lists[s], distances[s])[1], shares)
    return [ids[ids >= 0] for part in parts for ids in part]


def _of_one(inverted: Any, moved: Floats, fetch: int, lists: Ints, distances: Floats, threads: int) -> Ints:
    """With its lists shared out to threads, which FAISS does itself only with threads that wait for each other."""
    shares = [(lists[:, start::threads], distances[:, start::threads]) for start in range(threads)]
    parts = side_by_side(lambda s: _search(inverted, moved, fetch, *s), shares)
    scores, ids = (np.concatenate([column[0] for column in columns]) for columns in zip(*parts, strict=True))
    if threads > 1:
        ids = ids[np.argsort(-scores)[:fetch]]
    found: Ints = ids[ids >= 0]
    return found


def _moved(index: Any, asked: Floats) -> Floats:
    """The query as the transformations before the lists make it."""
    if not isinstance(index, faiss.IndexPreTransform):
        return asked
    moved: Floats = index.chain.at(0).apply(asked)
    for place in range(1, index.chain.size()):
        moved = index.chain.at(place).apply(moved)
    return moved


def _search(inverted: Any, moved: Floats, fetch: int, lists: Ints, distances: Floats) -> tuple[Floats, Ints]:
    """Scores and ids, [Q, fetch]."""
    shape = (len(moved), fetch)
    scores, ids = np.empty(shape, np.float32), np.empty(shape, np.int64)
    parameters = faiss.SearchParametersIVF(nprobe=lists.shape[1])
    given = [np.ascontiguousarray(array) for array in (lists, distances)]
    pointers = map(faiss.swig_ptr, (*given, scores, ids))
    inverted.search_preassigned_c(len(moved), faiss.swig_ptr(moved), fetch, *pointers, False, parameters)
    return scores, ids
