"""Which images keep their labels, over whatever labels there may be."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from forclip.training.supervision import labelled_rows
from forclip.types import Bools

LABELS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20))
FRACTIONS = st.floats(0, 1, exclude_min=True)


@given(LABELS, FRACTIONS, FRACTIONS, st.integers(0, 10))
def test_rows_are_sorted_counted_and_nested(labels: Bools, one: float, other: float, seed: int) -> None:
    small, large = (labelled_rows(labels, fraction, seed).tolist() for fraction in sorted((one, other)))
    assert set(small) <= set(large) <= set(range(len(labels)))
    for rows, fraction in ((small, min(one, other)), (large, max(one, other))):
        assert rows == sorted(set(rows))
        assert len(rows) == math.ceil(fraction * len(labels)) >= 1


@given(LABELS, st.integers(0, 10))
def test_all_classes_are_shown_by_as_many_images_as_there_are_classes(labels: Bools, seed: int) -> None:
    images, classes = labels.shape
    rows = labelled_rows(labels, min(1.0, classes / images), seed)
    assert (labels[rows].any(0) == labels.any(0)).all()


def test_the_image_that_shows_most_comes_first() -> None:
    labels = np.zeros((50, 6), bool)
    labels[np.arange(6), np.arange(6)] = True
    labels[37, :4] = True
    labels[12, 4:] = True
    for seed in range(5):
        assert labelled_rows(labels, 0.02, seed).tolist() == [37]
        assert labelled_rows(labels, 0.04, seed).tolist() == [12, 37]


def test_the_seed_decides_among_equals() -> None:
    labels = np.ones((100, 3), bool)
    drawn = {tuple(labelled_rows(labels, 0.1, seed).tolist()) for seed in range(10)}
    assert len(drawn) == 10
    assert labelled_rows(labels, 0.1, 3).tolist() == labelled_rows(labels, 0.1, 3).tolist()


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, 50, float("nan")])
def test_a_wrong_fraction_is_named(fraction: float) -> None:
    with pytest.raises(ValueError, match="labelled_fraction"):
        labelled_rows(np.ones((4, 2), bool), fraction, 0)
