"""Cut open_clip's image towers where their pool begins: one function per family, chosen in `cut_tower`."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers.attention_pool2d import AttentionPool2d as AttentionPool
from timm.models.byobnet import ByobNet
from torch import Tensor, nn

from forclip.models.pools import AveragePool, ClassTokenPool, MeanTokenPool
from forclip.models.tower import BlockStage, MapStage, Tower, flatten_map, resize_positions, split_linear
from forclip.models.towers_timm import cut_timm


def cut_tower(visual: nn.Module, image_size: int | None = None, last_stage: bool = False) -> Tower:
    """Cut an open_clip model's image tower, `model.visual`, where its pool begins.

    image_size: pixels per side of the images to encode; None is the tower's own. Positional embeddings are
    interpolated, the tower's in place. last_stage: give the tower's last stage to the pool as `Pool.tower_stage` (a
    ResNet's layer4, the block of a ViT before the pool's). Raises ValueError for a tower or pool of an unknown family,
    and for a last stage in a family without one.
    """
    if last_stage and not _has_last_stage(visual):
        raise ValueError(
            f"image tower {type(visual).__name__}: its last stage can't be trained; only CLIP's own ResNets and ViTs"
            " support train_last_stage"
        )
    match visual:
        case ModifiedResNet(attnpool=AttentionPool2d()):
            return _cut_resnet(visual, image_size, last_stage)
        case VisionTransformer(attn_pool=None):
            if image_size is not None:
                _resize_vit(visual, image_size)
            match visual.pool_type, visual.transformer.resblocks[-1]:
                case "tok", ResidualAttentionBlock():
                    return _cut_class_token_vit(visual, last_stage)
                case "avg", _:
                    return _cut_averaging_vit(visual)
                case pool_type, block:
                    pool = f" with pool_type {pool_type!r} after {type(block).__name__}"
        case VisionTransformer():
            pool = f" with pool {type(visual.attn_pool).__name__}, as in CoCa,"
        case TimmModel():
            return cut_timm(visual, image_size, last_stage)
        case _:
            pool = ""
    raise ValueError(f"image tower {type(visual).__name__}{pool} is of no supported family")


def _has_last_stage(visual: nn.Module) -> bool:
    match visual:
        case ModifiedResNet() | TimmModel(trunk=ByobNet(), head=nn.Module(pool=AttentionPool())):
            return True
        case VisionTransformer():
            return bool(visual.pool_type == "tok")
    return False


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
    return Tower(partial(_resnet_tokens, visual.stem, layers), head)


def _resnet_tokens(stem: Any, layers: Sequence[nn.Module], pixels: Tensor) -> Tensor:
    feature_map = stem(pixels)
    for layer in layers:
        feature_map = layer(feature_map)
    return flatten_map(feature_map)


def _resize_vit(visual: Any, image_size: int) -> None:
    """Make the tower accept squares of image_size, in place."""
    old, embedding = visual.grid_size, visual.positional_embedding
    visual.grid_size = (image_size // visual.patch_size[0], image_size // visual.patch_size[1])
    visual.image_size = (image_size, image_size)
    resized = resize_positions(embedding.detach(), old, visual.grid_size, prefix=1)
    visual.positional_embedding = nn.Parameter(resized, requires_grad=embedding.requires_grad)


def _cut_class_token_vit(visual: Any, last_stage: bool) -> Tower:
    *blocks, block = visual.transformer.resblocks
    q_proj, k_proj, v_proj = split_linear(block.attn.in_proj_weight, block.attn.in_proj_bias, 3)
    proj, dim = _vit_projection(visual)
    head = ClassTokenPool(
        block.ln_1,
        q_proj,
        k_proj,
        v_proj,
        block.attn.out_proj,
        after_attention=block.ls_1,
        mlp=nn.Sequential(block.ln_2, block.mlp, block.ls_2),
        ln_post=visual.ln_post,
        proj=proj,
        num_heads=block.attn.num_heads,
        grid=visual.grid_size,
        dim=dim,
    )
    if last_stage:
        head.tower_stage = BlockStage(blocks.pop(), visual.transformer.batch_first)
    return Tower(partial(_vit_tokens, visual, blocks), head)


def _cut_averaging_vit(visual: Any) -> Tower:
    """A ViT that averages its patches (CLIPA). The class token takes part in the blocks, not in the average."""
    proj, dim = _vit_projection(visual)
    before: nn.Module = nn.Identity()
    after: nn.Module = nn.Sequential(visual.ln_post, proj)
    if not visual.final_ln_after_pool:
        before, after = visual.ln_post, proj
    blocks, width = visual.transformer.resblocks, visual.class_embedding.shape[0]

    def tokens(pixels: Tensor) -> Tensor:
        return before(_vit_tokens(visual, blocks, pixels)[:, 1:])

    return Tower(tokens, AveragePool(width, after, visual.grid_size, dim))


def _vit_tokens(visual: Any, blocks: Iterable[nn.Module], pixels: Tensor) -> Tensor:
    """Run the given blocks. [B, 3, H, W] -> [B, 1 + P, W]."""
    x: Tensor = visual._embeds(pixels)
    batch_first = visual.transformer.batch_first
    x = x if batch_first else x.transpose(0, 1)
    for block in blocks:
        x = block(x)
    return x if batch_first else x.transpose(0, 1)


def _vit_projection(visual: Any) -> tuple[nn.Module, int]:
    """Return the last projection as a layer, and D."""
    if visual.proj is None:
        return nn.Identity(), visual.class_embedding.shape[0]
    (proj,) = split_linear(visual.proj.T, None, 1)
    return proj, proj.out_features
