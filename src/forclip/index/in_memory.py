"""Operations on image embeddings in memory, without a store."""

import numpy as np

from forclip.types import Floats, ImageEmbeddings, Ints

_BLOCK_VECTORS = 1 << 18


def best_vectors(embeddings: ImageEmbeddings, query: Floats) -> tuple[Floats, Ints]:
    """Score every image by its vector nearest to a unit query [dim].

    Returns the scores [images], cosines, and the winning rows of `embeddings.vectors` [images], the first of equal
    ones. Raises ValueError if the query has another dimension.
    """
    if query.shape != (embeddings.dim,):
        raise ValueError(f"the query has shape {query.shape}, the vectors have {embeddings.dim} dimensions")
    blocks = range(0, len(embeddings.vectors), _BLOCK_VECTORS)
    cosines = np.concatenate([embeddings.vectors[b : b + _BLOCK_VECTORS] @ query for b in blocks])
    scores = np.maximum.reduceat(cosines, embeddings.offsets[:-1])
    owner = np.repeat(np.arange(len(embeddings)), np.diff(embeddings.offsets))
    hits = np.flatnonzero(cosines == scores[owner])
    _, first = np.unique(owner[hits], return_index=True)
    return scores, hits[first]


def rank(scores: Floats, image_ids: tuple[str, ...], k: int) -> Ints:
    """Return the positions of the best k images, best first, ties by image id. Raises ValueError for k below 1."""
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    k = min(k, len(scores))
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= threshold)
    best = sorted(candidates.tolist(), key=lambda row: (-scores[row], image_ids[row]))
    return np.array(best[:k], np.int64)


def most_distinct_vector(vectors: Floats) -> Floats:
    """Return the vector [dim] that is least similar to the mean of an image's unit vectors [N, dim].

    It represents the image where only one vector can be searched with.
    """
    vector: Floats = vectors[np.argmin(vectors @ vectors.mean(0))]
    return vector


def merge_near_duplicates(embeddings: ImageEmbeddings, cosine: float) -> ImageEmbeddings:
    """Merge each image's near-duplicate vectors.

    A vector that has at least this cosine with an earlier vector that was kept is merged into it. The result keeps the
    order of the kept vectors. A merged vector is the mean of its members, scaled to unit length, and has the box of
    the first member. Raises ValueError for a cosine outside 0..1.
    """
    if not 0 <= cosine <= 1:
        raise ValueError(f"vectors are merged from a cosine within 0..1, not {cosine}")
    spans = zip(embeddings.offsets[:-1].tolist(), embeddings.offsets[1:].tolist(), strict=True)
    groups = [_group_similar(embeddings.vectors[start:end], cosine) for start, end in spans]
    counts = np.array([g.max() + 1 for g in groups], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    targets = np.concatenate([g + start for g, start in zip(groups, offsets[:-1], strict=True)])
    sums = np.zeros((offsets[-1], embeddings.dim), np.float32)
    np.add.at(sums, targets, embeddings.vectors)
    first = np.unique(targets, return_index=True)[1]
    boxes = None if embeddings.boxes is None else embeddings.boxes[first]
    return ImageEmbeddings(sums / np.linalg.norm(sums, axis=1, keepdims=True), offsets, embeddings.image_ids, boxes)


def _group_similar(vectors: Floats, cosine: float) -> Ints:
    """Return the group of each vector; groups are counted in order of appearance."""
    similar = vectors @ vectors.T >= cosine
    group = np.full(len(vectors), -1, np.int64)
    count = 0
    for row in range(len(vectors)):
        if group[row] < 0:
            group[similar[row] & (group < 0)] = count
            group[row] = count  # rounding may leave a vector's cosine with itself below 1
            count += 1
    return group
