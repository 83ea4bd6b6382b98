"""Boxes around masks, against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as masks

from forclip.data.formats.run_lengths import box_of_run_lengths


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (40, 30), (300, 500)])
def test_a_box_is_that_of_pycocotools(shape: tuple[int, int], share: float) -> None:
    for seed in range(4):
        mask = np.asfortranarray(np.random.default_rng(seed).random(shape) < share, np.uint8)
        encoded = masks.encode(mask)
        flat = mask.flatten(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        counts = np.diff([0, *edges, len(flat)]).tolist()
        counts = [0, *counts] if flat[0] else counts
        expected = tuple(masks.toBbox(encoded)) if mask.any() else None
        assert box_of_run_lengths({"size": list(shape), "counts": encoded["counts"].decode()}) == expected
        assert box_of_run_lengths({"size": list(shape), "counts": counts}) == expected


@pytest.mark.parametrize(
    "damaged",
    [
        *({"size": [2, 2]}, {"size": [2, 2], "counts": [1, 2]}, {"size": [2, 2], "counts": [1, -1, 4]}),
        *({"size": [0, 2], "counts": []}, {"size": "2x2", "counts": [1, 3]}, {"size": [2, 2], "counts": "x~"}),
        *({"size": [2, 2], "counts": "P"}, {"size": [2, 2], "counts": [1.5, 2.5]}, [1, 2], None, "counts"),
    ],
)
def test_a_damaged_mask_has_no_box(damaged: object) -> None:
    assert box_of_run_lengths(damaged) is None
