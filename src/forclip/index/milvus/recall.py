"""Choose how a published store is searched: by measured recall against exact search of the same vectors."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from forclip.index.milvus.index import MilvusIndex
from forclip.index.milvus.settings import SearchSettings, VectorIndex
from forclip.types import Floats, Ints

TARGET_RECALL = 0.995  # on the sample queries, so that text queries, which are unlike stored vectors, reach 98 %
TUNED_K = 50  # images
_SAME_SCORE = 1e-6
_COMPARED = (1.1, 1.5, 2.0, 3.0, 5.0)
_WORTHWHILE = 0.003  # recall that more compared images must gain
_SMALL = 50_000  # vectors; comparing every one of fewer takes some milliseconds
EXACT = VectorIndex("FLAT")
_BUILD: dict[str, dict[str, int]] = {  # parameters by kind of index; nlist is chosen by size
    "HNSW": {"M": 16, "efConstruction": 200},
    "HNSW_SQ": {"M": 16, "efConstruction": 200},
    "DISKANN": {},
    "AUTOINDEX": {},
}
_LISTS = ("IVF_FLAT", "IVF_SQ8")
# Those that Milvus groups by image (milvus.io/docs/grouping-search.md).
KINDS = ("FLAT", *_BUILD, *_LISTS)


class ExactBest:
    """The best images of sample queries among all that were seen. queries: unit [Q, dim]."""

    def __init__(self, queries: Floats) -> None:
        self.queries = queries
        self._scores = np.full((len(queries), TUNED_K), -np.inf)

    def add(self, vectors: Floats, offsets: Ints) -> None:
        """Compare the vectors [total, dim] of more images. offsets: [images + 1]."""
        scores = np.maximum.reduceat(vectors @ self.queries.T, offsets[:-1], 0).T
        together = np.concatenate([self._scores, scores], 1)
        self._scores = -np.sort(-together, 1)[:, :TUNED_K]

    def recall(self, found: Sequence[NDArray[np.floating]]) -> float:
        """Return the share of the best images among these, the mean over the queries.

        found: the scores of each query's list. Images as good as the last one count as well.
        """
        shares = []
        for best, scores in zip(self._scores, found, strict=True):
            count = int(np.isfinite(best).sum())
            least = best[count - 1] - _SAME_SCORE if count else 0.0
            shares.append(min(count, int((scores[:TUNED_K] >= least).sum())) / max(1, count))
        return float(np.mean(shares))


def choose_index(vectors: int, kind: str | None) -> VectorIndex:
    """Return an index for so many vectors. kind: Milvus's name of its type, None to choose by size.

    Raises ValueError for a kind that is not known here.
    """
    if kind is None:
        kind = "FLAT" if vectors < _SMALL else "HNSW"
    if kind not in KINDS:
        raise ValueError(f"unknown index {kind!r}; Milvus's are {', '.join(KINDS)}")
    # Each of Milvus's segments has its own lists.
    lists = {"nlist": int(np.clip(2 ** round(np.log2(4 * np.sqrt(max(1, vectors)))), 16, 1024))}
    return VectorIndex(kind, lists if kind in _LISTS else _BUILD.get(kind, {}))


def choose_search(index: MilvusIndex, exact: ExactBest) -> SearchSettings:
    """Return the cheapest settings that reach TARGET_RECALL, or those with the best recall if none do."""
    kind, vectors = index.view().settings.index, index.view().num_vectors
    if index.is_certain:
        return SearchSettings(recall=1.0, vectors=vectors)
    best = SearchSettings(vectors=vectors)
    for params in _ladder(kind):
        before = -1.0
        for compared in _COMPARED:
            tried = SearchSettings(params, compared, None, len(exact.queries), vectors)
            recall = _measure(index, exact, tried)
            if best.recall is None or recall > best.recall:
                best = replace(tried, recall=recall)
            if recall >= TARGET_RECALL:
                return best
            if recall < before + _WORTHWHILE:
                break  # the search finds no more, so compare no more
            before = recall
    return best


def _measure(index: MilvusIndex, exact: ExactBest, search: SearchSettings) -> float:
    return exact.recall([ranking.scores for ranking in index.search_with(exact.queries, TUNED_K, search)])


def _ladder(index: VectorIndex) -> Iterator[Mapping[str, int]]:
    """Return search parameters from fast to thorough."""
    match index.kind:
        case "HNSW" | "HNSW_SQ":
            yield from ({"ef": 2**n} for n in range(7, 13))
        case "DISKANN":
            yield from ({"search_list": 2**n} for n in range(7, 13))
        case "AUTOINDEX":
            yield from ({"level": n} for n in (1, 3, 5, 8, 10))
        case _:
            lists = index.build["nlist"]
            yield from ({"nprobe": n} for n in sorted({max(1, lists >> down) for down in range(7, -1, -1)}))
