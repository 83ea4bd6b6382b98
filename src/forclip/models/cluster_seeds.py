"""Query tokens that start by looking at what belongs together: k-means clusters of positions over many images."""

import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor
from torch.nn import functional as F

from forclip.models.pools import Pool

_STEPS, _IMAGES_A_STEP, _RATE = 100, 16, 0.1
_UNSEEN = 1e-6  # a cluster's share of the attention that counts as none at all


def cluster_offsets(pool: Pool, tokens: Tensor, num_clusters: int, seed: int) -> Tensor:
    """Offsets [N, W] of query tokens, each of which looks at one cluster of positions wherever it is in an image.

    tokens: [I, T, W] float32, a sample of training images. The clusters are k-means' (scikit-learn's MiniBatchKMeans)
    of the Dense-CLIP vectors that Cluster-CLIP groups within each image, here across images. The offsets are found
    by raising the share of a query's attention that falls on its own cluster, by Adam, the pool held still.
    Raises ValueError where there are fewer positions than clusters.
    """
    with torch.no_grad():
        staged = pool.stage(tokens)
        dense = F.normalize(pool.dense(staged), dim=-1)
        size = pool.own_query(staged).std()
    positions = dense.flatten(0, 1).cpu().numpy()
    if len(positions) < num_clusters:
        raise ValueError(f"{num_clusters} clusters asked for, but there are {len(positions)} positions to cluster")
    found = MiniBatchKMeans(num_clusters, random_state=seed, n_init=3).fit_predict(positions)
    members = F.one_hot(torch.from_numpy(found).long(), num_clusters).unflatten(0, dense.shape[:2]).to(staged)
    return _offsets_that_look_at(pool, staged, members.transpose(1, 2), float(size), seed)


def _offsets_that_look_at(pool: Pool, staged: Tensor, members: Tensor, size: float, seed: int) -> Tensor:
    """members: [I, N, P], one-hot over N. size: of the pretrained query's entries. Returns [N, W]."""
    generator = torch.Generator().manual_seed(seed)
    # Not zero, or all queries would have the same gradient where a pool normalises them.
    start = 0.01 * size * torch.randn(members.shape[1], pool.width, generator=generator)
    offsets = start.to(staged.device).requires_grad_()
    optimizer = torch.optim.Adam([offsets], lr=_RATE * size)
    for _ in range(_STEPS):
        rows = torch.randperm(len(staged), generator=generator)[:_IMAGES_A_STEP]
        part, belongs = staged[rows], members[rows]
        shares = (pool.weights(part, pool.own_query(part) + offsets) * belongs).sum(-1)
        there = belongs.any(-1)
        loss = -(shares + _UNSEEN).log()[there].mean()
        (offsets.grad,) = torch.autograd.grad(loss, [offsets])
        optimizer.step()
    return offsets.detach()
