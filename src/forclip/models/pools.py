"""CLIP's pretrained pooling heads, opened up so that any number of queries can attend to the same tokens.

Shapes: B images; T tokens of width W, as the backbone returns them; L attended tokens, of which the first
`num_prefix` have no position (class and register tokens, a mean token); P positions of a grid, row-major; N queries of
width W (CoCa's tokens alone have another width than its queries); D dimensions of the text space.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.attention import absorbing_is_faster, attend, attend_absorbed, attention_weights


class Pool(nn.Module, ABC):
    """A pretrained pooling head: queries attend to an image's tokens, and the results go to the text space.

    A subclass is one family of CLIP models. It sets `q_proj`, `k_proj` and `v_proj`, and implements `pretrained_query`
    and `project`; it overrides `attended`, `positions` and `normalise` where the family differs from the default. It
    may set `position_bias`, [H, L], a bias of each head towards each attended token that all queries share.

    A pool of any family has two optional parts, each applied in one place. `tower_stage`, [B, T', W'] -> [B, T, W], is
    the image tower's last stage, moved into the pool so that it can be trained; `stage` applies it. `output`,
    [D] -> [D], aligns the vectors with a domain (`fit_alignment`); `finish` applies it.

    Callers call `stage` once and pass its result as `tokens` to everything else.
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module

    def __init__(self, grid: tuple[int, int], width: int, dim: int, num_heads: int, num_prefix: int) -> None:
        """grid: (rows, columns) of the positions; width: W, of the queries; dim: D."""
        super().__init__()
        self.grid, self.width, self.dim = grid, width, dim
        self.num_heads, self.num_prefix, self.num_positions = num_heads, num_prefix, grid[0] * grid[1]
        self.position_bias: nn.Parameter | None = None
        self.tower_stage: nn.Module | None = None
        self.output: nn.Linear | None = None

    @abstractmethod
    def pretrained_query(self, tokens: Tensor) -> Tensor:
        """Return the query of the pretrained model, without any learned offset. [B, T, W] -> [B, 1, W]."""

    @abstractmethod
    def project(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        """Apply what follows the attention in this family. Both [B, N, W] -> [B, N, D]; residual: the queries."""

    def attended(self, tokens: Tensor) -> Tensor:
        """Return the tokens that queries attend to, before `normalise`. [B, T, W] -> [B, L, W]."""
        return tokens

    def positions(self, tokens: Tensor) -> Tensor:
        """Return the inputs of the value path at each position, before `normalise`. [B, T, W] -> [B, P, W]."""
        return tokens[:, self.num_prefix :]

    def normalise(self, x: Tensor) -> Tensor:
        """Apply the layer norm before the projections, if the family has one."""
        return x

    @final
    def stage(self, tokens: Tensor) -> Tensor:
        """Apply the tower's last stage, if it belongs to this pool. Backbone tokens -> the pool's tokens [B, T, W]."""
        return tokens if self.tower_stage is None else self.tower_stage(tokens)

    @final
    def finish(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        """Project to the text space and align, if the pool is aligned. Both [B, N, W] -> [B, N, D], not normalised."""
        vectors = self.project(attention_output, residual)
        return vectors if self.output is None else self.output(vectors)

    def forward(self, tokens: Tensor, queries: Tensor, bias: Tensor | None = None) -> Tensor:
        """Pool the tokens once per query.

        tokens: [B, T, W]; queries: [B, N, W]; bias: [N, L], added to the attention logits of every head. Returns
        [B, N, D], not normalised. With `pretrained_query`, no bias and no alignment this is CLIP's image embedding.
        """
        inputs, projected, bias = self._inputs(tokens, queries, bias)
        k_proj, v_proj, num_heads = self.k_proj, self.v_proj, self.num_heads
        absorb = absorbing_is_faster(projected.shape[1], inputs.shape[1], inputs.shape[2], num_heads)
        if absorb and isinstance(k_proj, nn.Linear) and isinstance(v_proj, nn.Linear):
            mixed = attend_absorbed(projected, inputs, k_proj, v_proj, num_heads, bias)
        else:
            mixed = attend(projected, k_proj(inputs), v_proj(inputs), num_heads, bias)
        return self.finish(mixed, queries)

    def attention(self, tokens: Tensor, queries: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the attention weights over positions, averaged over heads: [B, N, P]. A row sums to at most 1."""
        inputs, projected, bias = self._inputs(tokens, queries, bias)
        return attention_weights(projected, self.k_proj(inputs), self.num_heads, bias)[..., self.num_prefix :]

    def dense(self, tokens: Tensor) -> Tensor:
        """Map each position to the text space by the value path alone (MaskCLIP, arXiv 2112.01071, section 3.2).

        [B, T, W] -> [B, P, D], not normalised. Nothing is mixed between positions.
        """
        positions = self.positions(tokens)
        return self.finish(self.v_proj(self.normalise(positions)), positions)

    def query_key_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that decide only where queries attend: training them keeps outputs in CLIP's space."""
        own = [] if self.position_bias is None else [self.position_bias]
        return [*self.q_proj.parameters(), *self.k_proj.parameters(), *own]

    def stage_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the tower's last stage; none if it belongs to the backbone."""
        return [] if self.tower_stage is None else list(self.tower_stage.parameters())

    def train(self, mode: bool = True) -> "Pool":
        """Set the mode, but keep the tower's stage in eval mode: its batch statistics stay the pretrained ones."""
        super().train(mode)
        if self.tower_stage is not None:
            self.tower_stage.eval()
        return self

    def _inputs(self, tokens: Tensor, queries: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what is attended to [B, L, W], projected queries [B, N, W], and the bias with the pool's own added.

        The bias is [N, L], [H, N, L] or [H, 1, L].
        """
        if self.position_bias is not None:
            bias = self.position_bias[:, None] + (0 if bias is None else bias)
        return self.normalise(self.attended(tokens)), self.q_proj(self.normalise(queries)), bias


def upgrade_key(key: str) -> str:
    """Rename a state-dict key of forclip 0.1, where an aligned or staged pool held another pool as `inner`.

    `pool.inner.q_proj.weight` becomes `pool.q_proj.weight`; other keys stay.
    """
    return re.sub(r"\bpool\.(inner\.)+", "pool.", key)


def fit_alignment(outputs: Tensor, shrinkage: float) -> nn.Linear:
    """Fit ZCA whitening (Bell & Sejnowski 1997), shrunk towards no whitening.

    Directions that all images of a domain share drown those that distinguish them. outputs: [M, D], a pool's outputs
    in the domain, not normalised. shrinkage: share of the identity in the covariance, 0..1 (Ledoit & Wolf 2004). The
    covariance is taken over unit vectors, so that long vectors do not dominate. Returns the map [D] -> [D] to apply
    before normalisation, `Pool.output`.
    """
    norms = outputs.norm(dim=-1, keepdim=True)
    unit = outputs / norms.clamp(min=1e-12)
    mean = unit.mean(0)
    centred = unit - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(unit))
    values = values.clamp(min=0) / values.mean().clamp(min=1e-12)
    whiten = vectors @ torch.diag(((1 - shrinkage) * values + shrinkage).clamp(min=1e-6).rsqrt()) @ vectors.T
    output = nn.Linear(len(mean), len(mean))
    with torch.no_grad():
        output.weight.copy_(whiten)
        output.bias.copy_(-F.linear(mean * norms.mean(), whiten))
    return output


class MeanTokenPool(Pool):
    """CLIP ResNet's AttentionPool2d: the query is the mean of the positions (arXiv 2103.00020, section 2.4).

    tokens: the feature map's positions [B, P, W], without mean token or positional embedding.
    """

    def __init__(
        self,
        q_proj: nn.Linear,
        k_proj: nn.Linear,
        v_proj: nn.Linear,
        c_proj: nn.Module,
        positional_embedding: Tensor,
        num_heads: int,
        grid: tuple[int, int],
        dim: int,
    ) -> None:
        """c_proj: [W] -> [D]; positional_embedding: [1 + P, W], the mean token's first."""
        super().__init__(grid, q_proj.in_features, dim, num_heads, num_prefix=1)
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = q_proj, k_proj, v_proj, c_proj
        self.positional_embedding = nn.Parameter(positional_embedding.clone())

    def attended(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positional_embedding

    def positions(self, tokens: Tensor) -> Tensor:
        return tokens  # MaskCLIP leaves the positional embedding out of the value path.

    def pretrained_query(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1, keepdim=True) + self.positional_embedding[:1]

    def project(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        return self.c_proj(attention_output)


@dataclass(frozen=True)
class Block:
    """A transformer block, taken apart: x + after_attention(out_proj(attention(norm(x)))), then x + mlp(x).

    q_proj, k_proj, v_proj: [W] -> [W'], with the norms of queries and keys and the rotation of keys, if there are any;
    out_proj: [W'] -> [W]; mlp: with its norm. position_bias: [H, L], of the class token's attention.
    """

    norm: nn.Module
    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Linear
    out_proj: nn.Module
    after_attention: nn.Module
    mlp: nn.Module
    num_heads: int
    position_bias: Tensor | None = None


class ClassTokenPool(Pool):
    """A ViT's last block, final norm and projection: the query is the class token as it enters that block.

    tokens: the inputs of the last block, [B, num_prefix + P, W]: the class token, register tokens, positions.
    """

    def __init__(
        self, block: Block, ln_post: nn.Module, proj: nn.Module, grid: tuple[int, int], dim: int, num_prefix: int = 1
    ) -> None:
        """ln_post: [W] -> [W]; proj: [W] -> [D]."""
        super().__init__(grid, block.v_proj.in_features, dim, block.num_heads, num_prefix)
        self.ln_1, self.q_proj, self.k_proj, self.v_proj = block.norm, block.q_proj, block.k_proj, block.v_proj
        self.out_proj, self.after_attention, self.mlp = block.out_proj, block.after_attention, block.mlp
        self.ln_post, self.proj = ln_post, proj
        if block.position_bias is not None:
            self.position_bias = nn.Parameter(block.position_bias.clone())

    def normalise(self, x: Tensor) -> Tensor:
        return self.ln_1(x)

    def pretrained_query(self, tokens: Tensor) -> Tensor:
        return tokens[:, :1]

    def project(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        x = residual + self.after_attention(self.out_proj(attention_output))
        x = x + self.mlp(x)
        return self.proj(self.ln_post(x))


class LatentPool(Pool):
    """SigLIP's and PE's MAP pool: the query is a learned latent (arXiv 2205.01580, as in timm's AttentionPoolLatent).

    tokens: the tower's output [B, num_prefix + P, W]. PE attends to its class token too, SigLIP has none.
    """

    def __init__(
        self,
        pool: Any,
        positional_embedding: Tensor | None,
        proj: nn.Module,
        grid: tuple[int, int],
        dim: int,
        num_prefix: int = 0,
    ) -> None:
        """pool: an AttentionPoolLatent, of which all but the fused projection is shared; positional_embedding:
        [num_prefix + P, W] or None; proj: [W] -> [D]."""
        latent = pool.latent.detach()[0, :1]
        super().__init__(grid, latent.shape[1], dim, pool.num_heads, num_prefix)
        k_proj, v_proj = split_linear(pool.kv.weight.chunk(2), pool.kv.bias)
        self.latent = nn.Parameter(latent.clone())
        self.q_proj = normed_heads(pool.q, pool.q_norm, pool.num_heads)
        self.k_proj, self.v_proj = normed_heads(k_proj, pool.k_norm, pool.num_heads), v_proj
        self.out_proj, self.mlp, self.proj = pool.proj, nn.Sequential(pool.norm, pool.mlp), proj
        self.positional_embedding = None if positional_embedding is None else nn.Parameter(positional_embedding.clone())

    def attended(self, tokens: Tensor) -> Tensor:
        return tokens if self.positional_embedding is None else tokens + self.positional_embedding

    def pretrained_query(self, tokens: Tensor) -> Tensor:
        return self.latent.expand(len(tokens), 1, -1)

    def project(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        x = self.out_proj(attention_output)
        return self.proj(x + self.mlp(x))


class ContrastivePool(Pool):
    """CoCa's attentional pooler (arXiv 2205.01917): the first of its learned queries gives the image embedding.

    tokens: the tower's output [B, 1 + P, W'], the class token first. W' may differ from the queries' width W.
    """

    def __init__(self, pooler: Any, ln_post: nn.Module, proj: nn.Module, grid: tuple[int, int], dim: int) -> None:
        """pooler: an open_clip AttentionalPooler, of which all but the projections is shared; ln_post: [W] -> [W];
        proj: [W] -> [D]."""
        attention = pooler.attn
        super().__init__(grid, attention.embed_dim, dim, attention.num_heads, num_prefix=1)
        if (fused := attention.in_proj_weight) is None:
            weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
        else:
            weights = fused.chunk(3)
        q_proj, self.k_proj, self.v_proj = split_linear(weights, attention.in_proj_bias)
        self.query = nn.Parameter(pooler.query.detach()[:1].clone())
        self.q_proj, self.ln_k = nn.Sequential(pooler.ln_q, q_proj), pooler.ln_k
        self.out_proj, self.ln_post, self.proj = attention.out_proj, ln_post, proj

    def attended(self, tokens: Tensor) -> Tensor:
        return self.ln_k(tokens)

    def positions(self, tokens: Tensor) -> Tensor:
        return self.ln_k(tokens[:, 1:])

    def pretrained_query(self, tokens: Tensor) -> Tensor:
        return self.query.expand(len(tokens), 1, -1)

    def project(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        return self.proj(self.ln_post(self.out_proj(attention_output)))


class AveragePool(Pool):
    """A pool for towers that average their positions. It starts as that average and can learn where to attend.

    Keys start at zero, so that all tokens weigh the same; values are the tokens themselves. tokens: [B, num_prefix + P,
    W]; a prefix only where the tower's average includes it.
    """

    def __init__(self, width: int, after: nn.Module, grid: tuple[int, int], dim: int, num_prefix: int = 0) -> None:
        """after: all that the tower does after averaging, [..., W] -> [..., D]."""
        super().__init__(grid, width, dim, num_heads=1, num_prefix=num_prefix)
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width), nn.Identity()
        nn.init.eye_(self.q_proj.weight)
        for parameter in (self.q_proj.bias, self.k_proj.weight, self.k_proj.bias):
            nn.init.zeros_(parameter)
        self.after = after

    def pretrained_query(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1, keepdim=True)

    def project(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        return self.after(attention_output)


def normed_heads(projection: nn.Module, norm: nn.Module, num_heads: int) -> nn.Module:
    """Normalise each head's slice of a projection, as qk-norm does; return the projection if there is no norm."""
    return projection if isinstance(norm, nn.Identity) else nn.Sequential(projection, _PerHead(norm, num_heads))


class _PerHead(nn.Module):
    """Apply a norm to each head's slice. [B, T, W] -> [B, T, W]."""

    def __init__(self, norm: nn.Module, num_heads: int) -> None:
        super().__init__()
        self.norm, self.num_heads = norm, num_heads

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.unflatten(-1, (self.num_heads, -1))).flatten(-2)


@torch.no_grad()
def split_linear(weights: Sequence[Tensor], bias: Tensor | None) -> list[nn.Linear]:
    """Build a layer from each part of a fused projection, as a copy. weights: [out, in] each; bias: [parts * out]."""
    layers = []
    for part, weight in enumerate(weights):
        layer = nn.Linear(weight.shape[1], len(weight), bias is not None, weight.device, weight.dtype)
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias.chunk(len(weights))[part])
        layers.append(layer)
    return layers
