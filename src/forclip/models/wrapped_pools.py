"""A pool whose outputs are centred and whitened for a target domain: an affine map after it, fitted in closed form."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.pools import Pool


class WrappedPool(Pool):
    """Hands everything on to `inner`."""

    def __init__(self, inner: Pool) -> None:
        """inner is owned from here on."""
        super().__init__(inner.grid, inner.width, inner.dim, inner.num_heads, inner.num_prefix)
        self.inner = inner

    def stage(self, tokens: Tensor) -> Tensor:
        return self.inner.stage(tokens)

    def stage_parameters(self) -> list[nn.Parameter]:
        return self.inner.stage_parameters()

    def attended(self, tokens: Tensor) -> Tensor:
        return self.inner.attended(tokens)

    def pretrained_query(self, tokens: Tensor) -> Tensor:
        return self.inner.pretrained_query(tokens)

    def positions(self, tokens: Tensor) -> Tensor:
        return self.inner.positions(tokens)

    def normalise(self, x: Tensor) -> Tensor:
        return self.inner.normalise(x)

    def finish(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        return self.inner.finish(attention_output, residual)

    def forward(self, tokens: Tensor, queries: Tensor, bias: Tensor | None = None) -> Tensor:
        out: Tensor = self.inner(tokens, queries, bias)
        return out

    def weights(self, tokens: Tensor, queries: Tensor, bias: Tensor | None = None) -> Tensor:
        return self.inner.weights(tokens, queries, bias)

    def dense(self, tokens: Tensor) -> Tensor:
        return self.inner.dense(tokens)

    def query_key_parameters(self) -> list[nn.Parameter]:
        return self.inner.query_key_parameters()


class AlignedPool(WrappedPool):
    """Another pool, and an affine map on what comes out of it. Every head that takes a pool takes this one."""

    def __init__(self, inner: Pool, output: nn.Linear) -> None:
        """output: [D] -> [D]. Both are owned from here on."""
        super().__init__(inner)
        self.output = output

    def finish(self, attention_output: Tensor, residual: Tensor) -> Tensor:
        out: Tensor = self.output(self.inner.finish(attention_output, residual))
        return out

    def forward(self, tokens: Tensor, queries: Tensor, bias: Tensor | None = None) -> Tensor:
        out: Tensor = self.output(self.inner(tokens, queries, bias))
        return out

    def dense(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.output(self.inner.dense(tokens))
        return out


def fit_alignment(outputs: Tensor, shrinkage: float) -> nn.Linear:
    """ZCA whitening (Bell & Sejnowski 1997) of a pool's outputs in the target domain, shrunk towards no whitening.

    outputs: [M, D], not unit. Directions that all images of the domain share drown those that tell them apart; the
    covariance, (1 - shrinkage) of it plus shrinkage of the identity (as Ledoit & Wolf 2004 mix the two), is taken over
    unit vectors, so that long vectors don't decide. Returns the affine map, to be applied before normalisation.
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


class StagedPool(WrappedPool):
    """Another pool behind the tower's last stage. Tokens are what enters that stage; heads call `stage` once."""

    def __init__(self, tower_stage: nn.Module, inner: Pool) -> None:
        """tower_stage: [B, T', W'] -> the inner pool's tokens [B, T, W]. Both are owned from here on."""
        super().__init__(inner)
        self.tower_stage = tower_stage

    def train(self, mode: bool = True) -> "StagedPool":
        """The stage stays in eval mode: batch statistics are the pretrained ones, as when the tower is frozen."""
        super().train(mode)
        self.tower_stage.eval()
        return self

    def stage(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.tower_stage(tokens)
        return out

    def stage_parameters(self) -> list[nn.Parameter]:
        return list(self.tower_stage.parameters())


class MapStage(nn.Module):
    """A convolutional stage on flattened feature maps. [B, rows x columns, C] -> [B, P, C']."""

    def __init__(self, layer: nn.Module, grid: tuple[int, int]) -> None:
        """grid: (rows, columns) of what enters."""
        super().__init__()
        self.layer, self.grid = layer, grid

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.layer(tokens.transpose(1, 2).unflatten(2, self.grid))
        return out.flatten(2).transpose(1, 2)


class BlockStage(nn.Module):
    """A transformer block on tokens [B, T, W]. batch_first: whether the block itself takes them so."""

    def __init__(self, block: nn.Module, batch_first: bool) -> None:
        super().__init__()
        self.block, self.batch_first = block, batch_first

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.block(tokens if self.batch_first else tokens.transpose(0, 1))
        return out if self.batch_first else out.transpose(0, 1)
