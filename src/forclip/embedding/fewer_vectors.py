"""Fewer vectors of an image for a published store."""

from forclip.embedding.merge import check_max_vectors, limit_vectors, merge_near_duplicates
from forclip.index.milvus.source import Reduce
from forclip.types import ImageEmbeddings


def make_reduce(merge: float | None, max_vectors: int | None) -> Reduce | None:
    """Return a function that merges vectors from a cosine, then until at most so many are left; None for neither.

    Raises ValueError for a cosine outside 0..1 and a limit below 1.
    """
    if merge is None and max_vectors is None:
        return None
    if merge is not None and not 0 <= merge <= 1:
        raise ValueError(f"vectors are merged from a cosine within 0..1, not {merge}")
    check_max_vectors(max_vectors)

    def reduce(embeddings: ImageEmbeddings) -> ImageEmbeddings:
        merged = embeddings if merge is None else merge_near_duplicates(embeddings, merge)
        return merged if max_vectors is None else limit_vectors(merged, max_vectors)

    return reduce
