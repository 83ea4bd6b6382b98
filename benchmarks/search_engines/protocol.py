"""What the benchmark asks of an engine, and the engines by name."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.search_data import Vectors
from forclip.types import Floats

Setting = dict[str, int | float | str | bool]
Ladder = list[Setting]  # from the cheapest to the dearest; recall rises with it

ENGINES = (
    *("forclip", "forclip-exact", "faiss-ivf-sq8", "faiss-pq4-refine"),
    *("lancedb-multivector-exact", "lancedb-multivector-pq", "lancedb-multivector-rq"),
    *("lancedb-rows-exact", "lancedb-rows-pq", "lancedb-rows-rq"),
    *("milvus-lite-flat", "milvus-lite-ivf-sq8", "milvus-lite-hnsw"),
    *("qdrant-edge-multivector", "qdrant-edge-rows", "duckdb"),
)


class Engine(Protocol):
    """build, then in any process open and query. Images are numbers, in the order of the file of vectors."""

    def build(self, vectors: Vectors, folder: Path) -> None:
        """All that is on disk when an image has become searchable, below an empty folder."""

    def open(self, vectors: Vectors, folder: Path) -> None:
        """What was built."""

    def ladders(self, vectors: Vectors, k: int) -> list[Ladder]:
        """The settings to try."""

    def query(self, vector: Floats, k: int, setting: Setting) -> Sequence[int]:
        """Images for a unit vector [dim], best first. Raw vectors' owners may repeat; the first k distinct count."""


def load_engine(name: str) -> Engine:
    """Imports what that engine needs and nothing else. Raises ImportError where it is not installed."""
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
    raise ValueError(f"no engine is named {name!r}; there are {', '.join(ENGINES)}")


def first_distinct(images: Iterable[int], k: int) -> list[int]:
    """The first k images, each once."""
    return list(dict.fromkeys(images))[:k]


def doubling(start: int, most: int) -> list[int]:
    """start, twice that and so on, and at last most."""
    return [start << n for n in range(32) if start << n < most] + [most]


def fetches(vectors: Vectors, k: int) -> list[int]:
    """How many vectors to ask for so that they belong to k images: rarely enough at first, certainly at last."""
    certain = min(len(vectors), (k - 1) * vectors.per_image + 1)
    return [n for n in doubling(4 * k, certain) if n <= certain]


def list_count(vectors: Vectors) -> int:
    """Of an inverted file: 1,024, fewer where these would hold too few vectors to be trained."""
    return int(min(1024, max(1, len(vectors) // 39)))


def blocks(vectors: Vectors, images: int) -> Iterable[tuple[int, Floats]]:
    """The first image's number and [images, per_image, dim] float32, block by block."""
    for start in range(0, vectors.images, images):
        yield start, vectors.of_images(start, start + images)


def sample(vectors: Vectors, count: int) -> Floats:
    """Some vectors to train on, [count, dim] float32, from a seed."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(vectors), min(count, len(vectors)), replace=False))
    return vectors.load()[rows].astype(np.float32)
