"""A pool whose outputs are centred and whitened for a target domain: an affine map after it, fitted in closed form."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.pools import Pool
from forclip.models.wrapped_pool import WrappedPool


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
