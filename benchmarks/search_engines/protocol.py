"""The interface of an engine in the search benchmark, and the engines by name."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.search_data import Vectors
from forclip.types import Floats

Setting = dict[str, int | float | str | bool]
Ladder = list[Setting]  # from the fastest to the slowest; recall rises

ENGINES = (
    *("forclip", "forclip-exact", "faiss-ivf-sq8", "faiss-pq4-refine"),
    *("lancedb-multivector-exact", "lancedb-multivector-pq", "lancedb-multivector-rq"),
    *("lancedb-rows-exact", "lancedb-rows-pq", "lancedb-rows-rq"),
    *("milvus-lite-flat", "milvus-lite-ivf-sq8", "milvus-lite-hnsw"),
    *("qdrant-edge-multivector", "qdrant-edge-rows", "duckdb"),
)


class Engine(Protocol):
    """A search engine: build once, then open and query in any process.

    An image is identified by its position in the file of vectors.
    """

    def build(self, vectors: Vectors, folder: Path) -> None:
        """Write everything that a search needs to an empty folder."""

    def open(self, vectors: Vectors, folder: Path) -> None:
        """Open what `build` wrote."""

    def ladders(self, vectors: Vectors, k: int) -> list[Ladder]:
        """The search settings to try."""

    def query(self, vector: Floats, k: int, setting: Setting) -> Sequence[int]:
        """The images nearest to a unit vector [dim], best first. Images may repeat; the first k distinct ones count."""


def load_engine(name: str) -> Engine:
    """Import an engine and its library.

    Raises ImportError if the library is not installed, and ValueError for an unknown name.
    """
    match name.split("-"):
        case ["forclip", *exact]:
            from benchmarks.search_engines.engine_forclip import Forclip

            return Forclip(exact=bool(exact))
        case ["faiss", "ivf", "sq8"]:
            from benchmarks.search_engines.engine_faiss import FaissIvf

            return FaissIvf()
        case ["faiss", "pq4", "refine"]:
            from benchmarks.search_engines.engine_faiss import FaissRefine

            return FaissRefine()
        case ["lancedb", layout, index]:
            from benchmarks.search_engines.engine_lancedb import LanceDb

            return LanceDb(layout, index)
        case ["milvus", "lite", *index]:
            from benchmarks.search_engines.engine_milvus import MilvusLite

            return MilvusLite("_".join(index).upper())
        case ["qdrant", "edge", layout]:
            from benchmarks.search_engines.engine_qdrant import QdrantEdge

            return QdrantEdge(layout)
        case ["duckdb"]:
            from benchmarks.search_engines.engine_duckdb import DuckDb

            return DuckDb()
    raise ValueError(f"unknown engine {name!r}; available: {', '.join(ENGINES)}")


def first_distinct(images: Iterable[int], k: int) -> list[int]:
    """The first k distinct images."""
    return list(dict.fromkeys(images))[:k]


def doubling(start: int, most: int) -> list[int]:
    """start, doubled until it exceeds `most`, and `most` as the last value."""
    return [start << n for n in range(32) if start << n < most] + [most]


def fetches(vectors: Vectors, k: int) -> list[int]:
    """Numbers of vectors to fetch for k distinct images. The first rarely suffices, the last always does."""
    certain = min(len(vectors), (k - 1) * vectors.per_image + 1)
    return [n for n in doubling(4 * k, certain) if n <= certain]


def list_count(vectors: Vectors) -> int:
    """Number of lists of an inverted file: 1,024, or fewer if there are too few vectors to train them."""
    return int(min(1024, max(1, len(vectors) // 39)))


def blocks(vectors: Vectors, images: int) -> Iterable[tuple[int, Floats]]:
    """Read the vectors block by block.

    Yields the first image of a block and its vectors, [images, per_image, dim] float32.
    """
    for start in range(0, vectors.images, images):
        yield start, vectors.of_images(start, start + images)


def sample(vectors: Vectors, count: int) -> Floats:
    """Draw vectors to train on, [count, dim] float32, from a fixed seed."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(vectors), min(count, len(vectors)), replace=False))
    return vectors.load()[rows].astype(np.float32)
