"""Alignment: centre and whiten a pool's outputs for a target domain, by an affine map fitted in closed form."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
