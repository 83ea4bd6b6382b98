"""CLIP's own pooling heads, opened up so that any number of queries can be asked of the same tokens.

Four families, one interface. `tokens` is what the backbone hands over, [B, T, W]: positions in row-major order, in
the class-token family after the class token. `attended` is what queries look at, [B, L, W]: `num_prefix` tokens
that are no position, then the positions.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from forclip.models.attention import absorbing_is_faster, attend, attend_absorbed, attention_weights


class Pool(nn.Module, ABC):
    """A pretrained pooling head. Subclasses own q_proj, k_proj and v_proj, and what comes after the attention.

    grid: (rows, columns) of positions; width: W; dim: D of the text space; num_prefix: attended tokens before the
    positions.
    """

    q_proj: nn.Module
    k_proj: nn.Module
    v_proj: nn.Module

    def __init__(self, grid: tuple[int, int], width: int, dim: int, num_heads: int, num_prefix: int) -> None:
        super().__init__()
        self.grid, self.width, self.dim = grid, width, dim
        self.num_heads, self.num_prefix = num_heads, num_prefix

    @property
    def num_positions(self) -> int:
        return self.grid[0] * self.grid[1]

    def stage(self, tokens: Tensor) -> Tensor:
        """What a pool does to tokens before all else, where it holds a part of the tower; heads call it once."""
        return tokens

    def stage_parameters(self) -> list[nn.Parameter]:
        """Those of `stage`."""
        return []

    @abstractmethod
    def attended(self, tokens: Tensor) -> Tensor:
        """What queries look at. [B, T, W] -> [B, num_prefix + positions, W]."""

    @abstractmethod
    def pretrained_query(self, tokens: Tensor) -> Tensor:
        """The query that the pretrained model itself asks. [B, T, W] -> [B, 1, W]."""

    @abstractmethod
    def finish(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        """What follows the attention. attention_output, residual (the queries): [B, N, W] -> [B, N, D]."""

    @abstractmethod
    def positions(self, tokens: Tensor) -> Tensor:
        """The positions' own inputs to the value path, before any normalisation. [B, T, W] -> [B, P, W]."""

    def normalise(self, x: Tensor) -> Tensor:
        """The layer norm that precedes the projections, where the family has one."""
        return x

    def forward(self, tokens: Tensor, queries: Tensor, bias: Tensor | None = None) -> Tensor:
        """tokens: [B, T, W]; queries: [B, N, W]; bias: [N, L] over attended tokens. Returns [B, N, D], not unit."""
        inputs = self.normalise(self.attended(tokens))
        asked = self.q_proj(self.normalise(queries))
        return self.finish(self._mix(asked, inputs, bias), queries)

    def _mix(self, asked: Tensor, inputs: Tensor, bias: Tensor | None) -> Tensor:
        """asked: [B, N, W] projected queries; inputs: [B, L, W] before projection. Returns [B, N, W]."""
        k_proj, v_proj, num_heads = self.k_proj, self.v_proj, self.num_heads
        pays = absorbing_is_faster(asked.shape[1], inputs.shape[1], self.width, num_heads)
        if pays and isinstance(k_proj, nn.Linear) and isinstance(v_proj, nn.Linear):
            return attend_absorbed(asked, inputs, k_proj, v_proj, num_heads, bias)
        return attend(asked, k_proj(inputs), v_proj(inputs), num_heads, bias)

    def weights(self, tokens: Tensor, queries: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attention over the positions alone, averaged over heads. Returns [B, N, P]; a row sums to at most 1."""
        inputs = self.normalise(self.attended(tokens))
        asked = self.q_proj(self.normalise(queries))
        return attention_weights(asked, self.k_proj(inputs), self.num_heads, bias)[..., self.num_prefix :]

    def dense(self, tokens: Tensor) -> Tensor:
        """The value path alone, no mixing between positions (MaskCLIP, arXiv 2112.01071). [B, T, W] -> [B, P, D]."""
        positions = self.positions(tokens)
        return self.finish(self.v_proj(self.normalise(positions)), positions)

    def query_key_parameters(self) -> list[nn.Parameter]:
        """The parameters that decide only where to look: training them keeps outputs in CLIP's space."""
        return [*self.q_proj.parameters(), *self.k_proj.parameters()]


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
        """positional_embedding: [1 + P, W], the mean token's first."""
        super().__init__(grid, q_proj.in_features, dim, num_heads, num_prefix=1)
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = q_proj, k_proj, v_proj, c_proj
        self.positional_embedding = nn.Parameter(positional_embedding.clone())

    def attended(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positional_embedding

    def pretrained_query(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1, keepdim=True) + self.positional_embedding[:1]

    def finish(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.c_proj(attention_output)
        return out

    def positions(self, tokens: Tensor) -> Tensor:
        # MaskCLIP leaves the positional embedding out of the value path.
        return tokens


class ClassTokenPool(Pool):
    """CLIP ViT's last block, final norm and projection: the query is the class token as it enters that block.

    tokens: what enters the last block, [B, 1 + P, W], the class token first.
    """

    def __init__(
        self,
        ln_1: nn.Module,
        q_proj: nn.Linear,
        k_proj: nn.Linear,
        v_proj: nn.Linear,
        out_proj: nn.Linear,
        after_attention: nn.Module,
        mlp: nn.Module,
        ln_post: nn.Module,
        proj: nn.Module,
        num_heads: int,
        grid: tuple[int, int],
        dim: int,
    ) -> None:
        """after_attention: layer scale or identity; mlp: the whole second residual branch, its norm included."""
        super().__init__(grid, q_proj.in_features, dim, num_heads, num_prefix=1)
        self.ln_1, self.q_proj, self.k_proj, self.v_proj, self.out_proj = ln_1, q_proj, k_proj, v_proj, out_proj
        self.after_attention, self.mlp, self.ln_post, self.proj = after_attention, mlp, ln_post, proj

    def normalise(self, x: Tensor) -> Tensor:
        out: Tensor = self.ln_1(x)
        return out

    def attended(self, tokens: Tensor) -> Tensor:
        return tokens

    def pretrained_query(self, tokens: Tensor) -> Tensor:
        return tokens[:, :1]

    def finish(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        x = residual + self.after_attention(self.out_proj(attention_output))
        x = x + self.mlp(x)
        out: Tensor = self.proj(self.ln_post(x))
        return out

    def positions(self, tokens: Tensor) -> Tensor:
        return tokens[:, 1:]


class LatentPool(Pool):
    """SigLIP's MAP pool: the query is a learned latent (arXiv 2205.01580, as in timm's AttentionPoolLatent).

    tokens: the tower's output positions [B, P, W].
    """

    def __init__(
        self,
        latent: Tensor,
        q_proj: nn.Linear,
        k_proj: nn.Linear,
        v_proj: nn.Linear,
        q_norm: nn.Module,
        k_norm: nn.Module,
        out_proj: nn.Module,
        mlp: nn.Module,
        proj: nn.Module,
        positional_embedding: Tensor | None,
        num_heads: int,
        grid: tuple[int, int],
        dim: int,
    ) -> None:
        """latent: [1, W]; mlp: the residual branch, its norm included; positional_embedding: [P, W] or None."""
        super().__init__(grid, k_proj.in_features, dim, num_heads, num_prefix=0)
        self.latent = nn.Parameter(latent.clone())
        self.q_proj, self.k_proj = (_normed(p, n, num_heads) for p, n in ((q_proj, q_norm), (k_proj, k_norm)))
        self.v_proj, self.out_proj, self.mlp, self.proj = v_proj, out_proj, mlp, proj
        self.positional_embedding = None if positional_embedding is None else nn.Parameter(positional_embedding.clone())

    def attended(self, tokens: Tensor) -> Tensor:
        return tokens if self.positional_embedding is None else tokens + self.positional_embedding

    def pretrained_query(self, tokens: Tensor) -> Tensor:
        return self.latent.expand(len(tokens), 1, -1)

    def finish(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        x = self.out_proj(attention_output)
        x = x + self.mlp(x)
        out: Tensor = self.proj(x)
        return out

    def positions(self, tokens: Tensor) -> Tensor:
        return tokens


class AveragePool(Pool):
    """A head for towers that average: it starts as that average and can learn to look.

    Keys start at zero, so every position weighs the same; values are the positions themselves; `after` is all that
    the tower does after averaging. tokens: [B, P, W].
    """

    def __init__(self, width: int, after: nn.Module, grid: tuple[int, int], dim: int) -> None:
        super().__init__(grid, width, dim, num_heads=1, num_prefix=0)
        self.q_proj, self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width), nn.Identity()
        nn.init.zeros_(self.k_proj.weight)
        nn.init.zeros_(self.k_proj.bias)
        nn.init.eye_(self.q_proj.weight)
        nn.init.zeros_(self.q_proj.bias)
        self.after = after

    def attended(self, tokens: Tensor) -> Tensor:
        return tokens

    def pretrained_query(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1, keepdim=True)

    def finish(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.after(attention_output)
        return out

    def positions(self, tokens: Tensor) -> Tensor:
        return tokens


def _normed(proj: nn.Linear, norm: nn.Module, num_heads: int) -> nn.Module:
    return proj if isinstance(norm, nn.Identity) else nn.Sequential(proj, _PerHead(norm, num_heads))


class _PerHead(nn.Module):
    """Applies a norm to each head's slice, as timm's qk-norm does. [B, T, W] -> [B, T, W]."""

    def __init__(self, norm: nn.Module, num_heads: int) -> None:
        super().__init__()
        self.norm, self.num_heads = norm, num_heads

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x.unflatten(-1, (self.num_heads, -1))).flatten(-2)
        return out
