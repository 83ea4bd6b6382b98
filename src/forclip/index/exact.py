"""Exact search of embeddings in memory: every vector is compared, grouped by image. A store must agree with it."""

import numpy as np

from forclip.types import Floats, ImageEmbeddings, Ints

_VECTORS_AT_ONCE = 1 << 18


def best_vectors(embeddings: ImageEmbeddings, query: Floats) -> tuple[Floats, Ints]:
    """Each image's score and the vector that gave it. query: unit [dim].

    Returns scores [images] and rows of embeddings.vectors [images]. Raises ValueError for another dimension.
    """
    if query.shape != (embeddings.dim,):
        raise ValueError(f"the query has shape {query.shape}, the store's vectors have {embeddings.dim} dimensions")
    blocks = range(0, len(embeddings.vectors), _VECTORS_AT_ONCE)
    cosines = np.concatenate([embeddings.vectors[b : b + _VECTORS_AT_ONCE] @ query for b in blocks])
    scores = np.maximum.reduceat(cosines, embeddings.offsets[:-1])
    # The first row of each image whose cosine is that maximum.
    owner = np.repeat(np.arange(len(embeddings)), np.diff(embeddings.offsets))
    hits = np.flatnonzero(cosines == scores[owner])
    _, first = np.unique(owner[hits], return_index=True)
    return scores, hits[first]


def rank(scores: Floats, image_ids: tuple[str, ...], k: int) -> Ints:
    """The best k images, ties by image id. Returns rows [min(k, images)]. Raises ValueError for k below 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    k = min(k, len(scores))
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= threshold)
    best = sorted(candidates.tolist(), key=lambda row: (-scores[row], image_ids[row]))
    return np.array(best[:k], np.int64)
