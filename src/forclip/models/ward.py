"""Ward clusters of positions on a grid, through scikit-learn's merge tree."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.cluster import ward_tree
from sklearn.feature_extraction.image import grid_to_graph

from forclip.types import Floats, Ints


@cache
def _connectivity(grid: tuple[int, int]) -> csr_matrix:
    return csr_matrix(grid_to_graph(*grid))


def ward_labels(vectors: Floats, grid: tuple[int, int], num_clusters: Sequence[int]) -> list[Ints]:
    """The cluster of each position for several numbers of clusters, from one tree.

    vectors: [P, D], positions of the grid in row-major order. Returns, for each k, labels [P] in 0..k-1. The
    partitions are those of sklearn.cluster.AgglomerativeClustering(k, linkage="ward", connectivity=grid_to_graph).
    """
    children = ward_tree(vectors, connectivity=_connectivity(grid), n_clusters=min(num_clusters))[0]
    return [_cut(children, len(vectors), k) for k in num_clusters]


def _cut(children: Ints, num_leaves: int, num_clusters: int) -> Ints:
    """Undoes the last merges: what the first num_leaves - num_clusters merges have joined is a cluster."""
    root = np.arange(num_leaves + len(children))
    num_merges = num_leaves - num_clusters
    # From the last merge kept to the first, so that every node already knows its root.
    for step in range(num_merges - 1, -1, -1):
        root[children[step]] = root[num_leaves + step]
    return np.unique(root[:num_leaves], return_inverse=True)[1]
