"""Alignment against its formula in NumPy, and all heads on an aligned pool."""

import copy

import numpy as np
import pytest
import torch
from scipy.linalg import fractional_matrix_power
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.alignment import fit_alignment
from forclip.models.baselines import ClusterHead, DenseHead, Head
from forclip.models.pools import Pool
from forclip.models.summary_head import global_head, noise_seeded_head, window_seeded_head
from tests.models.test_pools import pool_and_tokens
from tests.tiny import aligned

FAMILIES = ["resnet", "vit", "latent", "average"]


def outputs(count: int = 200, dim: int = 5) -> Tensor:
    """Random outputs with a common direction, unequal variances and unequal lengths."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, dim, generator=generator) * torch.arange(1, dim + 1) + 2.0
    return points * torch.rand(count, 1, generator=generator).add(0.5)


def unit_outputs() -> Tensor:
    return F.normalize(outputs(), dim=-1)


@torch.no_grad()
def test_no_shrinkage_whitens() -> None:
    aligned = fit_alignment(unit_outputs(), 0.0)(unit_outputs())
    torch.testing.assert_close(aligned.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    covariance = aligned.T @ aligned / len(aligned)
    torch.testing.assert_close(covariance, covariance.diagonal().mean() * torch.eye(5), atol=1e-5, rtol=0)
    spread = unit_outputs() - unit_outputs().mean(0)
    assert covariance.trace().item() == pytest.approx(
        spread.square().sum(1).mean().item(), rel=1e-4
    )  # the trace is kept


@torch.no_grad()
def test_full_shrinkage_only_centres() -> None:
    aligned = fit_alignment(unit_outputs(), 1.0)(unit_outputs())
    torch.testing.assert_close(aligned, unit_outputs() - unit_outputs().mean(0), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 0.6, 1.0])
def test_alignment_equals_its_formula(shrinkage: float) -> None:
    raw = outputs().double().numpy()
    lengths = np.sqrt((raw**2).sum(1))
    unit = raw / lengths[:, None]
    mean, covariance = unit.mean(0), np.cov(unit.T, bias=True)
    mixed = (1 - shrinkage) * covariance / (np.trace(covariance) / 5) + shrinkage * np.eye(5)
    expected = (raw - mean * lengths.mean()) @ fractional_matrix_power(mixed, -0.5)
    np.testing.assert_allclose(fit_alignment(outputs(), shrinkage)(outputs()).numpy(), expected, atol=2e-4)


@torch.no_grad()
@pytest.mark.parametrize("shrinkage", [0.0, 0.6])
def test_fewer_outputs_than_dimensions_stay_finite(shrinkage: float) -> None:
    aligned = fit_alignment(outputs(3, 8), shrinkage)(outputs(3, 8))
    assert torch.isfinite(aligned).all()


def identity(dim: int) -> nn.Linear:
    layer = nn.Linear(dim, dim)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def heads(pool: Pool) -> list[Head]:
    wide = noise_seeded_head(copy.deepcopy(pool), 3, 0.5, seed=1)
    built: list[Head] = [global_head(pool), window_seeded_head(pool, 4), wide, DenseHead(pool), ClusterHead(pool, 3)]
    return built


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_an_identity_map_changes_no_head(family: str) -> None:
    pool, tokens = pool_and_tokens(family)
    aligned_pool = aligned(copy.deepcopy(pool), identity(pool.dim))
    for plain, same in zip(heads(pool), heads(aligned_pool), strict=True):
        assert same.grid == plain.grid
        torch.testing.assert_close(same(tokens), plain(tokens))
        torch.testing.assert_close(same.position_weights(tokens), plain.position_weights(tokens))


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_the_map_is_applied_before_normalisation(family: str) -> None:
    pool, tokens = pool_and_tokens(family)
    torch.manual_seed(3)
    output = nn.Linear(pool.dim, pool.dim)
    aligned_pool = aligned(copy.deepcopy(pool), output)
    mapped = output(window_seeded_head(pool, 4).outputs(tokens))
    torch.testing.assert_close(window_seeded_head(aligned_pool, 4)(tokens), F.normalize(mapped, dim=-1))
    torch.testing.assert_close(DenseHead(aligned_pool)(tokens), F.normalize(output(pool.dense(tokens)), dim=-1))


def test_the_map_is_no_query_key_parameter() -> None:
    pool, _ = pool_and_tokens("resnet")
    before = pool.query_key_parameters()
    assert aligned(pool, identity(pool.dim)).query_key_parameters() == before
