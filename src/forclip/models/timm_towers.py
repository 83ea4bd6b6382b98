"""Cut timm's image towers, in open_clip's adapter, where their pool begins: one function per family."""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.attention_pool2d import AttentionPool2d
from timm.layers.classifier import ClassifierHead, NormMlpClassifierHead
from timm.layers.layer_scale import LayerScale
from timm.layers.pos_embed_sincos import apply_rot_embed_cat
from timm.models.byobnet import ByobNet
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block as VitBlock
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from timm.models.vision_transformer_relpos import (
    RelPosAttention,
    RelPosBlock,
    ResPostRelPosBlock,
    VisionTransformerRelPos,
)
from torch import Tensor, nn

from forclip.models.error_text import first_line
from forclip.models.pools import (
    AveragePool,
    Block,
    ClassTokenPool,
    LatentPool,
    MeanTokenPool,
    Pool,
    normed_heads,
    split_linear,
)
from forclip.models.tower_parts import MapStage, Tower, WithoutPrefix, flatten_map, resize_positions

# What timm's towers raise for an input size that is too small, or that their windows or positions do not allow.
_SIZE_ERRORS = (AssertionError, IndexError, RuntimeError, TypeError, ValueError, ZeroDivisionError)


def cut_timm(visual: Any, shape: tuple[int, int] | None, last_stage: bool) -> Tower:
    """Cut a timm model in open_clip's adapter; last_stage and errors as in `cut_tower`.

    shape: (rows, columns) of the images in pixels, None for the tower's own. A last stage that the family lacks is
    left to the caller: the pool's `tower_stage` is None then.
    """
    trunk, head = visual.trunk, visual.head
    native_grid = getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    if shape is not None:
        try:
            visual.set_input_size(shape)
        except _SIZE_ERRORS as error:
            raise _wrong_size(visual, shape, error) from None
    match getattr(head, "pool", None), trunk, getattr(trunk, "head", None):
        case AttentionPool2d(cls_token=None, pool_type="token"), _, _:
            return _cut_attention_pool(visual, last_stage)
        case None, VisionTransformer() | Eva() | VisionTransformerRelPos(), _:
            return _cut_transformer(visual, native_grid, last_stage)
        case None, _, ClassifierHead() | NormMlpClassifierHead() as classifier if (
            classifier.global_pool.pool_type in ("avg", "fast", "fastavg")  # the mean over positions
        ):
            return _cut_averaging(visual, classifier)
        case pool, _, _:
            raise _unsupported(trunk, pool or getattr(trunk, "global_pool", None) or trunk.head)


def _wrong_size(visual: Any, shape: tuple[int, int], error: Exception) -> ValueError:
    name, (rows, columns) = type(visual.trunk).__name__, shape
    return ValueError(f"image tower timm {name} can't encode images of {rows}x{columns} pixels: {first_line(error)}")


def _unsupported(trunk: nn.Module, pool: Any, block: nn.Module | None = None) -> ValueError:
    name = pool if isinstance(pool, str) else type(pool).__name__
    after = "" if block is None else f" after {type(block).__name__}"
    return ValueError(f"image tower timm {type(trunk).__name__} with pool {name}{after} is of no supported family")


def _cut_attention_pool(visual: Any, last_stage: bool) -> Tower:
    """A feature map under CLIP's attention pool ('abs_attn'). Only a ByobNet (CLIP-like ResNet) has a last stage."""
    trunk, pool = visual.trunk, visual.head.pool
    q, k, v = [pool.q, pool.k, pool.v] if pool.qkv is None else split_linear(pool.qkv.weight.chunk(3), pool.qkv.bias)
    c_proj = nn.Sequential(pool.proj, *list(visual.head)[1:])
    grid = _map_shape(trunk, visual)[1:]
    positions = resize_positions(pool.pos_embed.detach(), pool.feat_size, grid, prefix=1)
    dim = _out_features(c_proj, pool.embed_dim, visual)
    head = MeanTokenPool(q, k, v, c_proj, positions, pool.num_heads, grid, dim)
    if not last_stage or not isinstance(trunk, ByobNet):
        return Tower(lambda pixels: flatten_map(trunk(pixels)), head)
    *stages, last = trunk.stages
    before = nn.Sequential(trunk.stem, *stages)
    head.tower_stage = MapStage(nn.Sequential(last, trunk.final_conv, trunk.head), _map_shape(before, visual)[1:])
    return Tower(lambda pixels: flatten_map(before(pixels)), head)


def _cut_averaging(visual: Any, classifier: Any) -> Tower:
    """Towers that average a feature map: MobileCLIP's FastViT, ConvNeXt, Swin."""
    trunk = visual.trunk
    channels_last = getattr(classifier, "input_fmt", "NCHW") == "NHWC"

    def feature_map(pixels: Tensor) -> Tensor:
        out = trunk.forward_features(pixels)
        return out.permute(0, 3, 1, 2) if channels_last else out

    width, rows, columns = _map_shape(feature_map, visual)
    after = _AfterAverage(nn.Sequential(trunk.head, *visual.head), channels_last)
    pool = AveragePool(width, after, (rows, columns), _out_features(after, width, visual))
    return Tower(lambda pixels: flatten_map(feature_map(pixels)), pool)


def _cut_transformer(visual: Any, native_grid: Any, last_stage: bool) -> Tower:
    """timm's ViTs: the class token is pooled (EVA-CLIP, MobileCLIP-B), attended to (PE) or absent (SigLIP, ViTamin).

    native_grid: (rows, columns) before another input size was set, that of the latent pool's own positions.
    """
    trunk, grid = visual.trunk, visual.trunk.patch_embed.grid_size
    kind, latent, num_prefix = trunk.global_pool, getattr(trunk, "attn_pool", None), trunk.num_prefix_tokens
    after = nn.Sequential(trunk.fc_norm, trunk.head, *visual.head)
    count = len(trunk.blocks)  # of the blocks before the pool
    dim = _out_features(after, getattr(latent, "out_features", trunk.embed_dim), visual)
    # Eva lets its latent pool attend to the prefix. timm's ViT has an option for this, and for averages.
    attended = num_prefix if getattr(trunk, "pool_include_prefix", kind == "map") else 0
    # Applied to the blocks' output.
    before_pool: list[nn.Module] = [trunk.norm, WithoutPrefix(num_prefix - attended)]
    pool: Pool
    match kind, latent:
        case "token", None if count > 1 and (block := _open_block(trunk)) is not None:
            pool = ClassTokenPool(block, trunk.norm, after, grid, dim, num_prefix)
            count, before_pool = count - 1, []
        case "avg", None:
            pool = AveragePool(trunk.embed_dim, after, grid, dim, attended)
        case "map", AttentionPoolLatent(pool="token", mlp=nn.Module()):
            positions: Tensor | None = latent.pos_embed
            if positions is not None:
                positions = resize_positions(positions.detach(), native_grid, grid, attended)
            pool = LatentPool(latent, positions, after, grid, dim, attended)
        case _:
            raise _unsupported(trunk, latent or kind, trunk.blocks[-1])
    if last_stage and count > 1:
        count -= 1
        stage = _BlockStage(trunk.blocks[count], _block_inputs(trunk, count))
        pool.tower_stage, before_pool = nn.Sequential(stage, *before_pool), []
    last, finish = count - 1, nn.Sequential(*before_pool)
    return Tower(lambda pixels: finish(_tokens_after_block(trunk, pixels, last)), pool)


def _tokens_after_block(trunk: Any, pixels: Tensor, index: int) -> Tensor:
    """Return what block `index` puts out, before any norm: [B, num_prefix + P, W]."""
    has_prefix = trunk.num_prefix_tokens > 0
    [out] = trunk.forward_intermediates(
        pixels,
        indices=[index],
        stop_early=True,
        intermediates_only=True,
        output_fmt="NLC",
        return_prefix_tokens=has_prefix,
    )
    return torch.cat([out[1], out[0]], 1) if has_prefix else out


def _block_inputs(trunk: Any, index: int) -> dict[str, Tensor]:
    """Return what block `index` needs in addition to its tokens: a rotary embedding or shared relative positions."""
    if getattr(trunk, "shared_rel_pos", None) is not None:
        return {"shared_rel_pos": trunk.shared_rel_pos.get_bias()}
    if getattr(trunk, "rope", None) is None:
        return {}
    rope = trunk.rope.get_embed(shape=trunk.patch_embed.grid_size)
    return {"rope": rope[index] if getattr(trunk, "rope_mixed", False) else rope}


class _BlockStage(nn.Module):
    """A timm transformer block on tokens [B, T, W], for `Pool.tower_stage`."""

    def __init__(self, block: nn.Module, inputs: dict[str, Tensor]) -> None:
        super().__init__()
        self.block, self._names = block, tuple(inputs)
        for name, value in inputs.items():
            self.register_buffer(name, value.detach().clone(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.block(tokens, **{name: getattr(self, name) for name in self._names})
        return out


def _open_block(trunk: Any) -> Block | None:
    """Take the trunk's last block apart; None for a block that `Block` can't express."""
    block = trunk.blocks[-1]
    norm: nn.Module
    after_attention: nn.Module
    match block:
        case VitBlock() | RelPosBlock():
            norm, after_attention = block.norm1, block.ls1
            mlp = nn.Sequential(block.norm2, block.mlp, block.ls2)
        case EvaBlock():
            norm, after_attention = block.norm1, _layer_scale(block.gamma_1)
            mlp = nn.Sequential(block.norm2, block.mlp, _layer_scale(block.gamma_2))
        case EvaBlockPostNorm() | ResPostBlock() | ResPostRelPosBlock():
            norm, after_attention = nn.Identity(), block.norm1
            mlp = nn.Sequential(block.mlp, block.norm2)
        case _:
            return None
    attention, inputs = block.attn, _block_inputs(trunk, len(trunk.blocks) - 1)
    known = isinstance(attention, Attention | AttentionRope | EvaAttention | RelPosAttention)
    if not known or getattr(attention, "gate", None) is not None or getattr(attention, "num_kv_groups", 1) > 1:
        return None
    if attention.qkv is None:
        q_proj, k_proj, v_proj = attention.q_proj, attention.k_proj, attention.v_proj
    else:
        bias = attention.qkv.bias
        if getattr(attention, "q_bias", None) is not None:
            bias = torch.cat([attention.q_bias, attention.k_bias, attention.v_bias])
        q_proj, k_proj, v_proj = split_linear(attention.qkv.weight.chunk(3), bias)
    heads = attention.num_heads
    k_proj = normed_heads(k_proj, attention.k_norm, heads)
    if "rope" in inputs:
        half = getattr(attention, "rotate_half", False)
        k_proj = nn.Sequential(k_proj, _Rotation(inputs["rope"], heads, trunk.num_prefix_tokens, half))
    bias_row = None
    if isinstance(attention, RelPosAttention):
        own: Any = attention.rel_pos
        all_rows = inputs.get("shared_rel_pos") if own is None else own.get_bias()
        bias_row = None if all_rows is None else all_rows.detach()[0, :, 0]
    return Block(
        norm=norm,
        q_proj=normed_heads(q_proj, attention.q_norm, heads),
        k_proj=k_proj,
        v_proj=v_proj,
        out_proj=nn.Sequential(getattr(attention, "norm", nn.Identity()), attention.proj),
        after_attention=after_attention,
        mlp=mlp,
        num_heads=heads,
        position_bias=bias_row,
    )


def _layer_scale(gamma: nn.Parameter | None) -> nn.Module:
    if gamma is None:
        return nn.Identity()
    scale = LayerScale(len(gamma), device=gamma.device, dtype=gamma.dtype)
    scale.gamma = gamma
    return scale


class _Rotation(nn.Module):
    """Rotate keys by their positions (rotary embedding, arXiv 2104.09864); the prefix has none. [B, L, W] -> [B, L, W].

    A class token's query has no position either, so queries stay as they are.
    """

    embedding: Tensor

    def __init__(self, embedding: Tensor, num_heads: int, num_prefix: int, half: bool) -> None:
        """embedding: timm's, [P, 2 * head width] or [H, P, 2 * head width]; half: its layout."""
        super().__init__()
        self.num_heads, self.num_prefix, self.rotate_half = num_heads, num_prefix, half
        self.register_buffer("embedding", embedding.detach().clone(), persistent=False)

    def forward(self, keys: Tensor) -> Tensor:
        prefix, positions = keys[:, : self.num_prefix], keys[:, self.num_prefix :]
        heads = positions.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        rotated = apply_rot_embed_cat(heads, self.embedding, half=self.rotate_half)
        return torch.cat([prefix, rotated.transpose(1, 2).flatten(2)], 1)


class _AfterAverage(nn.Module):
    """A timm head without its averaging: a map of one position is its own average. [..., W] -> [..., D]."""

    def __init__(self, head: nn.Module, channels_last: bool) -> None:
        super().__init__()
        self.head, self.channels_last = head, channels_last

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, -2)
        one = flat[:, None, None] if self.channels_last else flat[:, :, None, None]
        return self.head(one).reshape(*x.shape[:-1], -1)


@torch.no_grad()
def _map_shape(feature_map: Callable[[Tensor], Tensor], visual: Any) -> tuple[int, int, int]:
    """Return (channels, rows, columns) at the tower's input size, measured by a run: strides round differently.

    Raises ValueError for a size that the tower can't encode.
    """
    like = next(visual.parameters())
    # One image in eval mode, so that batch statistics are neither needed nor changed.
    was_training = visual.training
    try:
        shape = feature_map(like.new_zeros(1, 3, *visual.eval().image_size)).shape
    except _SIZE_ERRORS as error:
        raise _wrong_size(visual, visual.image_size, error) from None
    visual.train(was_training)
    channels, rows, columns = shape[1:]
    return channels, rows, columns


@torch.no_grad()
def _out_features(after: nn.Module, width: int, visual: Any) -> int:
    return after(next(visual.parameters()).new_zeros(1, 1, width)).shape[-1]
