"""SUM-CLIP: CLIP's own pooling head as a decoder of N query tokens."""

import math

import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.pools import Pool

_PREFIX_BIAS = -4.0  # a window hardly looks at the mean or class token, which sees the whole image


def window_centres(num_queries: int) -> Tensor:
    """Centres of num_queries windows that tile the unit square in rows. Returns [N, 2] as (y, x) in 0..1.

    The rows hold as equal numbers as possible, the longer ones in the middle: 10 gives rows of 3, 4 and 3.
    """
    num_rows = max(1, round(math.sqrt(num_queries)))
    counts = [num_queries // num_rows] * num_rows
    from_middle = sorted(range(num_rows), key=lambda r: abs(r - (num_rows - 1) / 2))
    for row in from_middle[: num_queries % num_rows]:
        counts[row] += 1
    centres = [((r + 0.5) / num_rows, (c + 0.5) / n) for r, n in enumerate(counts) for c in range(n)]
    return torch.tensor(centres)


def window_bias(num_queries: int, grid: tuple[int, int], num_prefix: int, sharpness: float = 1.0) -> Tensor:
    """Attention bias [N, num_prefix + P] whose softmax is a Gaussian window round each centre.

    The standard deviation is half the distance between neighbouring centres, divided by sharpness.
    """
    rows, columns = grid
    y = (torch.arange(rows) + 0.5) / rows
    x = (torch.arange(columns) + 0.5) / columns
    places = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)
    deviation = 0.5 / math.sqrt(num_queries) / sharpness
    squared = torch.cdist(window_centres(num_queries), places).square()
    prefix = torch.full((num_queries, num_prefix), _PREFIX_BIAS)
    return torch.cat([prefix, -squared / (2 * deviation**2)], 1)


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
        size = pool.pretrained_query(staged).std()
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
        shares = (pool.attention(part, pool.pretrained_query(part) + offsets) * belongs).sum(-1)
        there = belongs.any(-1)
        loss = -(shares + _UNSEEN).log()[there].mean()
        (offsets.grad,) = torch.autograd.grad(loss, [offsets])
        optimizer.step()
    return offsets.detach()


class SummaryHead(nn.Module):
    """N query tokens attend to an image's tokens through a pretrained pool (FOR, arXiv 2412.18806).

    A query token is the pool's own query plus a learned offset, and an additive attention bias over the attended
    tokens. With one query, offset and bias zero, the output is the pretrained global embedding.
    """

    def __init__(self, pool: Pool, offsets: Tensor, bias: Tensor) -> None:
        """offsets: [N, W]; bias: [N, L]. The pool is owned from here on, and may be trained."""
        super().__init__()
        assert offsets.shape == (len(bias), pool.width)
        self.pool = pool
        self.offsets = nn.Parameter(offsets.clone())
        self.bias = nn.Parameter(bias.clone())

    @property
    def num_query_tokens(self) -> int:
        return len(self.offsets)

    @property
    def grid(self) -> tuple[int, int]:
        return self.pool.grid

    def outputs(self, tokens: Tensor) -> Tensor:
        """[B, T, W] -> vectors as the pool gives them, [B, N, D], not unit."""
        staged = self.pool.stage(tokens)
        out: Tensor = self.pool(staged, self._queries(staged), self.bias)
        return out

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, T, W] -> unit vectors [B, N, D]."""
        return F.normalize(self.outputs(tokens), dim=-1)

    def attention(self, tokens: Tensor) -> Tensor:
        """How much each query token looks at each position. [B, T, W] -> [B, N, P]; a row sums to at most 1."""
        staged = self.pool.stage(tokens)
        return self.pool.attention(staged, self._queries(staged), self.bias)

    def position_weights(self, tokens: Tensor) -> Tensor:
        """How much each position gives to each vector: the attention to it, times how far its own value points the
        vector's way. [B, T, W] -> [B, N, P]; the attention alone where no value does."""
        staged = self.pool.stage(tokens)
        queries = self._queries(staged)
        vectors = F.normalize(self.pool(staged, queries, self.bias), dim=-1)
        looked = self.pool.attention(staged, queries, self.bias)
        given = looked * (vectors @ self.pool.dense(staged).transpose(1, 2)).clamp(min=0)
        return torch.where((given > 0).any(-1, keepdim=True), given, looked)

    def _queries(self, staged: Tensor) -> Tensor:
        """[B, T, W] -> [B, N, W]."""
        return self.pool.pretrained_query(staged) + self.offsets


def global_head(pool: Pool) -> SummaryHead:
    """Plain CLIP: the one query that the pretrained model asks."""
    num_attended = pool.num_prefix + pool.num_positions
    return SummaryHead(pool, torch.zeros(1, pool.width), torch.zeros(1, num_attended))


def window_seeded_head(pool: Pool, num_query_tokens: int) -> SummaryHead:
    """Queries that start as soft spatial windows tiling the image. Raises ValueError for less than one query."""
    if num_query_tokens < 1:
        raise ValueError(f"a summary head needs at least one query token, not {num_query_tokens}")
    bias = window_bias(num_query_tokens, pool.grid, pool.num_prefix)
    return SummaryHead(pool, torch.zeros(num_query_tokens, pool.width), bias)


def cluster_seeded_head(pool: Pool, tokens: Tensor, num_query_tokens: int, seed: int) -> SummaryHead:
    """Queries that start by looking at clusters of positions, without any bias; as cluster_offsets takes them."""
    offsets = cluster_offsets(pool, tokens, num_query_tokens, seed)
    return SummaryHead(pool, offsets, torch.zeros(num_query_tokens, pool.num_prefix + pool.num_positions))


def noise_seeded_head(pool: Pool, num_query_tokens: int, scale: float, seed: int) -> SummaryHead:
    """Queries that start as the pooled query plus Gaussian noise of this standard deviation, without any bias."""
    generator = torch.Generator().manual_seed(seed)
    offsets = scale * torch.randn(num_query_tokens, pool.width, generator=generator)
    return SummaryHead(pool, offsets, torch.zeros(num_query_tokens, pool.num_prefix + pool.num_positions))
