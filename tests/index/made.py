"""Stores for tests: small, seeded, and what anyone would expect of a search in them."""

from collections.abc import Mapping, Sequence

import numpy as np

from forclip.index.image_index import Index
from forclip.index.optimize import write_segments
from forclip.index.schema import StoreHeader
from forclip.index.store import ImageFile
from forclip.types import Floats, ImageEmbeddings

DIM = 16
HEADER = StoreHeader("abc", DIM, {"name": "some model"})


def unit(rng: np.random.Generator, *shape: int) -> Floats:
    drawn = rng.standard_normal(shape).astype(np.float32)
    vectors: Floats = drawn / np.linalg.norm(drawn, axis=-1, keepdims=True)
    return vectors


def some(ids: Sequence[str], seed: int = 0, dim: int = DIM, most: int = 4) -> ImageEmbeddings:
    """Images of one to `most` vectors, with boxes."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most + 1, len(ids))
    corners = np.sort(rng.random((counts.sum(), 2, 2)), 1).reshape(-1, 4).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ImageEmbeddings(unit(rng, counts.sum(), dim), offsets, tuple(ids), corners)


def files(ids: Sequence[str]) -> list[ImageFile]:
    return [ImageFile(f"/pictures/{i}", width=640, height=480) for i in ids]


def names(count: int, prefix: str = "image") -> list[str]:
    return [f"{prefix} {k:05d}" for k in range(count)]


def by_image(embeddings: ImageEmbeddings, header: StoreHeader = HEADER) -> dict[str, np.ndarray]:
    """What a store keeps of each image: its vectors as they are stored."""
    kept = header.decode(header.encode(embeddings.vectors))
    spans = zip(embeddings.offsets[:-1], embeddings.offsets[1:], strict=True)
    return {i: kept[s:e] for i, (s, e) in zip(embeddings.image_ids, spans, strict=True)}


def oracle(kept: Mapping[str, np.ndarray], query: Floats, k: int) -> list[tuple[str, float]]:
    """A loop that anyone can read: ids and scores of the best k, ties by id."""
    scores = {i: max(float(np.dot(v, query.astype(np.float64))) for v in vectors) for i, vectors in kept.items()}
    return sorted(scores.items(), key=lambda s: (-round(s[1], 12), s[0]))[:k]


def write_all_segments(index: Index) -> None:
    """Write segments however small the store is."""
    with index.segments.changing():
        write_segments(index._views, min_vectors=1)
