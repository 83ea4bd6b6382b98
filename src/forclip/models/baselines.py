"""The training-free baselines, with the summary head's interface: Dense-CLIP and Cluster-CLIP.

Plain CLIP is `forclip.models.summary_head.global_head`.
"""

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sklearn.cluster import ward_tree
from sklearn.feature_extraction.image import grid_to_graph
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.config import HeadConfig
from forclip.models.backbone import Backbone
from forclip.models.compute import single_precision, widen
from forclip.models.pools import Pool
from forclip.models.summary_head import global_head, window_seeded_head
from forclip.types import Floats, Ints


class Head(Protocol):
    """What turns backbone tokens into an image's vectors: the summary head and the baselines.

    A head may have `embed(tokens)`, which returns vectors and position weights from one pass.
    """

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of the positions."""

    def __call__(self, tokens: Tensor) -> Tensor:
        """Embed images. [B, T, W] -> unit vectors [B, N, D], not in half precision."""

    def position_weights(self, tokens: Tensor) -> Tensor:
        """Return how much each position contributes to each vector, not negative. [B, T, W] -> [B, N, P]."""


class DenseHead(nn.Module):
    """Dense-CLIP: one vector per position, by the value path of CLIP's last attention (MaskCLIP, arXiv 2112.01071)."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool, self.grid = pool, pool.grid

    def forward(self, tokens: Tensor) -> Tensor:
        return F.normalize(widen(self.pool.dense(self.pool.stage(tokens))), dim=-1)

    def position_weights(self, tokens: Tensor) -> Tensor:
        return torch.eye(self.pool.num_positions, device=tokens.device).expand(len(tokens), -1, -1)

    def embed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self(tokens), self.position_weights(tokens)


class ClusterHead(DenseHead):
    """Cluster-CLIP: the means of k Ward clusters of Dense-CLIP vectors (arXiv 2309.14999). Clusters on the CPU."""

    def __init__(self, pool: Pool, num_clusters: int) -> None:
        """Raises ValueError unless 1 <= num_clusters <= positions."""
        super().__init__(pool)
        if not 1 <= num_clusters <= pool.num_positions:
            raise ValueError(f"{num_clusters} clusters are not possible: the model has {pool.num_positions} positions")
        self.num_clusters = num_clusters

    def membership(self, dense: Tensor) -> Tensor:
        """Cluster each image's positions. Unit vectors [B, P, D] -> one-hot [B, k, P]."""
        labels = np.stack([ward_labels(d, self.grid, [self.num_clusters])[0] for d in dense.float().cpu().numpy()])
        one_hot = F.one_hot(torch.from_numpy(labels).to(dense.device), self.num_clusters)
        return one_hot.transpose(1, 2).to(dense.dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embed(tokens)[0]

    def position_weights(self, tokens: Tensor) -> Tensor:
        return self.embed(tokens)[1]

    def embed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        dense = super().forward(tokens)
        membership = self.membership(dense)
        with single_precision(dense):
            return F.normalize(membership @ dense, dim=-1), membership


def ward_labels(vectors: Floats, grid: tuple[int, int], num_clusters: Sequence[int]) -> list[Ints]:
    """Cluster positions for several numbers of clusters, all from one tree.

    vectors: [P, D], row-major over grid (rows, columns). Returns for each k the labels [P] in 0..k-1. The partitions
    equal sklearn.cluster.AgglomerativeClustering(k, linkage="ward", connectivity=grid_to_graph(*grid)).
    """
    children = ward_tree(vectors, connectivity=_connectivity(grid), n_clusters=min(num_clusters))[0]
    labels = []
    for k in num_clusters:
        root = np.arange(len(vectors) + len(children))
        # Apply the first merges, from the last of them on, so that every node already knows its root.
        for step in reversed(range(len(vectors) - k)):
            root[children[step]] = root[len(vectors) + step]
        labels.append(np.unique(root[: len(vectors)], return_inverse=True)[1])
    return labels


@cache
def _connectivity(grid: tuple[int, int]) -> csr_matrix:
    return csr_matrix(grid_to_graph(*grid))


def training_free_head(backbone: Backbone, name: str, num_query_tokens: int = HeadConfig.num_query_tokens) -> Head:
    """Build a frozen head in eval mode on the backbone's device.

    name: `global`, `dense`, `cluster_K`, or `sum`, the untrained summary head with windows. Raises ValueError for any
    other name, and for more clusters than the model has positions.
    """
    pool = backbone.new_pool().eval().requires_grad_(False)
    kind, _, count = name.partition("_")
    match kind:
        case "global" | "sum" if not count:
            head = global_head(pool) if kind == "global" else window_seeded_head(pool, num_query_tokens)
            return head.to(backbone.device).eval().requires_grad_(False)
        case "dense" if not count:
            return DenseHead(pool)
        case "cluster" if count.isdigit():
            return ClusterHead(pool, int(count))
    raise ValueError(f"head {name!r} is unknown: sum, global, dense or cluster_K, such as cluster_10")
