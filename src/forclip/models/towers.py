"""From open_clip's image towers to `Tower`: one function a family, chosen in `cut_tower`; timm's are next door."""

from functools import partial
from typing import Any

from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from forclip.models.pools import AveragePool, ClassTokenPool, MeanTokenPool
from forclip.models.tower_parts import Tower, resize_positions, split_linear
from forclip.models.towers_timm import cut_timm


def cut_tower(visual: nn.Module, image_size: int | None = None) -> Tower:
    """The tower of an open_clip model, `model.visual`, cut where its pool begins.

    image_size: pixels a side that the tokens will be computed at, if not the tower's own; the positional embeddings
    are then interpolated, the tower's own in place. Raises ValueError for a tower or pool of no known family.
    """
    match visual:
        case ModifiedResNet(attnpool=AttentionPool2d()):
            return _cut_resnet(visual, image_size)
        case VisionTransformer(attn_pool=None):
            if image_size is not None:
                _resize_vit(visual, image_size)
            match visual.pool_type, visual.transformer.resblocks[-1]:
                case "tok", ResidualAttentionBlock():
                    return _cut_class_token_vit(visual)
                case "avg", _:
                    return _cut_averaging_vit(visual)
                case pool_type, block:
                    raise _unknown(visual, f"pool_type {pool_type!r} after {type(block).__name__}")
        case VisionTransformer():
            raise _unknown(visual, f"{type(visual.attn_pool).__name__}, as in CoCa")
        case TimmModel():
            return cut_timm(visual, image_size)
    raise _unknown(visual, "")


def _unknown(visual: nn.Module, pool: str) -> ValueError:
    what = f"image tower {type(visual).__name__}" + (f" with pool {pool}" if pool else "")
    return ValueError(f"{what} is of no family that forclip knows")


def _cut_resnet(visual: Any, image_size: int | None) -> Tower:
    """CLIP's own ResNets. [B, 3, H, W] -> [B, P, C], C = 32 times the stem's width."""
    pool = visual.attnpool
    native = round((len(pool.positional_embedding) - 1) ** 0.5)
    # The stem's first convolution rounds up, the four halvings after it round down.
    side = native if image_size is None else (image_size + 1) // 2 // 16
    positions = resize_positions(pool.positional_embedding.detach(), (native, native), (side, side), prefix=1)
    return Tower(
        partial(_resnet_tokens, visual),
        MeanTokenPool(
            pool.q_proj,
            pool.k_proj,
            pool.v_proj,
            pool.c_proj,
            positions,
            pool.num_heads,
            (side, side),
            dim=pool.c_proj.out_features,
        ),
    )


def _resnet_tokens(visual: Any, pixels: Tensor) -> Tensor:
    feature_map = visual.stem(pixels)
    for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        feature_map = stage(feature_map)
    tokens: Tensor = feature_map.flatten(2).transpose(1, 2)
    return tokens


def _resize_vit(visual: Any, image_size: int) -> None:
    """Makes the tower take squares of image_size, in place."""
    old, embedding = visual.grid_size, visual.positional_embedding
    visual.grid_size = (image_size // visual.patch_size[0], image_size // visual.patch_size[1])
    visual.image_size = (image_size, image_size)
    resized = resize_positions(embedding.detach(), old, visual.grid_size, prefix=1)
    visual.positional_embedding = nn.Parameter(resized, requires_grad=embedding.requires_grad)


def _cut_class_token_vit(visual: Any) -> Tower:
    block = visual.transformer.resblocks[-1]
    q_proj, k_proj, v_proj = split_linear(block.attn.in_proj_weight, block.attn.in_proj_bias, 3)
    proj, dim = _vit_projection(visual)
    return Tower(
        partial(_vit_tokens, visual, visual.transformer.resblocks[:-1]),
        ClassTokenPool(
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
        ),
    )


def _cut_averaging_vit(visual: Any) -> Tower:
    """A ViT that averages its patches (CLIPA). The class token takes part in the blocks, not in the average."""
    proj, dim = _vit_projection(visual)
    before: nn.Module = nn.Identity()
    after: nn.Module = nn.Sequential(visual.ln_post, proj)
    if not visual.final_ln_after_pool:
        before, after = visual.ln_post, proj
    blocks, width = visual.transformer.resblocks, visual.class_embedding.shape[0]

    def tokens(pixels: Tensor) -> Tensor:
        out: Tensor = before(_vit_tokens(visual, blocks, pixels)[:, 1:])
        return out

    return Tower(tokens, AveragePool(width, after, visual.grid_size, dim))


def _vit_tokens(visual: Any, blocks: nn.ModuleList, pixels: Tensor) -> Tensor:
    """What leaves the given blocks. [B, 3, H, W] -> [B, 1 + P, W]."""
    x: Tensor = visual._embeds(pixels)
    batch_first = visual.transformer.batch_first
    x = x if batch_first else x.transpose(0, 1)
    for block in blocks:
        x = block(x)
    return x if batch_first else x.transpose(0, 1)


def _vit_projection(visual: Any) -> tuple[nn.Module, int]:
    """The last projection as a layer, and D."""
    if visual.proj is None:
        return nn.Identity(), visual.class_embedding.shape[0]
    (proj,) = split_linear(visual.proj.T, None, 1)
    return proj, proj.out_features
