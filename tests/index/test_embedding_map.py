"""The map: within its frame, alike for equal images, and apart for groups that differ."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.manifold import trustworthiness
from threadpoolctl import threadpool_info, threadpool_limits

from forclip.index.embedding_map import MIN_ARRANGED, arrange_points, map_points
from forclip.types import Doubles, Floats
from tests.index.made import unit

Way = Callable[[Floats], Floats]


@pytest.mark.parametrize("way", [map_points, arrange_points])
def test_groups_that_differ_are_apart_on_the_map(way: Way) -> None:
    rng = np.random.default_rng(0)
    centres, groups = unit(rng, 3, 64), np.repeat(np.arange(3), 40)
    means = centres[groups] + 0.02 * rng.standard_normal((120, 64)).astype(np.float32)
    points = way(means)
    assert points.shape == (120, 2)
    assert points.min() == pytest.approx(0, abs=1e-6)
    assert points.max() == pytest.approx(1, abs=1e-6)
    assert (points.min(0) + points.max(0)) / 2 == pytest.approx(0.5, abs=1e-6)
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert np.array_equal(groups[distances.argmin(1)], groups)
    assert np.array_equal(way(means), points)  # the same each time


@pytest.mark.parametrize("way", [map_points, arrange_points])
def test_a_map_runs_on_one_core(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """With OpenBLAS's threads, it takes up to sixty times as long on a busy machine."""
    threads, eigh = list[int](), np.linalg.eigh

    def count_threads(matrix: Doubles) -> tuple[Doubles, Doubles]:
        threads.extend(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
        return eigh(matrix)

    monkeypatch.setattr(np.linalg, "eigh", count_threads)
    with threadpool_limits(2):
        way(unit(np.random.default_rng(0), 20, 16))
    assert set(threads) == {1}


def test_equal_images_have_equal_points() -> None:
    means = unit(np.random.default_rng(1), 30, 16)
    points = map_points(np.concatenate([means, means]))
    assert points[:30] == pytest.approx(points[30:], abs=1e-5)


def test_neighbours_on_an_arranged_map_are_those_of_the_vectors() -> None:
    """Many groups do not fit into two principal components."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(12), 20)
    means = unit(rng, 12, 32)[groups] + 0.1 * rng.standard_normal((240, 32)).astype(np.float32)
    kept = [trustworthiness(means, way(means), n_neighbors=10) for way in (map_points, arrange_points)]
    assert kept[1] > max(0.95, kept[0])


@pytest.mark.parametrize("count", [0, 1, 2, 3, MIN_ARRANGED])
def test_few_or_equal_images_have_a_map(count: int) -> None:
    equal = np.full((count, 16), 0.25, np.float32)
    for means in (unit(np.random.default_rng(2), count, 16), equal):
        for way in (map_points, arrange_points) if count >= MIN_ARRANGED else (map_points,):
            points = way(means)
            assert points.shape == (count, 2)
            assert np.isfinite(points).all()
            assert ((points >= 0) & (points <= 1)).all()
