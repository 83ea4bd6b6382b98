"""Pools against the papers' formulas in explicit loops, alignment against its own, and heads on aligned pools."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from scipy.linalg import fractional_matrix_power
from timm.layers.attention_pool import AttentionPoolLatent
from timm.models.eva import Eva
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.baselines import ClusterHead, DenseHead, Head
from forclip.models.pools import AveragePool, LatentPool, MeanTokenPool, Pool, fit_alignment
from forclip.models.summary_head import global_head, noise_seeded_head, window_seeded_head
from forclip.models.tower_parts import Tower
from forclip.models.towers import cut_tower
from tests.tiny import aligned

FAMILIES = ["resnet", "vit", "eva", "relative positions", "coca", "latent", "latent with class token", "average"]


def randomise(module: nn.Module) -> Any:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter.requires_grad_(False), std=0.3)
    return module.eval()


def resnet() -> Any:
    return randomise(ModifiedResNet([1, 1, 1, 1], 12, heads=4, image_size=64, width=8))


def vit() -> Any:
    return randomise(VisionTransformer(32, 8, 32, 2, 4, 2.0, ls_init_value=0.5, output_dim=12))


def coca() -> Any:
    return randomise(VisionTransformer(32, 8, 32, 2, 4, 2.0, attentional_pool=True, attn_pooler_heads=4, output_dim=12))


def timm_vit(build: Any, **options: Any) -> Any:
    """A class token under 4 x 4 positions."""
    visual = TimmModel("vit_tiny_patch16_224", 12, 32, pool="token", proj="")
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 4, "num_classes": 12}
    visual.trunk = build(**small, global_pool="token", **options)
    return randomise(visual)


def eva() -> Any:
    return timm_vit(Eva, use_rot_pos_emb=True, scale_attn_inner=True, init_values=0.1)


def latent_pool(num_prefix: int = 0) -> LatentPool:
    pool = AttentionPoolLatent(8, num_heads=2, qk_norm=True, norm_layer=nn.LayerNorm)
    latent: LatentPool = randomise(LatentPool(pool, None, nn.Linear(8, 5), (2, 3), 5, num_prefix))
    return latent


def tokens_of(tower: Tower, size: int) -> Tensor:
    return tower.tokens(torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)))


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return layer.weight @ x + layer.bias


def test_dense_resnet_is_maskclip() -> None:
    """MaskCLIP, section 3.2: the value projection, then the output projection, as 1 x 1 convolutions on the map."""
    visual = resnet()
    tower = cut_tower(visual)
    dense = tower.pool.dense(tokens_of(tower, 64))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    feature_map = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(images)))))
    for image in range(2):
        for row in range(2):
            for column in range(2):
                position = feature_map[image, :, row, column]
                naive = linear(visual.attnpool.c_proj, linear(visual.attnpool.v_proj, position))
                torch.testing.assert_close(dense[image, row * 2 + column], naive, rtol=1e-4, atol=1e-4)


def test_dense_vit_is_maskclip() -> None:
    """The last block, with its attention replaced by the value path of each position."""
    visual = vit()
    tower = cut_tower(visual)
    dense = tower.pool.dense(tokens_of(tower, 32))
    block = visual.transformer.resblocks[-1]
    w_v, b_v = block.attn.in_proj_weight[64:], block.attn.in_proj_bias[64:]
    entering = visual.transformer.resblocks[0](
        visual._embeds(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    )
    for image in range(2):
        for position in range(16):
            x = entering[image, 1 + position]
            x = x + block.ls_1.gamma * linear(block.attn.out_proj, w_v @ block.ln_1(x) + b_v)
            x = x + block.ls_2.gamma * block.mlp(block.ln_2(x))
            torch.testing.assert_close(dense[image, position], visual.proj.T @ visual.ln_post(x), rtol=1e-4, atol=1e-4)


def test_dense_eva_is_maskclip() -> None:
    """The last block, with its attention replaced by the value path of each position: no key, so no rotation."""
    visual = eva()
    dense = cut_tower(visual).pool.dense(tokens_of(cut_tower(visual), 32))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    trunk, block = visual.trunk, visual.trunk.blocks[1]
    x, rope = trunk._pos_embed(trunk.patch_embed(images))
    entering = trunk.blocks[0](x, rope=rope)
    w_v, attention = block.attn.qkv.weight[64:], block.attn
    for image in range(2):
        for position in range(16):
            x = entering[image, 1 + position]
            value = attention.norm(w_v @ block.norm1(x) + attention.v_bias)
            x = x + block.gamma_1 * linear(attention.proj, value)
            x = x + block.gamma_2 * block.mlp(block.norm2(x))
            expected = linear(trunk.head, trunk.norm(x))
            torch.testing.assert_close(dense[image, position], expected, rtol=1e-4, atol=1e-4)


def test_dense_coca_is_the_poolers_value_path() -> None:
    visual = coca()
    tower = cut_tower(visual)
    tokens = tokens_of(tower, 32)
    dense = tower.pool.dense(tokens)
    pooler = visual.attn_pool
    for image in range(2):
        for position in range(16):
            x = pooler.ln_k(tokens[image, 1 + position])
            value = pooler.attn.v_proj_weight @ x + pooler.attn.in_proj_bias[24:]
            expected = visual.proj.T @ visual.ln_post(linear(pooler.attn.out_proj, value))
            torch.testing.assert_close(dense[image, position], expected, rtol=1e-4, atol=1e-4)


def naive_weights(pool: Pool, tokens: Tensor, queries: Tensor, bias: Tensor | None) -> Tensor:
    """Softmax of scaled dot products, head by head and query by query, averaged over heads. [B, N, P]."""
    inputs = pool.normalise(pool.attended(tokens))
    q, k = pool.q_proj(pool.normalise(queries)), pool.k_proj(inputs)
    head_width = q.shape[-1] // pool.num_heads
    weights = torch.zeros(len(tokens), queries.shape[1], inputs.shape[1])
    for b, n in ((b, n) for b in range(len(tokens)) for n in range(queries.shape[1])):
        for head in range(pool.num_heads):
            part = slice(head * head_width, (head + 1) * head_width)
            logits = torch.stack([q[b, n, part] @ key[part] / head_width**0.5 for key in k[b]])
            if pool.position_bias is not None:
                logits = logits + pool.position_bias[head]
            exponentials = torch.exp(logits + (0 if bias is None else bias[n]))
            weights[b, n] += exponentials / exponentials.sum() / pool.num_heads
    return weights[..., pool.num_prefix :]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_weights_are_the_softmax(family: str, with_bias: bool) -> None:
    pool, tokens = pool_and_tokens(family)
    queries = pool.pretrained_query(tokens) + torch.randn(2, 3, pool.width)
    bias = torch.randn(3, pool.num_prefix + pool.num_positions) if with_bias else None
    weights = pool.attention(tokens, queries, bias)
    assert weights.shape == (2, 3, pool.num_positions)
    torch.testing.assert_close(weights, naive_weights(pool, tokens, queries, bias))
    total = weights.sum(-1)
    assert (total < 1).all() if pool.num_prefix else torch.allclose(total, torch.ones(2, 3))


def pool_and_tokens(family: str) -> tuple[Pool, Tensor]:
    match family:
        case "resnet":
            tower = cut_tower(resnet())
            return tower.pool, tokens_of(tower, 64)
        case "vit":
            tower = cut_tower(vit())
            return tower.pool, tokens_of(tower, 32)
        case "eva":
            tower = cut_tower(eva())
            return tower.pool, tokens_of(tower, 32)
        case "relative positions":
            tower = cut_tower(timm_vit(VisionTransformerRelPos, class_token=True, rel_pos_type="bias"))
            return tower.pool, tokens_of(tower, 32)
        case "coca":
            tower = cut_tower(coca())
            return tower.pool, tokens_of(tower, 32)
        case "latent":
            return latent_pool(), torch.randn(2, 6, 8)
        case "latent with class token":
            return latent_pool(num_prefix=1), torch.randn(2, 7, 8)
        case _:
            return randomise(AveragePool(8, nn.Linear(8, 5), (2, 3), 5)), torch.randn(2, 6, 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_bias_of_minus_infinity_leaves_one_position(family: str) -> None:
    """All weight is on one attended token: the output is that token's value path, whatever the query is."""
    pool, tokens = pool_and_tokens(family)
    queries = pool.pretrained_query(tokens) + torch.randn(2, 2, pool.width)
    kept = [pool.num_prefix, pool.num_prefix + 3]
    bias = torch.full((2, pool.num_prefix + pool.num_positions), float("-inf"))
    bias[[0, 1], kept] = 0
    out = pool(tokens, queries, bias)
    values = pool.v_proj(pool.normalise(pool.attended(tokens)))[:, kept]
    torch.testing.assert_close(out, pool.finish(values, queries), rtol=1e-4, atol=1e-4)
    if isinstance(pool, MeanTokenPool):
        for n, position in enumerate((0, 3)):
            placed = tokens[:, position] + pool.positional_embedding[1 + position]
            torch.testing.assert_close(out[:, n], pool.c_proj(pool.v_proj(placed)), rtol=1e-4, atol=1e-4)
    if isinstance(pool, AveragePool):
        torch.testing.assert_close(out, pool.dense(tokens)[:, [0, 3]])


def test_queries_are_independent() -> None:
    for family in FAMILIES:
        pool, tokens = pool_and_tokens(family)
        # In double precision: in float32 the last digits depend on how threads group the rows of a product.
        pool, tokens = pool.double(), tokens.double()
        queries = pool.pretrained_query(tokens) + torch.randn(2, 3, pool.width, dtype=torch.float64)
        together = pool(tokens, queries)
        for n in range(3):
            torch.testing.assert_close(together[:, n : n + 1], pool(tokens, queries[:, n : n + 1]))


def test_dense_does_not_mix_positions() -> None:
    for family in FAMILIES:
        pool, tokens = pool_and_tokens(family)
        before = pool.dense(tokens)
        tokens[:, -1] += 1
        changed = (pool.dense(tokens) != before).any(-1)
        assert changed[:, -1].all()
        assert not changed[:, :-1].any()


def test_average_pool_starts_as_the_average() -> None:
    pool = AveragePool(8, nn.Identity(), (2, 3), 8)
    tokens = torch.randn(2, 6, 8)
    torch.testing.assert_close(pool(tokens, torch.randn(2, 4, 8)), tokens.mean(1, keepdim=True).expand(2, 4, 8))
    torch.testing.assert_close(pool.attention(tokens, torch.randn(2, 4, 8)), torch.full((2, 4, 6), 1 / 6))


def test_query_key_parameters_do_not_change_the_value_path() -> None:
    for family in FAMILIES:
        pool, tokens = pool_and_tokens(family)
        before = pool.dense(tokens)
        with torch.no_grad():
            for parameter in pool.query_key_parameters():
                parameter.add_(1)
        torch.testing.assert_close(pool.dense(tokens), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_pool_can_be_trained(family: str) -> None:
    """Query tokens, biases and the projections behind the attention get gradients, and a few steps lower a loss."""
    pool, tokens = pool_and_tokens(family)
    head = window_seeded_head(pool.requires_grad_(True), 3)
    targets = F.normalize(torch.randn(2, 3, pool.dim), dim=-1)
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        loss = (head(tokens) - targets).square().sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if family != "average" or len(losses) > 1:  # its keys start at zero
            for parameter in (head.offsets, head.bias, *pool.query_key_parameters()[:1]):
                assert parameter.grad is not None
                assert parameter.grad.abs().max() > 0
        optimizer.step()
    assert losses == sorted(losses, reverse=True)


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
