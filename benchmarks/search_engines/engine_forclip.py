"""forclip's index."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.search_data import Vectors, typical_queries
from benchmarks.search_engines.protocol import Ladder, Setting, blocks
from forclip.index.image_index import Index
from forclip.index.schema import StoreHeader
from forclip.index.store import ImageFile
from forclip.types import Floats, ImageEmbeddings

_STORE = "store"


class Forclip:
    """Approximate search with default settings, or exact search."""

    def __init__(self, exact: bool) -> None:
        self.exact = exact

    def build(self, vectors: Vectors, folder: Path) -> None:
        index = Index.create(folder / _STORE, StoreHeader("benchmark", vectors.dim, {"name": "benchmark"}))
        for start, block in blocks(vectors, 5000):
            index.add(*as_images(start, block))
        index.optimize(queries=typical_queries(vectors))

    def open(self, vectors: Vectors, folder: Path) -> None:
        self.index = Index(folder / _STORE)

    def ladders(self, vectors: Vectors, k: int) -> list[Ladder]:
        return [[{}]]

    def query(self, vector: Floats, k: int, setting: Setting) -> Sequence[int]:
        return [int(hit.image_id) for hit in self.index.search(vector, k, exact=self.exact)]


def as_images(start: int, block: Floats) -> tuple[ImageEmbeddings, list[ImageFile]]:
    """Image embeddings and files of a block [images, per_image, dim] that begins with image `start`.

    Ids are zero-padded, so they sort like the positions.
    """
    count, per_image, dim = block.shape
    ids = tuple(f"{start + n:09d}" for n in range(count))
    offsets = np.arange(count + 1, dtype=np.int64) * per_image
    return ImageEmbeddings(block.reshape(-1, dim), offsets, ids), [ImageFile(f"{name}.jpg") for name in ids]
