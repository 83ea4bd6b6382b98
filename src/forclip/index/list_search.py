"""One query in FAISS' inverted lists, on as many cores as its lists are worth."""

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


def search_lists(index: Any, asked: Floats, fetch: int, nprobe: int) -> tuple[Floats, Ints]:
    """Scores and ids of the vectors nearest to a query [1, dim] in so many lists, best first: at most `fetch`.

    index: with inverted lists, behind any transformation of vectors. The lists of one query are shared out to threads,
    which FAISS does itself only with threads that wait for each other.
    """
    inverted = faiss.extract_index_ivf(index)
    with one_core():
        moved = _moved(index, asked)
        distances, lists = inverted.quantizer.search(moved, nprobe)
    worth = nprobe * index.ntotal // inverted.nlist // _VECTORS_A_THREAD
    threads = max(1, min(cores(), worth))
    shares = [
        np.ascontiguousarray(array[:, start::threads]) for start in range(threads) for array in (lists, distances)
    ]
    parts = side_by_side(lambda s: _search(inverted, moved, fetch, *s), zip(shares[::2], shares[1::2], strict=True))
    scores, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    if threads > 1:
        best = np.argsort(-scores)[:fetch]
        scores, ids = scores[best], ids[best]
    return scores[ids >= 0], ids[ids >= 0]


def _moved(index: Any, asked: Floats) -> Floats:
    """The query as the transformations before the lists make it."""
    if not isinstance(index, faiss.IndexPreTransform):
        return asked
    moved: Floats = index.chain.at(0).apply(asked)
    for place in range(1, index.chain.size()):
        moved = index.chain.at(place).apply(moved)
    return moved


def _search(inverted: Any, moved: Floats, fetch: int, lists: Ints, distances: Floats) -> tuple[Floats, Ints]:
    scores, ids = np.empty(fetch, np.float32), np.empty(fetch, np.int64)
    parameters = faiss.SearchParametersIVF(nprobe=lists.shape[1])
    given = map(faiss.swig_ptr, (lists, distances, scores, ids))
    inverted.search_preassigned_c(1, faiss.swig_ptr(moved), fetch, *given, False, parameters)
    return scores, ids
