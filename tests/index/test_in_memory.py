"""Operations on embeddings in memory, compared with naive loops and values by hand."""

import numpy as np
import pytest

from forclip.index.in_memory import best_vectors, merge_near_duplicates, most_distinct_vector, rank
from forclip.types import ImageEmbeddings
from tests.index.made import DIM, names, some, unit


@pytest.mark.parametrize("seed", range(5))
def test_best_vectors_and_ranks_equal_a_naive_loop(seed: int) -> None:
    embeddings = some(names(40), seed)
    query = embeddings.vectors[7]
    scores, winners = best_vectors(embeddings, query)
    for image in range(40):
        start, end = embeddings.offsets[image : image + 2]
        cosines = [float(embeddings.vectors[row] @ query) for row in range(start, end)]
        assert scores[image] == pytest.approx(max(cosines), abs=1e-6)
        assert winners[image] == start + int(np.argmax(cosines))
    expected = sorted(range(40), key=lambda i: (-scores[i], embeddings.image_ids[i]))
    assert rank(scores, embeddings.image_ids, 10).tolist() == expected[:10]


def test_negative_similarities_are_not_beaten_by_padding() -> None:
    vectors = np.array([[-1, 0], [-0.6, 0.8], [0, 1]], np.float32)
    embeddings = ImageEmbeddings(vectors, np.array([0, 2, 3]), ("a", "b"))
    scores, winners = best_vectors(embeddings, np.array([0.8, -0.6], np.float32))
    assert scores.tolist() == pytest.approx([-0.8, -0.6])
    assert winners.tolist() == [0, 2]


def test_ties_go_by_id_also_at_the_cut() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.5], np.float32)
    assert rank(scores, ("d", "c", "b", "a"), 2).tolist() == [1, 3]
    assert rank(scores, ("d", "c", "b", "a"), 9).tolist() == [1, 3, 2, 0]


def test_wrong_queries_are_refused() -> None:
    embeddings = some(names(3))
    with pytest.raises(ValueError, match="16 dimensions"):
        best_vectors(embeddings, np.ones(5, np.float32))
    with pytest.raises(ValueError, match="not 0"):
        rank(np.ones(3, np.float32), embeddings.image_ids, 0)


def test_the_most_distinct_vector_is_least_like_the_others() -> None:
    shared = unit(np.random.default_rng(0), DIM)
    alike = [shared, shared, -shared]
    assert (most_distinct_vector(np.stack(alike)) == -shared).all()


def at(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def test_near_duplicates_are_merged_by_hand() -> None:
    """0 takes 10 and 20 with it, but not 40; 40 takes 55. The second image's vectors are alone."""
    boxes = np.arange(28, dtype=np.float32).reshape(7, 4)
    given = ImageEmbeddings(at(0, 10, 40, 20, 55, 0, 90), np.array([0, 5, 7]), ("a", "b"), boxes)
    merged = merge_near_duplicates(given, float(np.cos(np.deg2rad(21))))
    np.testing.assert_allclose(merged.vectors, at(10, 47.5, 0, 90), atol=1e-6)
    assert merged.offsets.tolist() == [0, 2, 4]
    assert merged.image_ids == ("a", "b")
    assert merged.boxes is not None
    assert merged.boxes.tolist() == boxes[[0, 2, 5, 6]].tolist()


def test_merging_nothing_everything_and_wrong_cosines() -> None:
    given = some(names(30))
    none = merge_near_duplicates(given, 1.0)
    np.testing.assert_allclose(none.vectors, given.vectors, atol=1e-6)
    twice = ImageEmbeddings(np.repeat(given.vectors, 2, 0), given.offsets * 2, given.image_ids)
    np.testing.assert_allclose(merge_near_duplicates(twice, 0.999).vectors, given.vectors, atol=1e-6)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"not {wrong}"):
            merge_near_duplicates(given, wrong)
