"""Merging by hand, against naive loops, and its properties."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forclip.embedding.merge import limit_vectors, merge_near_duplicates
from forclip.types import Doubles, Floats, ImageEmbeddings
from tests.index.made import names, some


def at(*degrees: float) -> Floats:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def test_near_duplicates_are_merged_by_hand() -> None:
    """0 takes 10 and 20 with it, but not 40; 40 takes 55 and 52. The second image's vectors are alone."""
    boxes = np.arange(32, dtype=np.float32).reshape(8, 4)
    given = ImageEmbeddings(at(0, 12, 40, 20, 55, 52, 0, 90), np.array([0, 6, 8]), ("a", "b"), boxes)
    merged = merge_near_duplicates(given, float(np.cos(np.deg2rad(21))))
    angles = np.rad2deg(np.arctan2(merged.vectors[:, 1], merged.vectors[:, 0]))
    np.testing.assert_allclose(angles, [10.67, 49.01, 0, 90], atol=0.1)
    assert merged.offsets.tolist() == [0, 2, 4]
    assert merged.image_ids == ("a", "b")
    assert merged.boxes is not None
    assert merged.boxes.tolist() == boxes[[1, 5, 6, 7]].tolist()  # of the members nearest to the means


def test_merging_nothing_everything_and_wrong_cosines() -> None:
    given = some(names(30))
    none = merge_near_duplicates(given, 1.0)
    np.testing.assert_allclose(none.vectors, given.vectors, atol=1e-6)
    twice = ImageEmbeddings(np.repeat(given.vectors, 2, 0), given.offsets * 2, given.image_ids)
    np.testing.assert_allclose(merge_near_duplicates(twice, 0.999).vectors, given.vectors, atol=1e-6)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"not {wrong}"):
            merge_near_duplicates(given, wrong)


def test_the_most_similar_are_merged_by_hand() -> None:
    """The gaps are 10, 15, 35 and 30 degrees: 0 and 10 merge, then 25 joins them, then 60 and 90 merge."""
    boxes = np.arange(20, dtype=np.float32).reshape(5, 4)
    given = ImageEmbeddings(at(0, 60, 10, 90, 25), np.array([0, 5]), ("a",), boxes)
    for most, expected in ((5, [0, 60, 10, 90, 25]), (4, [5, 60, 90, 25]), (3, [11.6, 60, 90]), (2, [11.6, 75])):
        merged = limit_vectors(given, most)
        angles = np.rad2deg(np.arctan2(merged.vectors[:, 1], merged.vectors[:, 0]))
        np.testing.assert_allclose(angles, expected, atol=0.1)
    assert merged.boxes is not None
    assert merged.boxes[0].tolist() == boxes[2].tolist()


def naive_groups(vectors: Floats | Doubles, most: int) -> set[frozenset[int]]:
    """Try every pair of groups and merge the one after which vectors are nearest to the means of their groups."""

    def spread(group: frozenset[int]) -> float:
        members = vectors[sorted(group)]
        return float(((members - members.mean(0)) ** 2).sum())

    groups = [frozenset([row]) for row in range(len(vectors))]
    while len(groups) > most:
        pairs = [(a, b) for k, a in enumerate(groups) for b in groups[:k]]
        best = min(pairs, key=lambda pair: spread(pair[0] | pair[1]) - spread(pair[0]) - spread(pair[1]))
        groups = [group for group in groups if group not in best] + [best[0] | best[1]]
    return set(groups)


@pytest.mark.parametrize("most", [1, 2, 5, 11, 12, 30])
def test_the_most_similar_are_those_of_naive_loops(most: int) -> None:
    rng = np.random.default_rng(most)
    counts = np.array([12, 3, 25])
    vectors = rng.normal(size=(40, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    merged = limit_vectors(ImageEmbeddings(vectors, offsets, ("a", "b", "c")), most)
    assert np.diff(merged.offsets).tolist() == np.minimum(counts, most).tolist()
    for image, (start, end) in enumerate(pairwise(offsets)):
        own = vectors[start:end].astype(np.float64)
        expected = [own[sorted(group)].sum(0) for group in sorted(naive_groups(own, most), key=min)]
        found = merged.vectors[merged.offsets[image] : merged.offsets[image + 1]]
        np.testing.assert_allclose(found, [v / np.linalg.norm(v) for v in expected], atol=1e-5)


@given(st.integers(1, 40), st.integers(1, 45), st.integers(1, 4), st.integers(0, 99))
def test_no_image_has_more_vectors_than_the_limit(count: int, most: int, distinct: int, seed: int) -> None:
    """Equal and opposite vectors too, whose mean has no direction."""
    vectors = at(*np.random.default_rng(seed).choice([0, 180, 90, 270][:distinct], count))
    merged = limit_vectors(ImageEmbeddings(vectors, np.array([0, count]), ("a",)), most)
    assert len(merged.vectors) == min(count, most)


def test_no_images_stay_no_images() -> None:
    none = ImageEmbeddings(np.zeros((0, 2), np.float32), np.array([0]), ())
    assert len(merge_near_duplicates(none, 0.9)) == len(limit_vectors(none, 3)) == 0


def test_a_limit_that_is_not_exceeded_changes_nothing() -> None:
    given = some(names(5))
    most = int(np.diff(given.offsets).max())
    assert limit_vectors(given, most) is given
    with pytest.raises(ValueError, match="not at most 0"):
        limit_vectors(given, 0)
