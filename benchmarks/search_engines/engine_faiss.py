"""Raw FAISS: nearest vectors instead of images. The time to group vectors by image does not count."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import faiss

from benchmarks.search_data import Vectors
from benchmarks.search_engines.protocol import Ladder, Setting, blocks, doubling, fetches, list_count, sample
from forclip.types import Floats

_FILE = "index.faiss"
_TRAINED_ON = 100_000


class FaissIvf:
    """An inverted file with 8-bit vectors."""

    def build(self, vectors: Vectors, folder: Path) -> None:
        index = faiss.index_factory(vectors.dim, f"IVF{list_count(vectors)},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.train(sample(vectors, _TRAINED_ON))
        _fill(index, vectors, folder)

    def open(self, vectors: Vectors, folder: Path) -> None:
        self._per_image = vectors.per_image
        self._index: Any = faiss.read_index(str(folder / _FILE))

    def ladders(self, vectors: Vectors, k: int) -> list[Ladder]:
        return [
            [{"fetch": fetch, "both_cores": both, "nprobe": n} for n in doubling(1, list_count(vectors))]
            for both in (True, False)
            for fetch in fetches(vectors, k)
        ]

    def query(self, vector: Floats, k: int, setting: Setting) -> Sequence[int]:
        self._index.nprobe = setting["nprobe"]
        self._index.parallel_mode = int(setting["both_cores"])  # 1: threads share the lists of one query
        _, rows = self._index.search(vector[None], setting["fetch"])
        return _owners(rows, self._per_image)


class FaissRefine:
    """A full scan of 4-bit codes, one per two dimensions; re-ranks the nearest by memory-mapped float16 vectors."""

    def build(self, vectors: Vectors, folder: Path) -> None:
        codes = faiss.index_factory(vectors.dim, f"PQ{vectors.dim // 2}x4fs", faiss.METRIC_INNER_PRODUCT)
        codes.train(sample(vectors, _TRAINED_ON))
        whole = faiss.IndexScalarQuantizer(vectors.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        _fill(faiss.IndexRefine(codes, whole), vectors, folder)

    def open(self, vectors: Vectors, folder: Path) -> None:
        self._per_image = vectors.per_image
        self._index: Any = faiss.read_index(str(folder / _FILE), faiss.IO_FLAG_MMAP_IFC)

    def ladders(self, vectors: Vectors, k: int) -> list[Ladder]:
        return [[{"fetch": fetch, "k_factor": n} for n in doubling(1, 64)] for fetch in fetches(vectors, k)]

    def query(self, vector: Floats, k: int, setting: Setting) -> Sequence[int]:
        parameters: Any = faiss.IndexRefineSearchParameters()
        parameters.k_factor = setting["k_factor"]
        _, rows = self._index.search(vector[None], setting["fetch"], params=parameters)
        return _owners(rows, self._per_image)


def _fill(index: Any, vectors: Vectors, folder: Path) -> None:
    for _, block in blocks(vectors, 2000):
        index.add(block.reshape(-1, vectors.dim))
    faiss.write_index(index, str(folder / _FILE))


def _owners(rows: Any, per_image: int) -> Sequence[int]:
    """Images of the rows in a result [1, fetch]. A row is -1 if FAISS found fewer vectors."""
    owners: Sequence[int] = rows[0][rows[0] >= 0] // per_image
    return owners
