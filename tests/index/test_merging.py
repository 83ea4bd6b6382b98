"""Near duplicates become one vector, and nothing else changes."""

import numpy as np
import pytest

from forclip.index.in_memory import merge_near_duplicates
from forclip.types import ImageEmbeddings
from tests.index.made import names, some


def at(*degrees: float) -> np.ndarray:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def test_by_hand() -> None:
    """0 takes 10 and 20 with it, but not 40; 40 takes 55. The second image's vectors are alone."""
    boxes = np.arange(28, dtype=np.float32).reshape(7, 4)
    given = ImageEmbeddings(at(0, 10, 40, 20, 55, 0, 90), np.array([0, 5, 7]), ("a", "b"), boxes)
    merged = merge_near_duplicates(given, float(np.cos(np.deg2rad(21))))
    np.testing.assert_allclose(merged.vectors, at(10, 47.5, 0, 90), atol=1e-6)
    assert merged.offsets.tolist() == [0, 2, 4]
    assert merged.image_ids == ("a", "b")
    assert merged.boxes is not None
    assert merged.boxes.tolist() == boxes[[0, 2, 5, 6]].tolist()


def test_ends() -> None:
    given = some(names(30))
    none = merge_near_duplicates(given, 1.0)
    np.testing.assert_allclose(none.vectors, given.vectors, atol=1e-6)
    twice = ImageEmbeddings(np.repeat(given.vectors, 2, 0), given.offsets * 2, given.image_ids)
    np.testing.assert_allclose(merge_near_duplicates(twice, 0.999).vectors, given.vectors, atol=1e-6)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"not {wrong}"):
            merge_near_duplicates(given, wrong)
