"""Cut open_clip's image towers, its own and timm's, where their pool begins: one function per family."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.attention_pool2d import AttentionPool2d as TimmAttentionPool
from timm.layers.classifier import ClassifierHead, NormMlpClassifierHead
from timm.models.byobnet import ByobNet
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.pools import AveragePool, ClassTokenPool, LatentPool, MeanTokenPool, Pool, split_linear


@dataclass(frozen=True)
class Tower:
    """An image tower cut where its pool begins.

    tokens: [B, 3, H, W] -> [B, T, W]; pool: reads these tokens, and may share modules with the tower.
    """

    tokens: Callable[[Tensor], Tensor]
    pool: Pool


def cut_tower(visual: nn.Module, image_size: int | None = None, last_stage: bool = False) -> Tower:
    """Cut an open_clip model's image tower, `model.visual`, where its pool begins.

    image_size: pixels per side of the images to encode; None is the tower's own. Positional embeddings are
    interpolated, the tower's in place. last_stage: give the tower's last stage to the pool as `Pool.tower_stage` (a
    ResNet's layer4, the block of a ViT before the pool's). Raises ValueError for a tower or pool of an unknown family,
    and for a last stage in a family without one.
    """
    match visual:
        case ModifiedResNet(attnpool=AttentionPool2d()):
            tower = _cut_resnet(visual, image_size, last_stage)
        case VisionTransformer(attn_pool=pool, pool_type=kind, transformer=blocks):
            last = blocks.resblocks[-1]
            known_kind = kind == "avg" or (kind == "tok" and isinstance(last, ResidualAttentionBlock))
            if pool is not None or not known_kind:
                name = f"pool {type(pool).__name__} and pool_type {kind!r} after {type(last).__name__}"
                raise ValueError(f"image tower VisionTransformer with {name} is of no supported family")
            tower = _cut_vit(visual, image_size, last_stage)
        case TimmModel():
            tower = _cut_timm(visual, image_size, last_stage)
        case _:
            raise ValueError(f"image tower {type(visual).__name__} is of no supported family")
    if last_stage and tower.pool.tower_stage is None:
        raise ValueError(
            f"image tower {type(visual).__name__}: its last stage can't be trained; only CLIP's own ResNets and ViTs"
            " support train_last_stage"
        )
    return tower


def _cut_resnet(visual: Any, image_size: int | None, last_stage: bool) -> Tower:
    """CLIP's ResNets. Tokens [B, P, C], C = 32 times the stem's width; with the last stage in the pool, C / 2 channels
    of a map twice as wide and high."""
    pool = visual.attnpool
    native = round((len(pool.positional_embedding) - 1) ** 0.5)
    # The stem's first convolution rounds up, the four halvings after it round down.
    side = native if image_size is None else (image_size + 1) // 2 // 16
    positions = resize_positions(pool.positional_embedding.detach(), (native, native), (side, side), prefix=1)
    grid, dim = (side, side), pool.c_proj.out_features
    head = MeanTokenPool(pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj, positions, pool.num_heads, grid, dim)
    layers = [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
    if last_stage:
        size = visual.image_size if image_size is None else image_size
        before = (size + 1) // 2 // 8  # as above, one halving less
        head.tower_stage = MapStage(layers.pop(), (before, before))
    encode = nn.Sequential(*layers)
    return Tower(lambda pixels: flatten_map(encode(visual.stem(pixels))), head)


def _cut_vit(visual: Any, image_size: int | None, last_stage: bool) -> Tower:
    """CLIP's ViTs, and those that average their patches (CLIPA): the class token is in the blocks, not in the mean."""
    if image_size is not None:
        old, embedding = visual.grid_size, visual.positional_embedding
        visual.grid_size = (image_size // visual.patch_size[0], image_size // visual.patch_size[1])
        visual.image_size = (image_size, image_size)
        resized = resize_positions(embedding.detach(), old, visual.grid_size, prefix=1)
        visual.positional_embedding = nn.Parameter(resized, requires_grad=embedding.requires_grad)
    width = visual.class_embedding.shape[0]
    proj: Any = nn.Identity() if visual.proj is None else split_linear(visual.proj.T, None, 1)[0]
    dim = width if visual.proj is None else proj.out_features
    blocks = [BlockStage(block, visual.transformer.batch_first) for block in visual.transformer.resblocks]
    if visual.pool_type == "avg":
        before, after = visual.ln_post, proj
        if visual.final_ln_after_pool:
            before, after = nn.Identity(), nn.Sequential(visual.ln_post, proj)
        encode = nn.Sequential(*blocks)
        pool = AveragePool(width, after, visual.grid_size, dim)
        return Tower(lambda pixels: before(encode(visual._embeds(pixels))[:, 1:]), pool)
    head = ClassTokenPool(blocks.pop().block, visual.ln_post, proj, visual.grid_size, dim)
    if last_stage:
        head.tower_stage = blocks.pop()
    encode = nn.Sequential(*blocks)
    return Tower(lambda pixels: encode(visual._embeds(pixels)), head)


def _cut_timm(visual: Any, image_size: int | None, last_stage: bool) -> Tower:
    """Cut a timm model in open_clip's adapter; arguments as in `cut_tower`.

    Averages are those of ViTs without class and register tokens (ViTamin among them), and of convolutional towers
    (MobileCLIP's FastViT, ConvNeXt).
    """
    trunk, head = visual.trunk, visual.head
    native_grid = trunk.patch_embed.grid_size if hasattr(trunk, "patch_embed") else None
    if image_size is not None:
        visual.set_input_size(image_size)
    match getattr(head, "pool", None), getattr(trunk, "attn_pool", None), trunk, getattr(trunk, "head", None):
        case TimmAttentionPool(cls_token=None, pool_type="token"), _, _, _:
            return _cut_timm_attention_pool(visual, last_stage)
        case None, AttentionPoolLatent(pool="token", latent_len=1), _, _ if _is_plain_latent(trunk):
            return _cut_latent(visual, native_grid)
        case None, None, TimmVisionTransformer(global_pool="avg", pool_include_prefix=False), _:
            after: nn.Module = nn.Sequential(trunk.fc_norm, trunk.head, *head)
            dim = _out_features(after, trunk.embed_dim, visual)
            average = AveragePool(trunk.embed_dim, after, trunk.patch_embed.grid_size, dim)
            return Tower(lambda pixels: trunk.forward_features(pixels)[:, trunk.num_prefix_tokens :], average)
        case None, None, _, (ClassifierHead(input_fmt="NCHW") | NormMlpClassifierHead()) as classifier if (
            classifier.global_pool.pool_type in ("avg", "fast", "fastavg")  # the mean over positions
        ):
            width, rows, columns = _map_shape(trunk.forward_features, visual)
            after = _AfterAverage(nn.Sequential(trunk.head, *head))
            average = AveragePool(width, after, (rows, columns), _out_features(after, width, visual))
            return Tower(lambda pixels: flatten_map(trunk.forward_features(pixels)), average)
        case adapter_pool, attention_pool, _, _:
            pool = adapter_pool or attention_pool or getattr(trunk, "global_pool", None) or trunk.head
            name = pool if isinstance(pool, str) else type(pool).__name__
            raise ValueError(f"image tower timm {type(trunk).__name__} with pool {name} is of no supported family")


def _cut_timm_attention_pool(visual: Any, last_stage: bool) -> Tower:
    """A feature map under CLIP's attention pool ('abs_attn'). Only a ByobNet (CLIP-like ResNet) has a last stage."""
    trunk, pool = visual.trunk, visual.head.pool
    q, k, v = [pool.q, pool.k, pool.v] if pool.qkv is None else split_linear(pool.qkv.weight, pool.qkv.bias, 3)
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


def _is_plain_latent(trunk: Any) -> bool:
    """Whether LatentPool can express the pool: only positions are attended, only the latent is a query."""
    pool = trunk.attn_pool
    # timm's Eva hands its class token to the pool as well; its VisionTransformer does so by an option.
    prefix = trunk.num_prefix_tokens if getattr(trunk, "pool_include_prefix", True) else 0
    return prefix == 0 and pool.mlp is not None and isinstance(pool.q, nn.Linear) and pool.latent_dim == trunk.embed_dim


def _cut_latent(visual: Any, native_grid: tuple[int, int] | None) -> Tower:
    """SigLIP's MAP pool, followed by the layers of timm and open_clip behind it."""
    trunk, pool = visual.trunk, visual.trunk.attn_pool
    proj, grid, positions = nn.Sequential(trunk.fc_norm, trunk.head, *visual.head), trunk.patch_embed.grid_size, None
    if pool.pos_embed is not None:
        assert native_grid is not None, "the latent pool's positions are a ViT's"
        positions = resize_positions(pool.pos_embed.detach(), native_grid, grid, prefix=0)
    head = LatentPool(pool, positions, proj, grid, _out_features(proj, pool.out_features, visual))
    return Tower(lambda pixels: trunk.forward_features(pixels)[:, trunk.num_prefix_tokens :], head)


class _AfterAverage(nn.Module):
    """A timm head without its averaging: a map of one position is its own average. [..., W] -> [..., D]."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(0, -2)[:, :, None, None]).reshape(*x.shape[:-1], -1)


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


class MapStage(nn.Module):
    """A convolutional stage on flattened feature maps, for `Pool.tower_stage`. [B, P', C'] -> [B, P, C]."""

    def __init__(self, layer: nn.Module, grid: tuple[int, int]) -> None:
        """grid: (rows, columns) of the stage's input."""
        super().__init__()
        self.layer, self.grid = layer, grid

    def forward(self, tokens: Tensor) -> Tensor:
        return flatten_map(self.layer(tokens.transpose(1, 2).unflatten(2, self.grid)))


class BlockStage(nn.Module):
    """A transformer block on tokens [B, T, W], for `Pool.tower_stage`. batch_first: the block's own layout."""

    def __init__(self, block: nn.Module, batch_first: bool) -> None:
        super().__init__()
        self.block, self.batch_first = block, batch_first

    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(tokens) if self.batch_first else self.block(tokens.transpose(0, 1)).transpose(0, 1)


def flatten_map(feature_map: Tensor) -> Tensor:
    """[B, C, rows, columns] -> [B, P, C], positions row-major."""
    return feature_map.flatten(2).transpose(1, 2)


def resize_positions(embedding: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int) -> Tensor:
    """Interpolate positional embeddings to another grid, as open_clip does; the prefix stays unchanged.

    embedding: [prefix + old positions, W]; old, new: (rows, columns). Returns [prefix + new positions, W].
    """
    assert len(embedding) == prefix + old[0] * old[1], f"{len(embedding)} embeddings for a grid of {old} and {prefix}"
    if old == new:
        return embedding
    image = embedding[prefix:].T.reshape(1, -1, *old).float()
    resized = F.interpolate(image, new, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([embedding[:prefix], resized[0].flatten(1).T.to(embedding.dtype)])
