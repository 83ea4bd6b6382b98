"""The training-free ladder on the summary head's interface: Dense-CLIP, Cluster-CLIP. Plain CLIP is `global_head`."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.pools import Pool
from forclip.models.ward import ward_labels


class Head(Protocol):
    """What turns tokens into image embeddings. SummaryHead and the baselines are heads."""

    @property
    def grid(self) -> tuple[int, int]: ...

    def __call__(self, tokens: Tensor) -> Tensor:
        """[B, T, W] -> unit vectors [B, N, D]."""

    def places(self, tokens: Tensor) -> Tensor:
        """How much each position has to do with each vector, not negative. [B, T, W] -> [B, N, P]."""


class DenseHead(nn.Module):
    """Dense-CLIP: one vector per position, by the value path of CLIP's last attention (MaskCLIP, arXiv 2112.01071)."""

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self.pool = pool

    @property
    def grid(self) -> tuple[int, int]:
        return self.pool.grid

    def forward(self, tokens: Tensor) -> Tensor:
        return F.normalize(self.pool.dense(self.pool.stage(tokens)), dim=-1)

    def places(self, tokens: Tensor) -> Tensor:
        one_each = torch.eye(self.pool.num_positions, device=tokens.device)
        return one_each.expand(len(tokens), -1, -1)


class ClusterHead(nn.Module):
    """Cluster-CLIP: the means of k Ward clusters of Dense-CLIP vectors (arXiv 2309.14999). Runs on the CPU."""

    def __init__(self, pool: Pool, num_clusters: int) -> None:
        """Raises ValueError unless 1 <= num_clusters <= positions."""
        super().__init__()
        if not 1 <= num_clusters <= pool.num_positions:
            raise ValueError(f"{num_clusters} clusters asked for, but the model has {pool.num_positions} positions")
        self.dense, self.num_clusters = DenseHead(pool), num_clusters

    @property
    def grid(self) -> tuple[int, int]:
        return self.dense.grid

    def membership(self, dense: Tensor) -> Tensor:
        """dense: unit vectors [B, P, D]. Returns one-hot [B, k, P]."""
        found = [ward_labels(d, self.grid, [self.num_clusters])[0] for d in dense.float().cpu().numpy()]
        labels = torch.tensor([f.tolist() for f in found], device=dense.device)
        return F.one_hot(labels, self.num_clusters).transpose(1, 2).to(dense.dtype)

    def forward(self, tokens: Tensor) -> Tensor:
        dense = self.dense(tokens)
        return F.normalize(self.membership(dense) @ dense, dim=-1)

    def places(self, tokens: Tensor) -> Tensor:
        return self.membership(self.dense(tokens))
