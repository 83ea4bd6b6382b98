"""Cut the image towers of open_clip's adapter around timm models, `TimmModel`, where their pool begins."""

from functools import partial
from typing import Any

import torch
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.attention_pool2d import AttentionPool2d
from timm.layers.classifier import ClassifierHead, NormMlpClassifierHead
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from forclip.models.pools import AveragePool, LatentPool, MeanTokenPool
from forclip.models.tower import MapStage, Tower, flatten_map, resize_positions, split_linear

_AVERAGES = ("avg", "fast", "fastavg")  # timm's names for the mean over positions


def cut_timm(visual: Any, image_size: int | None, last_stage: bool) -> Tower:
    """Cut a TimmModel as `forclip.models.towers.cut_tower` does."""
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
        case None, None, _, (ClassifierHead(input_fmt="NCHW") | NormMlpClassifierHead()) as classifier if (
            classifier.global_pool.pool_type in _AVERAGES
        ):
            return _cut_averaging_map(visual)
        case adapter_pool, attention_pool, _, _:
            pool = adapter_pool or attention_pool or getattr(trunk, "global_pool", None) or trunk.head
            name = pool if isinstance(pool, str) else type(pool).__name__
            raise ValueError(f"image tower timm {type(trunk).__name__} with pool {name} is of no supported family")


def _cut_attention_pool(visual: Any, last_stage: bool) -> Tower:
    """A feature map under CLIP's attention pool ('abs_attn'), which ends with the projection.

    A last stage can be cut off a ByobNet only, timm's class for CLIP-like ResNets.
    """
    trunk, pool = visual.trunk, visual.head.pool
    separate = [pool.q, pool.k, pool.v]
    q, k, v = separate if pool.qkv is None else split_linear(pool.qkv.weight, pool.qkv.bias, 3)
    c_proj = nn.Sequential(pool.proj, *list(visual.head)[1:])
    grid = _map_shape(trunk, visual)[1:]
    positions = resize_positions(pool.pos_embed.detach(), pool.feat_size, grid, prefix=1)
    dim = _out_features(c_proj, pool.embed_dim, visual)
    head = MeanTokenPool(q, k, v, c_proj, positions, pool.num_heads, grid, dim)
    if not last_stage:
        return Tower(partial(_map_tokens, trunk), head)
    *stages, last = trunk.stages
    before = nn.Sequential(trunk.stem, *stages)
    head.tower_stage = MapStage(nn.Sequential(last, trunk.final_conv, trunk.head), _map_shape(before, visual)[1:])
    return Tower(partial(_map_tokens, before), head)


def _is_plain_latent(trunk: Any) -> bool:
    """Whether LatentPool can express the pool: only positions are attended, only the latent is a query."""
    pool = trunk.attn_pool
    # timm's Eva hands its class token to the pool as well; its VisionTransformer does so by an option.
    prefix = trunk.num_prefix_tokens if getattr(trunk, "pool_include_prefix", True) else 0
    return prefix == 0 and pool.mlp is not None and isinstance(pool.q, nn.Linear) and pool.latent_dim == trunk.embed_dim


def _cut_latent(visual: Any, native_grid: tuple[int, int] | None) -> Tower:
    """SigLIP's MAP pool, followed by the layers of timm and open_clip behind it."""
    trunk, pool = visual.trunk, visual.trunk.attn_pool
    k_proj, v_proj = split_linear(pool.kv.weight, pool.kv.bias, 2)
    proj, grid = nn.Sequential(trunk.fc_norm, trunk.head, *visual.head), trunk.patch_embed.grid_size
    positions = pool.pos_embed
    if positions is not None:
        assert native_grid is not None, "the latent pool's positions are a ViT's"
        positions = resize_positions(positions.detach(), native_grid, grid, prefix=0)
    head = LatentPool(
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
    )
    return Tower(partial(_vit_tokens, trunk), head)


def _cut_averaging_vit(visual: Any) -> Tower:
    """timm's ViTs that average their patches without class and register tokens (ViTamin among them)."""
    trunk = visual.trunk
    after = nn.Sequential(trunk.fc_norm, trunk.head, *visual.head)
    dim = _out_features(after, trunk.embed_dim, visual)
    return Tower(partial(_vit_tokens, trunk), AveragePool(trunk.embed_dim, after, trunk.patch_embed.grid_size, dim))


def _vit_tokens(trunk: Any, pixels: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, P, W], without the prefix tokens."""
    return trunk.forward_features(pixels)[:, trunk.num_prefix_tokens :]


def _cut_averaging_map(visual: Any) -> Tower:
    """A convolutional tower whose head averages its map (MobileCLIP's FastViT, ConvNeXt)."""
    trunk = visual.trunk
    width, rows, columns = _map_shape(trunk.forward_features, visual)
    after = _AfterAverage(nn.Sequential(trunk.head, *visual.head))
    dim = _out_features(after, width, visual)
    return Tower(partial(_map_tokens, trunk.forward_features), AveragePool(width, after, (rows, columns), dim))


class _AfterAverage(nn.Module):
    """A timm head without its averaging: a map of one position is its own average. [..., W] -> [..., D]."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(0, -2)[:, :, None, None]).reshape(*x.shape[:-1], -1)


def _map_tokens(feature_map: Any, pixels: Tensor) -> Tensor:
    return flatten_map(feature_map(pixels))


@torch.no_grad()
def _map_shape(feature_map: Any, visual: Any) -> tuple[int, int, int]:
    """Return (channels, rows, columns) at the tower's input size, measured by a run: strides round differently."""
    like = next(visual.parameters())
    # One image in eval mode, so that batch statistics are neither needed nor changed.
    was_training = visual.training
    shape = feature_map(like.new_zeros(1, 3, *visual.eval().image_size)).shape
    visual.train(was_training)
    channels, rows, columns = shape[1:]
    return channels, rows, columns


@torch.no_grad()
def _out_features(after: nn.Module, width: int, visual: Any) -> int:
    return after(next(visual.parameters()).new_zeros(1, 1, width)).shape[-1]
