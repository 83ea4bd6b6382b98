"""The map: within its frame, alike for equal images, and apart for groups that differ."""

import numpy as np
import pytest

from forclip.index.embedding_map import map_points
from tests.index.made import unit


def test_groups_that_differ_are_apart_on_the_map() -> None:
    rng = np.random.default_rng(0)
    centres, groups = unit(rng, 3, 64), np.repeat(np.arange(3), 40)
    means = centres[groups] + 0.02 * rng.standard_normal((120, 64)).astype(np.float32)
    points = map_points(means)
    assert points.shape == (120, 2)
    assert points.min() == 0
    assert points.max() == pytest.approx(1)
    inside = max(float(np.ptp(points[groups == n], axis=0).max()) for n in range(3))
    middles = np.stack([points[groups == n].mean(0) for n in range(3)])
    between = min(float(np.linalg.norm(middles[a] - middles[b])) for a, b in [(0, 1), (0, 2), (1, 2)])
    assert between > 2 * inside
    assert np.array_equal(map_points(means), points)  # the same each time


def test_equal_images_have_equal_points() -> None:
    means = unit(np.random.default_rng(1), 30, 16)
    points = map_points(np.concatenate([means, means]))
    assert points[:30] == pytest.approx(points[30:], abs=1e-5)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_few_or_equal_images_have_a_map(count: int) -> None:
    equal = np.full((count, 16), 0.25, np.float32)
    for means in (unit(np.random.default_rng(2), count, 16), equal):
        points = map_points(means)
        assert points.shape == (count, 2)
        assert np.isfinite(points).all()
        assert ((points >= 0) & (points <= 1)).all()
