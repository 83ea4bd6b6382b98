"""A cut tower with the pretrained query gives the tower's own embedding, in every family."""

import math
from typing import Any

import open_clip
import pytest
import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.attention_pool2d import AttentionPool2d
from timm.models.eva import Eva
from timm.models.vision_transformer import ParallelScalingBlock, ResPostBlock
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from timm.models.vision_transformer_relpos import ResPostRelPosBlock, VisionTransformerRelPos
from torch import Tensor, nn

from forclip.models.baselines import ClusterHead, DenseHead
from forclip.models.mini_clip import MINI_NAME, register_mini
from forclip.models.pools import AveragePool, ClassTokenPool, ContrastivePool, LatentPool, MeanTokenPool
from forclip.models.summary_head import window_seeded_head
from forclip.models.tower_parts import resize_positions
from forclip.models.towers import cut_tower
from tests.models.architectures import (
    assert_same,
    awake,
    calibrated,
    embedded,
    image_shape,
    pixels,
    pooled,
    shallow_tower,
)

# Name, pool, grid, and the tokens that have no position.
FAMILIES = [
    (MINI_NAME, MeanTokenPool, (12, 12), 0),
    ("RN50", MeanTokenPool, (7, 7), 0),
    ("ViT-B-32", ClassTokenPool, (7, 7), 1),
    ("coca_ViT-B-32", ContrastivePool, (7, 7), 1),
    ("EVA02-B-16", ClassTokenPool, (14, 14), 1),
    ("MobileCLIP-B", ClassTokenPool, (14, 14), 1),
    ("vit_relpos_medium_patch16_cls_224", ClassTokenPool, (14, 14), 1),
    ("PE-Core-T-16-384", LatentPool, (24, 24), 1),
    ("ViT-B-16-SigLIP", LatentPool, (14, 14), 0),
    ("MobileCLIP2-S0", AveragePool, (8, 8), 0),
    ("convnext_tiny", AveragePool, (7, 7), 0),
    ("swin_base_patch4_window7_224", AveragePool, (7, 7), 0),
    ("ViTamin-S", AveragePool, (14, 14), 0),
]


@pytest.mark.parametrize(("name", "family", "grid", "prefix"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_the_pretrained_query_gives_the_towers_embedding(
    name: str, family: type, grid: tuple[int, int], prefix: int
) -> None:
    visual = shallow_tower(name)
    images = pixels(*image_shape(visual))
    calibrated(visual, images)
    tower = cut_tower(visual)
    pool, num_positions = tower.pool, grid[0] * grid[1]
    assert isinstance(pool, family)
    assert pool.grid == grid
    theirs = embedded(visual, images)
    assert pool.dim == theirs.shape[1]
    assert_same(pooled(tower, images), theirs)
    with torch.no_grad():
        tokens = tower.tokens(images)
        assert tokens.shape[:2] == (2, prefix + num_positions)
        # The comparison is meaningful only if a wrong query fails it.
        if family is not AveragePool:
            wrong = pool(tokens, pool.pretrained_query(tokens) + torch.randn(1, 1, pool.width))[:, 0]
            assert (wrong - theirs).abs().max() > 1e-2 * (theirs[0] - theirs[1]).abs().max()
        # Every head works, and a token without a position is in no weight.
        for head, count in (
            (DenseHead(pool), num_positions),
            (ClusterHead(pool, 3), 3),
            (window_seeded_head(pool, 4), 4),
        ):
            torch.testing.assert_close(head(tokens).norm(dim=-1), torch.ones(2, count))
            assert head.position_weights(tokens).shape == (2, count, num_positions)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_architecture_gives_its_own_embedding() -> None:
    """Few layers, full width: takes about half an hour."""
    register_mini()
    failed = {}
    for name in open_clip.list_models():
        try:
            visual = shallow_tower(name)
            images = pixels(*image_shape(visual))
            calibrated(visual, images)
            assert_same(pooled(cut_tower(visual), images), embedded(visual, images))
        except (AssertionError, ValueError) as error:
            failed[name] = error
    assert not failed


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # of PyTorch, about timm's resizing of relative positions
@pytest.mark.parametrize("size", [(96, 160), (100, 170)])
@pytest.mark.parametrize("name", [family[0] for family in FAMILIES if family[0] != "RN50"])
def test_towers_encode_wide_images(name: str, size: tuple[int, int]) -> None:
    """The cut sets the tower's own size too, so that the tower is the reference; open_clip's ResNets have none."""
    visual = shallow_tower(name)
    images = pixels(*size)
    tower = cut_tower(visual, size)
    calibrated(visual, images)  # the tower shares its batch norms
    assert_same(pooled(tower, images), embedded(visual, images))
    rows, columns = tower.pool.grid
    assert rows < columns
    assert tower.tokens(images).shape[1] - tower.pool.num_positions in (0, 1)


def small_vit(image_size: int | tuple[int, int] = 32, **options: Any) -> Any:
    torch.manual_seed(0)
    return awake(VisionTransformer(image_size, 8, 32, 3, 4, 2.0, **{"output_dim": 16, **options}))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"final_ln_after_pool": True},
        {"ls_init_value": 0.1, "no_ln_pre": True},
        {"patch_dropout": 0.5},
        {"pos_embed_type": "sin_cos_2d"},
        {"pool_type": "avg"},
        {"pool_type": "avg", "final_ln_after_pool": True},
        {"qk_norm": True},
        {"scale_heads": True, "scale_attn_inner": True, "scale_attn": True, "scale_fc": True, "ls_init_value": 0.1},
        {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 5},
        {"attentional_pool": True, "attn_pooler_heads": 4, "output_dim": 32},
    ],
    ids=str,
)
@pytest.mark.parametrize("last_stage", [False, True])
def test_vit_variants(options: dict[str, Any], last_stage: bool) -> None:
    visual = small_vit(**options)
    theirs = visual(pixels(32, 32))
    assert_same(pooled(cut_tower(visual, last_stage=last_stage), pixels(32, 32)), theirs)


def test_vit_without_projection_or_batch_first() -> None:
    visual = small_vit()
    visual.proj = None
    visual.transformer.batch_first = False
    for block in visual.transformer.resblocks:
        block.attn.batch_first = False
    tower = cut_tower(visual)
    assert tower.pool.dim == 32
    assert_same(pooled(tower, pixels(32, 32)), visual(pixels(32, 32)))


@pytest.mark.parametrize("size", [(48, 48), (40, 72), (75, 33)])
@pytest.mark.parametrize("pool_type", ["tok", "avg"])
def test_vit_at_another_size_equals_open_clips_own_resizing(pool_type: str, size: tuple[int, int]) -> None:
    visual = small_vit(pool_type=pool_type)
    state = {f"visual.{name}": value.clone() for name, value in visual.state_dict().items()}
    theirs: Any = nn.Module()
    theirs.visual = small_vit(image_size=size, pool_type=pool_type)
    open_clip.model.resize_pos_embed(state, theirs)
    theirs.load_state_dict(state)
    tower = cut_tower(visual, image_size=size)
    assert tower.pool.grid == (size[0] // 8, size[1] // 8)
    assert_same(pooled(tower, pixels(*size)), theirs.visual(pixels(*size)))
    assert_same(visual(pixels(*size)), theirs.visual(pixels(*size)))


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (72, 128)])
def test_timm_attention_pool_at_another_size_equals_timms_own_resizing(size: tuple[int, int]) -> None:
    visual = shallow_tower(MINI_NAME)
    tower = cut_tower(visual, image_size=size)
    assert tower.pool.grid == (size[0] // 8, size[1] // 8)
    assert_same(pooled(tower, pixels(*size)), visual(pixels(*size)))


@pytest.mark.parametrize("size", [(96, 96), (64, 160)])
@pytest.mark.parametrize("last_stage", [False, True])
def test_resnet_at_another_size_resizes_the_pool(size: tuple[int, int], last_stage: bool) -> None:
    visual = small_resnet()
    tower = cut_tower(visual, size, last_stage)
    grid = (size[0] // 32, size[1] // 32)
    assert tower.pool.grid == grid
    # open_clip cannot resize ResNets: give its attention pool the resized positions.
    resized = resize_positions(visual.attnpool.positional_embedding, (2, 2), grid, prefix=1)
    visual.attnpool.positional_embedding = nn.Parameter(resized)
    assert_same(pooled(tower, pixels(*size)), visual(pixels(*size)))


@pytest.mark.parametrize("size", [(64, 64), (65, 127), (79, 64), (95, 33)])
@pytest.mark.parametrize("last_stage", [False, True])
def test_resnet_grid_follows_its_strides(size: tuple[int, int], last_stage: bool) -> None:
    tower = cut_tower(small_resnet(), size, last_stage)
    assert tower.pool.stage(tower.tokens(pixels(*size))).shape[1] == tower.pool.num_positions


@torch.no_grad()
def symmetric(visual: Any) -> Any:
    """Make convolutions and positions equal to their transposes, so that a turned image gives turned positions."""
    for name, parameter in visual.named_parameters():
        if parameter.ndim == 4 and parameter.shape[2] == parameter.shape[3]:
            parameter.copy_((parameter + parameter.transpose(2, 3)) / 2)
        if name.split(".")[-1] in ("positional_embedding", "pos_embed"):
            flat = parameter.view(-1, parameter.shape[-1])
            side = math.isqrt(len(flat))
            grid = flat[len(flat) - side * side :].unflatten(0, (side, side))
            grid.copy_((grid + grid.transpose(0, 1)) / 2)
    return visual


@pytest.mark.parametrize("family", ["ResNet", "ViT", MINI_NAME, "SigLIP"])
def test_a_transposed_image_at_the_transposed_size_gives_transposed_positions(family: str) -> None:
    def build() -> Any:
        match family:
            case "ResNet":
                return symmetric(small_resnet())
            case "ViT":
                return symmetric(small_vit())
            case "SigLIP":
                return symmetric(timm_trunk(TimmVisionTransformer, global_pool="map", class_token=False))
        return symmetric(shallow_tower(MINI_NAME))

    images = pixels(64, 128)
    wide, high = cut_tower(build(), (64, 128)), cut_tower(build(), (128, 64))
    turned = images.transpose(2, 3)
    assert wide.pool.grid == high.pool.grid[::-1]
    assert_same(pooled(wide, images), pooled(high, turned))
    with torch.no_grad():
        ours = wide.pool.dense(wide.tokens(images)).unflatten(1, wide.pool.grid)
        theirs = high.pool.dense(high.tokens(turned)).unflatten(1, high.pool.grid).transpose(1, 2)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        # Meaningful only if positions differ, which a wrong order would show.
        assert (ours - theirs.flip(1)).abs().max() > 1e-2


def small_resnet() -> Any:
    torch.manual_seed(0)
    visual = awake(open_clip.model.ModifiedResNet([1, 1, 1, 1], 16, heads=4, image_size=64, width=8))
    return calibrated(visual, pixels(64, 64))


def timm_tower(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return awake(TimmModel(name, embed_dim=16, **options))


def test_separate_projections_of_timms_attention_pool() -> None:
    register_mini()
    visual = timm_tower(MINI_NAME.replace("-", "_") + "_tower", pool="abs_attn", proj="linear", image_size=96)
    visual.head.pool = AttentionPool2d(128, feat_size=(12, 12), out_features=16, qkv_separate=True)
    awake(visual)
    assert_same(pooled(cut_tower(visual), pixels(96, 96)), visual(pixels(96, 96)))


def test_a_tower_whose_patches_are_no_grid() -> None:
    visual = timm_tower("tiny_vit_5m_224", pool="avg", proj="linear", image_size=224)
    tower = cut_tower(visual, (96, 160))
    assert tower.pool.grid == (3, 5)
    images = pixels(96, 160)
    calibrated(visual, images)
    assert_same(pooled(tower, images), visual(images))


@pytest.mark.parametrize("proj", ["linear", "mlp"])
def test_open_clips_projections_behind_a_timm_average(proj: str) -> None:
    visual = timm_tower("convnext_atto", pool="", proj=proj, image_size=64)
    assert_same(pooled(cut_tower(visual), pixels(64, 64)), visual(pixels(64, 64)))


def test_latent_pool_with_all_options() -> None:
    """Query and key norms, positions and layers behind the pool, none of which SigLIP has; also at another size."""
    visual = timm_tower("vit_tiny_patch16_224", pool="map", proj="", image_size=224)
    visual.trunk.attn_pool = AttentionPoolLatent(
        192, num_heads=3, qk_norm=True, norm_layer=nn.LayerNorm, pos_embed="abs", feat_size=196
    )
    visual.trunk.fc_norm = nn.LayerNorm(192)
    visual.head.append(nn.Linear(16, 8))
    awake(visual)
    assert_same(pooled(cut_tower(visual), pixels(224, 224)), visual(pixels(224, 224)))
    tower = cut_tower(visual, image_size=(96, 160))
    pool = visual.trunk.attn_pool
    pool.pos_embed = nn.Parameter(resize_positions(pool.pos_embed, (14, 14), (6, 10), prefix=0))
    assert_same(pooled(tower, pixels(96, 160)), visual(pixels(96, 160)))


def timm_trunk(build: Any, **options: Any) -> Any:
    """A small transformer of timm in open_clip's adapter, whose own trunk is replaced."""
    visual = timm_tower("vit_tiny_patch16_224", pool="token", proj="linear", image_size=48)
    torch.manual_seed(0)
    small = {"img_size": 48, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 0}
    visual.trunk = build(**{**small, "global_pool": "token", **options})
    visual.head = nn.Sequential(nn.Linear(32, 16))
    return awake(visual)


ROTARY = {"use_rot_pos_emb": True, "ref_feat_shape": (4, 4)}
TIMM_TRANSFORMERS: list[tuple[Any, dict[str, Any]]] = [
    (Eva, {}),
    (Eva, {**ROTARY, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True, "qkv_fused": False}),
    (Eva, {**ROTARY, "use_post_norm": True, "init_values": 0.1}),
    (Eva, {**ROTARY, "init_values": 0.1, "num_reg_tokens": 2, "use_abs_pos_emb": False}),
    (Eva, {**ROTARY, "attn_type": "rope", "qk_norm": True, "rope_rotate_half": True, "qkv_fused": False}),
    (Eva, {**ROTARY, "rope_type": "mixed"}),
    (Eva, {**ROTARY, "global_pool": "avg"}),
    (Eva, {**ROTARY, "global_pool": "map", "use_pre_transformer_norm": True, "num_reg_tokens": 1}),
    (Eva, {"global_pool": "map", "class_token": False}),
    (TimmVisionTransformer, {"init_values": 0.1, "qk_norm": True, "scale_attn_norm": True, "scale_mlp_norm": True}),
    (TimmVisionTransformer, {"block_fn": ResPostBlock, "no_embed_class": True, "reg_tokens": 2, "pre_norm": True}),
    (TimmVisionTransformer, {"global_pool": "avg", "pool_include_prefix": True}),
    (TimmVisionTransformer, {"global_pool": "avg", "reg_tokens": 2}),
    (TimmVisionTransformer, {"global_pool": "map"}),
    (TimmVisionTransformer, {"global_pool": "map", "pool_include_prefix": True}),
    (VisionTransformerRelPos, {"class_token": True}),
    (VisionTransformerRelPos, {"class_token": True, "rel_pos_type": "bias", "shared_rel_pos": True}),
    (VisionTransformerRelPos, {"class_token": True, "block_fn": ResPostRelPosBlock, "qk_norm": True}),
    (VisionTransformerRelPos, {"global_pool": "avg"}),
]


@pytest.mark.filterwarnings("ignore::UserWarning:timm")  # of PyTorch, about timm's resizing of relative positions
@pytest.mark.parametrize("last_stage", [False, True])
@pytest.mark.parametrize("size", [(48, 48), (40, 72)])
@pytest.mark.parametrize(("build", "options"), TIMM_TRANSFORMERS, ids=str)
def test_timms_transformers(build: Any, options: dict[str, Any], size: tuple[int, int], last_stage: bool) -> None:
    """Also at another size: timm resizes positions, rotary and relative ones among them, itself."""
    visual = timm_trunk(build, **options)
    tower = cut_tower(visual, None if size == (48, 48) else size, last_stage)
    assert tower.pool.grid == (size[0] // 8, size[1] // 8)
    images = pixels(*size)
    assert_same(pooled(tower, images), embedded(visual, images))
    tokens = tower.pool.stage(tower.tokens(images))
    assert tower.pool.dense(tokens).shape == (2, tower.pool.num_positions, 16)


@pytest.mark.parametrize("options", [{}, ROTARY, {**ROTARY, "num_reg_tokens": 2}], ids=str)
def test_attention_to_positions_is_the_class_tokens_in_timms_block(options: dict[str, Any]) -> None:
    visual = timm_trunk(Eva, **options)
    attention = visual.trunk.blocks[-1].attn
    attention.fused_attn = False
    seen: list[Tensor] = []
    attention.attn_drop.register_forward_hook(lambda module, inputs, output: seen.append(output))
    embedded(visual, pixels(48, 48))
    tower = cut_tower(visual)
    tokens = tower.tokens(pixels(48, 48))
    ours = tower.pool.attention(tokens, tower.pool.pretrained_query(tokens))[:, 0]
    torch.testing.assert_close(ours, seen[0].mean(1)[:, 0, visual.trunk.num_prefix_tokens :])
    assert (ours.sum(-1) < 1).all()


def test_unknown_towers_are_refused_by_name() -> None:
    pooler = {"attn_pooler_heads": 4, "output_dim": 32}
    with pytest.raises(ValueError, match=r"AttentionalPooler.*'none'"):
        cut_tower(small_vit(attentional_pool="parallel", **pooler))
    with pytest.raises(ValueError, match=r"AttentionalPooler.*'avg'"):
        cut_tower(small_vit(attentional_pool=True, pool_type="avg", **pooler))
    with pytest.raises(ValueError, match=r"VisionTransformer.*pool_type 'none'"):
        cut_tower(small_vit(pool_type="none"))
    with pytest.raises(ValueError, match=r"VisionTransformer.*CustomResidualAttentionBlock"):
        cut_tower(small_vit(scaled_cosine_attn=True))
    with pytest.raises(ValueError, match=r"ConvNeXt.*RotAttentionPool2d"):
        cut_tower(timm_tower("convnext_atto", pool="rot_attn", proj="", image_size=64))
    with pytest.raises(ValueError, match=r"VisionTransformer.*avgmax"):
        cut_tower(timm_trunk(TimmVisionTransformer, global_pool="avgmax"))
    with pytest.raises(ValueError, match=r"VisionTransformer.*token after ParallelScalingBlock"):
        cut_tower(timm_trunk(TimmVisionTransformer, block_fn=ParallelScalingBlock))
    with pytest.raises(ValueError, match=r"Eva.*token after EvaBlock"):
        cut_tower(timm_trunk(Eva, attn_type="rope", qkv_fused=False, num_kv_heads=2))
    with pytest.raises(ValueError, match=r"Eva.*token"):
        cut_tower(timm_trunk(Eva, depth=1))
    with pytest.raises(ValueError, match="Linear"):
        cut_tower(nn.Linear(2, 2))


def test_a_size_that_a_tower_cannot_encode_is_refused_by_name_and_value() -> None:
    """Its windows of fixed size don't fit."""
    visual = timm_tower("gcvit_xxtiny", pool="avg", proj="linear", image_size=224)
    with pytest.raises(ValueError, match=r"GlobalContextVit.*96x160"):
        cut_tower(visual, (96, 160))


def test_resized_positions_keep_prefix_and_constants() -> None:
    embedding = torch.full((1 + 6, 4), 2.0)
    embedding[0] = 5
    resized = resize_positions(embedding, (2, 3), (4, 5), prefix=1)
    assert resized.shape == (1 + 20, 4)
    assert (resized[0] == 5).all()
    torch.testing.assert_close(resized[1:], torch.full((20, 4), 2.0))
    assert resize_positions(embedding, (2, 3), (2, 3), prefix=1) is embedding


def test_resized_positions_keep_rows_and_columns_apart() -> None:
    rows = torch.arange(3.0)[:, None].expand(3, 2).reshape(6, 1)
    resized = resize_positions(rows, (3, 2), (6, 4), prefix=0).reshape(6, 4)
    torch.testing.assert_close(resized, resized[:, :1].expand(6, 4))
    assert (resized[1:, 0] > resized[:-1, 0]).all()
