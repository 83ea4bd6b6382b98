"""Fewer vectors an image: merge near-duplicates, or the most similar ones until a limit is met."""

from collections.abc import Callable

import numpy as np
from scipy.cluster.hierarchy import linkage

from forclip.types import Floats, ImageEmbeddings, Ints

_SMALLEST_NORM = 1e-6


def merge_near_duplicates(embeddings: ImageEmbeddings, cosine: float) -> ImageEmbeddings:
    """Merge each image's near-duplicate vectors, of the whole image and its tiles alike.

    A vector that has at least this cosine with an earlier vector that was kept is merged into it. The result keeps the
    order of the kept vectors. A merged vector is the mean of its members, scaled to unit length, and has the box of
    the member nearest to it. Raises ValueError for a cosine outside 0..1.
    """
    check_merge(cosine)
    return _merge(embeddings, lambda vectors: _group_similar(vectors, cosine))


def limit_vectors(embeddings: ImageEmbeddings, most: int) -> ImageEmbeddings:
    """Merge the most similar vectors of each image until it has at most `most`.

    Ward's agglomeration, as Cluster-CLIP's: as long as there are too many groups, the two merge that make the squared
    distances of all vectors to the means of their groups grow least. On the toy world it loses less than average or
    complete linkage. Groups, vectors and boxes are ordered and made as by `merge_near_duplicates`. Raises ValueError
    for a limit below 1.
    """
    check_max_vectors(most)
    if np.diff(embeddings.offsets).max(initial=0) <= most:
        return embeddings
    return _merge(embeddings, lambda vectors: _group_down_to(vectors, most))


def make_reduce(merge: float | None, max_vectors: int | None) -> Callable[[ImageEmbeddings], ImageEmbeddings] | None:
    """Return a function that merges vectors from a cosine, then until at most so many are left; None for neither.

    Raises ValueError for a cosine outside 0..1 and a limit below 1.
    """
    if merge is None and max_vectors is None:
        return None
    check_merge(merge)
    check_max_vectors(max_vectors)

    def reduce(embeddings: ImageEmbeddings) -> ImageEmbeddings:
        merged = embeddings if merge is None else merge_near_duplicates(embeddings, merge)
        return merged if max_vectors is None else limit_vectors(merged, max_vectors)

    return reduce


def check_merge(cosine: float | None) -> None:
    """Raise ValueError for a cosine outside 0..1."""
    if cosine is not None and not 0 <= cosine <= 1:
        raise ValueError(f"vectors are merged from a cosine within 0..1, not {cosine}")


def check_max_vectors(most: int | None) -> None:
    """Raise ValueError for a limit below 1."""
    if most is not None and most < 1:
        raise ValueError(f"an image has at least 1 vector, not at most {most}")


def _merge(embeddings: ImageEmbeddings, group: Callable[[Floats], Ints]) -> ImageEmbeddings:
    """Merge the vectors of each image that `group` gives the same number. [N, D] -> [N], counted from 0 in order."""
    if not len(embeddings):
        return embeddings
    spans = zip(embeddings.offsets[:-1].tolist(), embeddings.offsets[1:].tolist(), strict=True)
    groups = [group(embeddings.vectors[start:end]) for start, end in spans]
    counts = np.array([g.max() + 1 for g in groups], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    targets = np.concatenate([g + start for g, start in zip(groups, offsets[:-1], strict=True)])
    order = np.argsort(targets, kind="stable")
    starts = np.searchsorted(targets[order], np.arange(offsets[-1]))
    sums = np.add.reduceat(embeddings.vectors[order], starts)
    # The member nearest to the mean, of equal ones the first.
    by_agreement = np.lexsort((-(embeddings.vectors * sums[targets]).sum(1), targets))
    nearest = by_agreement[starts]
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    vectors = np.where(norms > _SMALLEST_NORM, sums / np.maximum(norms, _SMALLEST_NORM), embeddings.vectors[nearest])
    boxes = None if embeddings.boxes is None else embeddings.boxes[nearest]
    return ImageEmbeddings(vectors, offsets, embeddings.image_ids, boxes)


def _group_similar(vectors: Floats, cosine: float) -> Ints:
    similar = vectors @ vectors.T >= cosine
    group = np.full(len(vectors), -1, np.int64)
    count = 0
    for row in range(len(vectors)):
        if group[row] < 0:
            group[similar[row] & (group < 0)] = count
            group[row] = count  # rounding may leave a vector's cosine with itself below 1
            count += 1
    return group


def _group_down_to(vectors: Floats, most: int) -> Ints:
    count = len(vectors)
    if count <= most:
        return np.arange(count, dtype=np.int64)
    distances = np.sqrt((2 - 2 * vectors @ vectors.T)[np.triu_indices(count, 1)].clip(min=0))  # of unit vectors
    merges = linkage(distances, "ward")[: count - most, :2].astype(np.int64).tolist()
    # Apply them from the last on, so that every node already knows its root. scipy's own cut may leave fewer groups.
    root = list(range(count + len(merges)))
    for step in reversed(range(len(merges))):
        for node in merges[step]:
            root[node] = root[count + step]
    _, first, group = np.unique(root[:count], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]
