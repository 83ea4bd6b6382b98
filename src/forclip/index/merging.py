"""Fewer vectors an image: near duplicates become one."""

import numpy as np

from forclip.types import Floats, ImageEmbeddings, Ints


def merge_near_duplicates(embeddings: ImageEmbeddings, cosine: float) -> ImageEmbeddings:
    """Within each image, vectors with at least this cosine to one that is kept are merged into it.

    Kept ones come in the order in which they are there; a merged vector is the mean of its members at unit length and
    keeps the box of the first. Raises ValueError for a cosine outside 0..1.
    """
    if not 0 <= cosine <= 1:
        raise ValueError(f"vectors are merged from a cosine within 0..1, not {cosine}")
    groups = [_groups(embeddings.vectors[s:e], cosine) for s, e in _spans(embeddings)]
    counts = np.array([g.max() + 1 for g in groups], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    owners = np.concatenate([g + start for g, start in zip(groups, offsets[:-1], strict=True)])
    sums = np.zeros((offsets[-1], embeddings.dim), np.float32)
    np.add.at(sums, owners, embeddings.vectors)
    first = np.unique(owners, return_index=True)[1]
    boxes = None if embeddings.boxes is None else embeddings.boxes[first]
    return ImageEmbeddings(sums / np.linalg.norm(sums, axis=1, keepdims=True), offsets, embeddings.image_ids, boxes)


def _groups(vectors: Floats, cosine: float) -> Ints:
    """The group of each vector, numbered in order of appearance."""
    alike = vectors @ vectors.T >= cosine
    group = np.full(len(vectors), -1, np.int64)
    count = 0
    for row in range(len(vectors)):
        if group[row] < 0:
            group[alike[row] & (group < 0)] = count
            group[row] = count  # rounding may leave a vector's cosine with itself below 1
            count += 1
    return group


def _spans(embeddings: ImageEmbeddings) -> list[tuple[int, int]]:
    return list(zip(embeddings.offsets[:-1].tolist(), embeddings.offsets[1:].tolist(), strict=True))
