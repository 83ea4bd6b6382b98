"""Exact search against a loop that anyone can read."""

import numpy as np
import pytest

from forclip.index.in_memory import best_vectors, rank
from forclip.types import ImageEmbeddings


def ragged(rng: np.random.Generator, images: int, dim: int = 8) -> ImageEmbeddings:
    counts = rng.integers(1, 6, images)
    vectors = rng.standard_normal((counts.sum(), dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ImageEmbeddings(vectors, offsets, tuple(f"image {i:03d}" for i in range(images)))


@pytest.mark.parametrize("seed", range(5))
def test_equals_a_naive_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = ragged(rng, 40)
    query = embeddings.vectors[7]
    scores, winners = best_vectors(embeddings, query)
    for image in range(40):
        start, end = embeddings.offsets[image : image + 2]
        cosines = [float(embeddings.vectors[row] @ query) for row in range(start, end)]
        assert scores[image] == pytest.approx(max(cosines), abs=1e-6)
        assert winners[image] == start + int(np.argmax(cosines))
    expected = sorted(range(40), key=lambda i: (-scores[i], embeddings.image_ids[i]))
    assert rank(scores, embeddings.image_ids, 10).tolist() == expected[:10]


def test_negative_similarities_are_not_beaten_by_nothing() -> None:
    vectors = np.array([[-1, 0], [-0.6, 0.8], [0, 1]], np.float32)
    embeddings = ImageEmbeddings(vectors, np.array([0, 2, 3]), ("a", "b"))
    scores, winners = best_vectors(embeddings, np.array([0.8, -0.6], np.float32))
    assert scores.tolist() == pytest.approx([-0.8, -0.6])
    assert winners.tolist() == [0, 2]


def test_ties_go_by_id_also_at_the_cut() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.5], np.float32)
    assert rank(scores, ("d", "c", "b", "a"), 2).tolist() == [1, 3]
    assert rank(scores, ("d", "c", "b", "a"), 9).tolist() == [1, 3, 2, 0]


def test_wrong_questions_are_refused() -> None:
    embeddings = ragged(np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match="8 dimensions"):
        best_vectors(embeddings, np.ones(5, np.float32))
    with pytest.raises(ValueError, match="not 0"):
        rank(np.ones(3, np.float32), embeddings.image_ids, 0)
