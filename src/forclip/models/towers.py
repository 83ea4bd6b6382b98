"""Cut open_clip's image towers where their pool begins: one function per family. timm's are in `timm_towers`."""

from typing import Any

from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import (
    AttentionalPooler,
    CustomResidualAttentionBlock,
    ResidualAttentionBlock,
    VisionTransformer,
)
from torch import Tensor, nn

from forclip.image_size import ImageSize, rows_and_columns
from forclip.models.pools import (
    AveragePool,
    Block,
    ClassTokenPool,
    ContrastivePool,
    MeanTokenPool,
    Pool,
    normed_heads,
    split_linear,
)
from forclip.models.timm_towers import cut_timm
from forclip.models.tower_parts import BlockStage, MapStage, Tower, WithoutPrefix, flatten_map, resize_positions


def cut_tower(visual: nn.Module, image_size: ImageSize | None = None, last_stage: bool = False) -> Tower:
    """Cut an open_clip model's image tower, `model.visual`, where its pool begins.

    image_size: pixels per side of the images to encode, or (rows, columns); None is the tower's own. Positional
    embeddings are interpolated, the tower's in place. last_stage: give the tower's last stage to the pool as
    `Pool.tower_stage` (a ResNet's layer4; a ViT's last block, or the block before it where that one is the pool's).
    Raises ValueError for a tower or pool of an unknown family, for a size that the tower can't encode, and for a last
    stage in a family without one.
    """
    shape = None if image_size is None else rows_and_columns(image_size)
    match visual:
        case ModifiedResNet(attnpool=AttentionPool2d()):
            tower = _cut_resnet(visual, shape, last_stage)
        case VisionTransformer():
            tower = _cut_vit(visual, shape, last_stage)
        case TimmModel():
            tower = cut_timm(visual, shape, last_stage)
        case _:
            raise ValueError(f"image tower {type(visual).__name__} is of no supported family")
    if last_stage and tower.pool.tower_stage is None:
        name = type(visual.trunk if isinstance(visual, TimmModel) else visual).__name__
        raise ValueError(
            f"image tower {name}: its last stage can't be trained; only vision transformers and CLIP's ResNets support"
            " train_last_stage"
        )
    return tower


def _cut_resnet(visual: Any, shape: tuple[int, int] | None, last_stage: bool) -> Tower:
    """CLIP's ResNets. Tokens [B, P, C], C = 32 times the stem's width; with the last stage in the pool, C / 2 channels
    of a map twice as wide and high."""
    pool = visual.attnpool
    native = round((len(pool.positional_embedding) - 1) ** 0.5)
    rows, columns = shape or (visual.image_size, visual.image_size)
    # The stem's first convolution rounds up, the four halvings after it round down.
    grid = ((rows + 1) // 2 // 16, (columns + 1) // 2 // 16)
    positions = resize_positions(pool.positional_embedding.detach(), (native, native), grid, prefix=1)
    dim = pool.c_proj.out_features
    head = MeanTokenPool(pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj, positions, pool.num_heads, grid, dim)
    layers = [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
    if last_stage:
        before = ((rows + 1) // 2 // 8, (columns + 1) // 2 // 8)  # one halving less
        head.tower_stage = MapStage(layers.pop(), before)
    encode = nn.Sequential(*layers)
    return Tower(lambda pixels: flatten_map(encode(visual.stem(pixels))), head)


def _cut_vit(visual: Any, shape: tuple[int, int] | None, last_stage: bool) -> Tower:
    """open_clip's ViTs. The class token is in the blocks, and pooled (CLIP), attended to (CoCa) or left out (CLIPA)."""
    if shape is not None:
        old, embedding = visual.grid_size, visual.positional_embedding
        visual.grid_size = (shape[0] // visual.patch_size[0], shape[1] // visual.patch_size[1])
        visual.image_size = shape
        resized = resize_positions(embedding.detach(), old, visual.grid_size, prefix=1)
        visual.positional_embedding = nn.Parameter(resized, requires_grad=embedding.requires_grad)
    width, grid = visual.class_embedding.shape[0], visual.grid_size
    proj: Any = nn.Identity() if visual.proj is None else split_linear([visual.proj.T], None)[0]
    dim = len(visual.ln_post.weight) if visual.proj is None else proj.out_features
    blocks: list[nn.Module] = [BlockStage(b, visual.transformer.batch_first) for b in visual.transformer.resblocks]
    last = visual.transformer.resblocks[-1]
    before_pool: list[nn.Module] = []  # applied to the blocks' output
    pool: Pool
    match visual.attn_pool, getattr(visual, "attn_pool_contrastive", None), visual.pool_type:
        case AttentionalPooler() as pooler, None, "tok":
            pool = ContrastivePool(pooler, visual.ln_post, proj, grid, dim)
        case None, _, "avg":
            after = nn.Sequential(visual.ln_post, proj) if visual.final_ln_after_pool else proj
            before_pool = [WithoutPrefix(1)] if visual.final_ln_after_pool else [WithoutPrefix(1), visual.ln_post]
            pool = AveragePool(width, after, grid, dim)
        case None, _, "tok" if (block := _open_block(last)) is not None:
            blocks.pop()
            pool = ClassTokenPool(block, visual.ln_post, proj, grid, dim)
        case pooler, _, kind:
            name = f"pool {type(pooler).__name__} and pool_type {kind!r} after {type(last).__name__}"
            raise ValueError(f"image tower VisionTransformer with {name} is of no supported family")
    if last_stage and blocks:
        stage = blocks.pop()
        # A lone block keeps the names of its parameters in saved runs.
        pool.tower_stage = nn.Sequential(stage, *before_pool) if before_pool else stage
        before_pool = []
    encode = nn.Sequential(*blocks, *before_pool)
    return Tower(lambda pixels: encode(visual._embeds(pixels)), pool)


def _open_block(block: Any) -> Block | None:
    """Take an open_clip block apart, copying its fused projection; None for a block that `Block` can't express."""
    if not isinstance(block, ResidualAttentionBlock | CustomResidualAttentionBlock):
        return None
    attention = block.attn
    q_proj, k_proj, v_proj = split_linear(attention.in_proj_weight.chunk(3), attention.in_proj_bias)
    mlp = nn.Sequential(block.ln_2, block.mlp, block.ls_2)
    heads = attention.num_heads
    if isinstance(block, ResidualAttentionBlock):
        return Block(block.ln_1, q_proj, k_proj, v_proj, attention.out_proj, block.ls_1, mlp, heads)
    if attention.logit_scale is not None:  # scaled cosine attention
        return None
    scale = [] if attention.head_scale is None else [_HeadScale(attention.head_scale)]
    return Block(
        norm=block.ln_1,
        q_proj=normed_heads(q_proj, attention.ln_q, heads),
        k_proj=normed_heads(k_proj, attention.ln_k, heads),
        v_proj=v_proj,
        out_proj=nn.Sequential(*scale, attention.ln_inner, attention.out_proj),
        after_attention=nn.Sequential(block.ln_attn, block.ls_1),
        mlp=mlp,
        num_heads=heads,
    )


class _HeadScale(nn.Module):
    """Scale each head's slice, as NormFormer does (arXiv 2110.09456). [B, N, W] -> [B, N, W]."""

    def __init__(self, scale: Tensor) -> None:
        """scale: [H, 1, 1]."""
        super().__init__()
        self.scale = nn.Parameter(scale.detach()[:, 0].clone())

    def forward(self, x: Tensor) -> Tensor:
        return (x.unflatten(-1, (len(self.scale), -1)) * self.scale).flatten(-2)
