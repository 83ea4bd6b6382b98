"""Ward clustering against scikit-learn's AgglomerativeClustering, and Cluster-CLIP's vectors."""

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.feature_extraction.image import grid_to_graph
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.baselines import ClusterHead, DenseHead, ward_labels
from forclip.models.pools import AveragePool
from forclip.types import Floats, Ints

GRIDS = [(4, 4), (3, 7), (6, 2), (1, 5)]


def unit_map(seed: int, grid: tuple[int, int], dim: int = 6) -> Floats:
    vectors = np.random.default_rng(seed).normal(size=(grid[0] * grid[1], dim))
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def by_sklearn(vectors: Floats, grid: tuple[int, int], num_clusters: int) -> Ints:
    clustering = AgglomerativeClustering(num_clusters, linkage="ward", connectivity=grid_to_graph(*grid))
    labels: Ints = clustering.fit(vectors).labels_
    return labels


def same_cluster(labels: Ints) -> np.ndarray:
    """A partition without regard to its labels. [P] -> [P, P]."""
    return np.equal.outer(labels, labels)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seed", range(4))
def test_partitions_are_sklearns(grid: tuple[int, int], seed: int) -> None:
    vectors = unit_map(seed, grid)
    counts = [3, 1, len(vectors), 2, 5]
    for num_clusters, labels in zip(counts, ward_labels(vectors, grid, counts), strict=True):
        assert sorted(set(labels.tolist())) == list(range(num_clusters))
        np.testing.assert_array_equal(same_cluster(labels), same_cluster(by_sklearn(vectors, grid, num_clusters)))


def test_partitions_are_sklearns_from_100_clusters_on() -> None:
    """sklearn then stops its tree early."""
    grid = (12, 11)
    vectors = unit_map(9, grid)
    (labels,) = ward_labels(vectors, grid, [110])
    np.testing.assert_array_equal(same_cluster(labels), same_cluster(by_sklearn(vectors, grid, 110)))


def test_clusters_are_connected_on_the_grid() -> None:
    """The ends of a row are equal, but separated by another value."""
    near, far = [1.0, 0.0], [0.0, 1.0]
    vectors = np.array([near, near, far, near, near], np.float32)
    (labels,) = ward_labels(vectors, (1, 5), [3])
    assert same_cluster(labels)[0].tolist() == [True, True, False, False, False]


def average_pool(grid: tuple[int, int]) -> AveragePool:
    torch.manual_seed(0)
    return AveragePool(6, nn.Linear(6, 5), grid, 5)


@pytest.mark.parametrize(("grid", "num_clusters"), [((3, 4), 5), ((2, 3), 1), ((2, 2), 4)])
def test_cluster_vectors_are_means_of_dense_vectors(grid: tuple[int, int], num_clusters: int) -> None:
    pool = average_pool(grid)
    tokens = torch.randn(3, grid[0] * grid[1], 6, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = ClusterHead(pool, num_clusters)(tokens)
        dense = DenseHead(pool)(tokens)
    assert found.shape == (3, num_clusters, 5)
    for image, vectors in zip(found, dense, strict=True):
        labels = by_sklearn(vectors.numpy(), grid, num_clusters)
        means = [vectors[torch.from_numpy(labels == k)].mean(0) for k in range(num_clusters)]
        torch.testing.assert_close(in_order(image), in_order(F.normalize(torch.stack(means), dim=-1)))


def in_order(vectors: Tensor) -> Tensor:
    """Rows by their first entry: a set of vectors has no order."""
    return vectors[vectors[:, 0].argsort()]


def test_cluster_position_weights_are_a_partition() -> None:
    head = ClusterHead(average_pool((3, 4)), 5)
    tokens = torch.randn(2, 12, 6, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        weights = head.position_weights(tokens)
        means = F.normalize(weights @ DenseHead(head.pool)(tokens), dim=-1)
        torch.testing.assert_close(means, head(tokens))
    assert weights.shape == (2, 5, 12)
    assert torch.equal(weights.sum(1), torch.ones(2, 12))
    assert set(weights.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("num_clusters", [0, 13])
def test_an_impossible_number_of_clusters_is_refused(num_clusters: int) -> None:
    with pytest.raises(ValueError, match=f"{num_clusters} clusters"):
        ClusterHead(average_pool((3, 4)), num_clusters)
