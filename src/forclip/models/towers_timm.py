"""From open_clip's adapter around timm models, `TimmModel`, to `Tower`."""

from functools import partial
from typing import Any

import torch
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.attention_pool2d import AttentionPool2d
from timm.layers.classifier import ClassifierHead, NormMlpClassifierHead
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from forclip.models.pools import AveragePool, LatentPool, MeanTokenPool
from forclip.models.tower import Tower, resize_positions, split_linear
from forclip.models.wrapped_pools import MapStage, StagedPool

_AVERAGES = ("avg", "fast", "fastavg")  # timm's names for the mean over positions


def cut_timm(visual: Any, image_size: int | None, last_stage: bool) -> Tower:
    """As `forclip.models.towers.cut_tower`, for a TimmModel."""
    trunk, head = visual.trunk, visual.head
    native_grid = trunk.patch_embed.grid_size if hasattr(trunk, "patch_embed") else None
    if image_size is not None:
        visual.set_input_size(image_size)
    match getattr(head, "pool", None), getattr(trunk, "attn_pool", None), trunk, getattr(trunk, "head", None):
        case AttentionPool2d(cls_token=None, pool_type="token"), _, _, _:
            return _cut_attention_pool(visual, last_stage)
        case None, AttentionPoolLatent(pool="token", latent_len=1), _, _ if _is_plain_latent(trunk):
            return _cut_latent(visual, native_grid)
        case None, None, VisionTransformer(global_pool="avg", pool_include_prefix=False), _:
            return _cut_averaging_vit(visual)
        case None, None, _, ClassifierHead(input_fmt="NCHW") | NormMlpClassifierHead() if _averages(trunk.head):
            return _cut_averaging_map(visual)
        case adapter_pool, attention_pool, _, _:
            pool = adapter_pool or attention_pool or getattr(trunk, "global_pool", None) or trunk.head
            name = pool if isinstance(pool, str) else type(pool).__name__
            raise ValueError(f"image tower timm {type(trunk).__name__} with pool {name} is of no family forclip knows")


def _cut_attention_pool(visual: Any, last_stage: bool) -> Tower:
    """A feature map under CLIP's attention pool ('abs_attn'), which ends with the projection.

    last_stage: of a ByobNet, timm's frame for CLIP-like ResNets.
    """
    pool = visual.head.pool
    q_proj, k_proj, v_proj = (
        (pool.q, pool.k, pool.v) if pool.qkv is None else split_linear(pool.qkv.weight, pool.qkv.bias, 3)
    )
    c_proj = nn.Sequential(pool.proj, *list(visual.head)[1:])
    grid = _map_shape(visual.trunk, visual)[1:]
    head = MeanTokenPool(
        q_proj,
        k_proj,
        v_proj,
        c_proj,
        resize_positions(pool.pos_embed.detach(), pool.feat_size, grid, prefix=1),
        pool.num_heads,
        grid,
        dim=_out_features(c_proj, pool.embed_dim, visual),
    )
    if not last_stage:
        return Tower(partial(_flattened, visual.trunk), head)
    trunk = visual.trunk
    *stages, last = trunk.stages
    before = nn.Sequential(trunk.stem, *stages)
    stage = MapStage(nn.Sequential(last, trunk.final_conv, trunk.head), _map_shape(before, visual)[1:])
    return Tower(partial(_flattened, before), StagedPool(stage, head))


def _is_plain_latent(trunk: Any) -> bool:
    """Whether LatentPool can express it: positions alone are attended, and nothing but the latent is projected."""
    pool = trunk.attn_pool
    # timm's Eva hands its class token to the pool as well; its VisionTransformer does if told to.
    prefix = trunk.num_prefix_tokens if getattr(trunk, "pool_include_prefix", True) else 0
    return prefix == 0 and pool.mlp is not None and isinstance(pool.q, nn.Linear) and pool.latent_dim == trunk.embed_dim


def _cut_latent(visual: Any, native_grid: tuple[int, int] | None) -> Tower:
    """SigLIP's MAP pool, then whatever timm and open_clip put behind it."""
    trunk, pool = visual.trunk, visual.trunk.attn_pool
    k_proj, v_proj = split_linear(pool.kv.weight, pool.kv.bias, 2)
    proj, grid = nn.Sequential(trunk.fc_norm, trunk.head, *visual.head), trunk.patch_embed.grid_size
    positions = pool.pos_embed
    if positions is not None:
        assert native_grid is not None, "the latent pool's positions are a ViT's"
        positions = resize_positions(positions.detach(), native_grid, grid, prefix=0)
    return Tower(
        partial(_vit_positions, trunk),
        LatentPool(
            pool.latent.detach()[0],
            pool.q,
            k_proj,
            v_proj,
            pool.q_norm,
            pool.k_norm,
            out_proj=pool.proj,
            mlp=nn.Sequential(pool.norm, pool.mlp),
            proj=proj,
            positional_embedding=positions,
            num_heads=pool.num_heads,
            grid=grid,
            dim=_out_features(proj, pool.out_features, visual),
        ),
    )


def _cut_averaging_vit(visual: Any) -> Tower:
    """timm's ViT with the mean over its patches, class and register tokens left out (ViTamin among them)."""
    trunk = visual.trunk
    after = nn.Sequential(trunk.fc_norm, trunk.head, *visual.head)
    dim = _out_features(after, trunk.embed_dim, visual)
    return Tower(partial(_vit_positions, trunk), AveragePool(trunk.embed_dim, after, trunk.patch_embed.grid_size, dim))


def _vit_positions(trunk: Any, pixels: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, P, W], the prefix tokens left out."""
    tokens: Tensor = trunk.forward_features(pixels)[:, trunk.num_prefix_tokens :]
    return tokens


def _averages(head: Any) -> bool:
    return head.global_pool.pool_type in _AVERAGES


def _cut_averaging_map(visual: Any) -> Tower:
    """A convolutional tower whose head averages its map (MobileCLIP's FastViT, ConvNeXt)."""
    trunk = visual.trunk
    width, rows, columns = _map_shape(trunk.forward_features, visual)
    after = _AfterAverage(nn.Sequential(trunk.head, *visual.head))
    dim = _out_features(after, width, visual)
    return Tower(partial(_flattened, trunk.forward_features), AveragePool(width, after, (rows, columns), dim))


class _AfterAverage(nn.Module):
    """A timm head without its averaging: a map of one position is its own average. [..., W] -> [..., D]."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x.flatten(0, -2)[:, :, None, None])
        return out.reshape(*x.shape[:-1], -1)


def _flattened(feature_map: Any, pixels: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, P, C], positions in row-major order."""
    tokens: Tensor = feature_map(pixels).flatten(2).transpose(1, 2)
    return tokens


@torch.no_grad()
def _map_shape(feature_map: Any, visual: Any) -> tuple[int, int, int]:
    """(channels, rows, columns) at the tower's input size, found by running it: strides differ in how they round."""
    like = next(visual.parameters())
    # One image in eval mode, so that batch statistics are neither needed nor touched.
    was_training = visual.training
    shape = feature_map(like.new_zeros(1, 3, *visual.eval().image_size)).shape
    visual.train(was_training)
    channels, rows, columns = shape[1:]
    return channels, rows, columns


@torch.no_grad()
def _out_features(after: nn.Module, width: int, visual: Any) -> int:
    out: Tensor = after(next(visual.parameters()).new_zeros(1, 1, width))
    return out.shape[-1]
