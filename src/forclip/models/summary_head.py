"""SUM-CLIP: CLIP's own pooling head as a decoder of N query tokens."""

import copy
import math

import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.compute import single_precision, widen
from forclip.models.pools import Pool

_PREFIX_BIAS = -4.0  # windows almost ignore the mean or class token, which sees the whole image
_STEPS, _IMAGES_PER_STEP, _RATE = 100, 16, 0.1
_NO_ATTENTION = 1e-6  # a share of the attention below this counts as none


class SummaryHead(nn.Module):
    """N query tokens attend to an image's tokens through a pretrained pool (FOR, arXiv 2412.18806).

    A query token is the pool's pretrained query plus a learned offset, and an additive attention bias over the
    attended tokens. With one query token, zero offset and zero bias, the output is CLIP's pooled image embedding.

    Plain CLIP's embedding is the better one for large objects. So it can have a share in each vector: the output is
    (1 - pooled_share) * own + pooled_share * pooled, before the normalisation to unit length. With a share of 1, all
    vectors are plain CLIP's.
    """

    pooled_share: Tensor

    def __init__(
        self, pool: Pool, offsets: Tensor, bias: Tensor | None = None, pooled: Pool | None = None, share: float = 0.0
    ) -> None:
        """offsets: [N, W], copied; bias: [N, L], copied, None for zeros; pool: not copied, trained with the head.

        pooled: the pool that plain CLIP's embedding comes from, which stays frozen; None for no share.
        """
        super().__init__()
        if bias is None:
            bias = torch.zeros(len(offsets), pool.num_prefix + pool.num_positions)
        assert offsets.shape == (len(bias), pool.width)
        assert 0 <= share <= 1
        assert pooled is not None or share == 0
        self.pool, self.grid = pool, pool.grid
        self.offsets = nn.Parameter(offsets.clone())
        self.bias = nn.Parameter(bias.clone())
        self.pooled = None if pooled is None else pooled.requires_grad_(False)
        self.register_buffer("pooled_share", torch.tensor(share))

    @property
    def num_query_tokens(self) -> int:
        return len(self.offsets)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed images. Backbone tokens [B, T, W] -> unit vectors [B, N, D], not in half precision."""
        return F.normalize(widen(self.outputs(tokens)), dim=-1)

    def embed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the vectors of `forward` and their `position_weights`, from one pass."""
        staged = self.pool.stage(tokens)
        queries = self._queries(staged)
        own = self.pool(staged, queries, self.bias)
        vectors = F.normalize(widen(self._with_pooled(own, tokens)), dim=-1)
        return vectors, self._weights(staged, queries, own)

    def outputs(self, tokens: Tensor) -> Tensor:
        """Embed images without the final normalisation. [B, T, W] -> [B, N, D]."""
        return self._with_pooled(self.own_outputs(tokens), tokens)

    def _with_pooled(self, own: Tensor, tokens: Tensor) -> Tensor:
        """Mix plain CLIP's share into the outputs of the query tokens [B, N, D]."""
        if self.pooled is None:
            return own
        own = widen(own)
        return torch.lerp(own, self.pooled_outputs(tokens).to(own), self.pooled_share.to(own))

    def own_outputs(self, tokens: Tensor) -> Tensor:
        """Return the outputs of the query tokens alone, without plain CLIP's share. [B, T, W] -> [B, N, D]."""
        staged = self.pool.stage(tokens)
        return self.pool(staged, self._queries(staged), self.bias)

    def pooled_outputs(self, tokens: Tensor) -> Tensor:
        """Return plain CLIP's output, by the frozen pool. [B, T, W] -> [B, 1, D], not normalised."""
        assert self.pooled is not None
        staged = self.pooled.stage(tokens)
        return self.pooled(staged, self.pooled.pretrained_query(staged))

    def own_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the query tokens and their pool, without the frozen pool of plain CLIP's share."""
        return [self.offsets, self.bias, *self.pool.parameters()]

    def with_share(self, share: float) -> "SummaryHead":
        """Return a copy with another share of plain CLIP's embedding.

        A head that has no share yet takes it from its own pool, which must not have been trained.
        """
        pooled = copy.deepcopy(self.pool if self.pooled is None else self.pooled) if share > 0 else None
        head = SummaryHead(copy.deepcopy(self.pool), self.offsets.detach(), self.bias.detach(), pooled, share)
        return head.to(self.offsets.device).train(self.training)

    def attention(self, tokens: Tensor) -> Tensor:
        """Return how much each query token attends to each position: [B, N, P]. A row sums to at most 1."""
        staged = self.pool.stage(tokens)
        return self.pool.attention(staged, self._queries(staged), self.bias)

    def position_weights(self, tokens: Tensor) -> Tensor:
        """Return how much each position contributes to each vector, not negative. [B, T, W] -> [B, N, P].

        Not in half precision, so that a region does not depend on the number format.
        The attention to a position, times the projection of the position's dense vector onto the output vector, cut
        off at 0. Where this is 0 at all positions, the attention alone. Plain CLIP's share is left out: it comes from
        the whole image.
        """
        staged = self.pool.stage(tokens)
        queries = self._queries(staged)
        return self._weights(staged, queries, self.pool(staged, queries, self.bias))

    def _weights(self, staged: Tensor, queries: Tensor, own: Tensor) -> Tensor:
        """Return `position_weights` from the pool's tokens, its queries and its outputs [B, N, D]."""
        attention, dense = self.pool.attention(staged, queries, self.bias), widen(self.pool.dense(staged))
        with single_precision(own):
            weights = attention * (F.normalize(widen(own), dim=-1) @ dense.transpose(1, 2)).clamp(min=0)
        return torch.where((weights > 0).any(-1, keepdim=True), weights, attention)

    def _queries(self, staged: Tensor) -> Tensor:
        """[B, T, W] -> [B, N, W]."""
        return self.pool.pretrained_query(staged) + self.offsets


def global_head(pool: Pool) -> SummaryHead:
    """Plain CLIP: one query token, the pretrained model's own."""
    return SummaryHead(pool, torch.zeros(1, pool.width))


def window_seeded_head(pool: Pool, num_query_tokens: int) -> SummaryHead:
    """Start query tokens as soft spatial windows that tile the image. Raises ValueError for less than one token."""
    if num_query_tokens < 1:
        raise ValueError(f"a summary head needs at least one query token, not {num_query_tokens}")
    bias = window_bias(num_query_tokens, pool.grid, pool.num_prefix)
    return SummaryHead(pool, torch.zeros(num_query_tokens, pool.width), bias)


def noise_seeded_head(pool: Pool, num_query_tokens: int, scale: float, seed: int) -> SummaryHead:
    """Start query tokens as the pretrained query plus Gaussian noise of standard deviation `scale`, without bias."""
    generator = torch.Generator().manual_seed(seed)
    return SummaryHead(pool, scale * torch.randn(num_query_tokens, pool.width, generator=generator))


def window_centres(num_windows: int, aspect: float = 1.0) -> Tensor:
    """Return the centres of windows that tile an image in rows: [N, 2] as (y, x), fractions of height and width.

    aspect: the image's width over its height; windows are about as wide as high. The rows hold as equal numbers as
    possible, the longer ones in the middle: 10 windows of a square are rows of 3, 4 and 3.
    """
    num_rows = min(num_windows, max(1, round(math.sqrt(num_windows / aspect))))
    counts = [num_windows // num_rows] * num_rows
    from_middle = sorted(range(num_rows), key=lambda r: abs(r - (num_rows - 1) / 2))
    for row in from_middle[: num_windows % num_rows]:
        counts[row] += 1
    centres = [((r + 0.5) / num_rows, (c + 0.5) / n) for r, n in enumerate(counts) for c in range(n)]
    return torch.tensor(centres)


def window_bias(num_windows: int, grid: tuple[int, int], num_prefix: int) -> Tensor:
    """Return the attention bias [N, num_prefix + P] whose softmax is a Gaussian window around each centre.

    The standard deviation is half the distance between neighbouring centres. Distances are in units of the grid's
    height, so that windows are round on a grid that is wider than high.
    """
    rows, columns = grid
    aspect = columns / rows
    y = (torch.arange(rows) + 0.5) / rows
    x = (torch.arange(columns) + 0.5) / columns * aspect
    positions = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flatten(0, 1)
    deviation = 0.5 * math.sqrt(aspect) / math.sqrt(num_windows)
    centres = window_centres(num_windows, aspect) * torch.tensor([1.0, aspect])
    squared = torch.cdist(centres, positions).square()
    prefix = torch.full((num_windows, num_prefix), _PREFIX_BIAS)
    return torch.cat([prefix, -squared / (2 * deviation**2)], 1)


def cluster_seeded_head(pool: Pool, tokens: Tensor, num_query_tokens: int, seed: int) -> SummaryHead:
    """Start each query token by attending to one cluster of positions, wherever it is in an image, without bias.

    tokens: [I, T, W] float32, a sample of training images. The clusters are k-means of the Dense-CLIP vectors over all
    images (scikit-learn's MiniBatchKMeans). Adam then raises the share of each query's attention on its own cluster;
    the pool stays unchanged. Raises ValueError for fewer positions than clusters.
    """
    with torch.no_grad():
        staged = pool.stage(tokens)
        dense = F.normalize(pool.dense(staged), dim=-1)
        size = float(pool.pretrained_query(staged).std())
    positions = dense.flatten(0, 1).cpu().numpy()
    if len(positions) < num_query_tokens:
        raise ValueError(f"{num_query_tokens} clusters need as many positions, but there are {len(positions)}")
    labels = MiniBatchKMeans(num_query_tokens, random_state=seed, n_init=3).fit_predict(positions)
    one_hot = F.one_hot(torch.from_numpy(labels).long(), num_query_tokens)
    members = one_hot.unflatten(0, dense.shape[:2]).to(staged).transpose(1, 2)  # [I, N, P]
    generator = torch.Generator().manual_seed(seed)
    # Not zero, or all queries would have the same gradient where a pool normalises them.
    start = 0.01 * size * torch.randn(num_query_tokens, pool.width, generator=generator)
    offsets = start.to(staged.device).requires_grad_()
    optimizer = torch.optim.Adam([offsets], lr=_RATE * size)
    for _ in range(_STEPS):
        rows = torch.randperm(len(staged), generator=generator)[:_IMAGES_PER_STEP]
        part, belongs = staged[rows], members[rows]
        shares = (pool.attention(part, pool.pretrained_query(part) + offsets) * belongs).sum(-1)
        loss = -(shares + _NO_ATTENTION).log()[belongs.any(-1)].mean()
        (offsets.grad,) = torch.autograd.grad(loss, [offsets])
        optimizer.step()
    return SummaryHead(pool, offsets.detach())
