"""SUM-CLIP: CLIP's own pooling head as a decoder of N query tokens."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.cluster_seeds import cluster_offsets
from forclip.models.pools import Pool
from forclip.models.query_seeds import window_bias


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
        return self.pool.weights(staged, self._queries(staged), self.bias)

    def places(self, tokens: Tensor) -> Tensor:
        """How much each position gives to each vector: the attention to it, times how far its own value points the
        vector's way. [B, T, W] -> [B, N, P]; the attention alone where no value does."""
        staged = self.pool.stage(tokens)
        queries = self._queries(staged)
        vectors = F.normalize(self.pool(staged, queries, self.bias), dim=-1)
        looked = self.pool.weights(staged, queries, self.bias)
        given = looked * (vectors @ self.pool.dense(staged).transpose(1, 2)).clamp(min=0)
        return torch.where((given > 0).any(-1, keepdim=True), given, looked)

    def _queries(self, staged: Tensor) -> Tensor:
        """[B, T, W] -> [B, N, W]."""
        return self.pool.own_query(staged) + self.offsets


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
