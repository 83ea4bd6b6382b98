"""A cut tower with the pretrained query gives the tower's own embedding, in every family."""

from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.attention_pool2d import AttentionPool2d
from torch import Tensor, nn

from forclip.models.mini_clip import MINI_NAME, register_mini
from forclip.models.pools import AveragePool, ClassTokenPool, LatentPool, MeanTokenPool
from forclip.models.towers import Tower, cut_tower, resize_positions

FAMILIES = [
    (MINI_NAME, MeanTokenPool, (12, 12)),
    ("RN50", MeanTokenPool, (7, 7)),
    ("ViT-B-32", ClassTokenPool, (7, 7)),
    ("ViT-B-16-SigLIP", LatentPool, (14, 14)),
    ("MobileCLIP2-S0", AveragePool, (8, 8)),
    ("convnext_tiny", AveragePool, (7, 7)),
    ("ViTamin-S", AveragePool, (14, 14)),
]


def build_visual(name: str) -> Any:
    """The randomly initialised image tower of a built-in model, without its text tower, in eval mode."""
    register_mini()
    config = open_clip.get_model_config(name)
    assert config is not None
    torch.manual_seed(0)
    return awake(_build_vision_tower(config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"])))


def awake(visual: nn.Module) -> Any:
    """Freeze, set eval mode, and randomise constant parameters (biases, layer scales, latents)."""
    for parameter in visual.parameters():
        parameter.requires_grad_(False)
        if (parameter == parameter.flatten()[0]).all():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return visual.eval()


def calibrated(visual: nn.Module, images: Tensor) -> Any:
    """Set batch norms to the statistics of `images`: else a deep random tower maps all images to almost one vector."""
    for module in visual.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        visual.train()(images)
    return visual.eval()


def pixels(*shape: int) -> Tensor:
    return torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))


def pooled(tower: Tower, images: Tensor) -> Tensor:
    """Pool with the pretrained query. Returns [B, D]."""
    with torch.no_grad():
        tokens = tower.tokens(images)
        embeddings: Tensor = tower.pool(tokens, tower.pool.pretrained_query(tokens))
    return embeddings[:, 0]


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert torch.cosine_similarity(ours, theirs).min() > 0.9999
    # Directions alone would accept towers that map all images to almost one vector.
    scale = (theirs[0] - theirs[1]).abs().max()
    assert scale > 1e-3 * theirs.abs().max()
    assert (ours - theirs).abs().max() < 1e-3 * scale


@pytest.mark.parametrize(("name", "family", "grid"), FAMILIES, ids=[family[0] for family in FAMILIES])
def test_the_pretrained_query_gives_the_towers_embedding(name: str, family: type, grid: tuple[int, int]) -> None:
    visual = build_visual(name)
    images = pixels(*(visual.image_size if isinstance(visual.image_size, tuple) else (visual.image_size,) * 2))
    calibrated(visual, images)
    tower = cut_tower(visual)
    assert isinstance(tower.pool, family)
    assert tower.pool.grid == grid
    with torch.no_grad():
        theirs = visual(images)
        tokens = tower.tokens(images)
        assert tokens.shape == (2, grid[0] * grid[1] + (family is ClassTokenPool), tower.pool.width)
        assert tower.pool.dense(tokens).shape == (2, grid[0] * grid[1], tower.pool.dim)
    assert tower.pool.dim == theirs.shape[1]
    assert_same(pooled(tower, images), theirs)
    # The comparison is meaningful only if a wrong query fails it.
    if family is not AveragePool:
        with torch.no_grad():
            wrong = tower.pool(tokens, tower.pool.pretrained_query(tokens) + torch.randn(1, 1, tower.pool.width))[:, 0]
        assert (wrong - theirs).abs().max() > 1e-2 * (theirs[0] - theirs[1]).abs().max()


def small_vit(image_size: int = 32, **options: Any) -> Any:
    torch.manual_seed(0)
    return awake(VisionTransformer(image_size, 8, 32, 3, 4, 2.0, output_dim=16, **options))


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
    ],
    ids=str,
)
def test_vit_variants(options: dict[str, Any]) -> None:
    visual = small_vit(**options)
    assert_same(pooled(cut_tower(visual), pixels(32, 32)), visual(pixels(32, 32)))


def test_vit_without_projection_or_batch_first() -> None:
    visual = small_vit()
    visual.proj = None
    visual.transformer.batch_first = False
    for block in visual.transformer.resblocks:
        block.attn.batch_first = False
    tower = cut_tower(visual)
    assert tower.pool.dim == 32
    assert_same(pooled(tower, pixels(32, 32)), visual(pixels(32, 32)))


@pytest.mark.parametrize("pool_type", ["tok", "avg"])
def test_vit_at_another_size_equals_open_clips_own_resizing(pool_type: str) -> None:
    visual = small_vit(pool_type=pool_type)
    state = {f"visual.{name}": value.clone() for name, value in visual.state_dict().items()}
    theirs: Any = nn.Module()
    theirs.visual = small_vit(image_size=48, pool_type=pool_type)
    open_clip.model.resize_pos_embed(state, theirs)
    theirs.load_state_dict(state)
    tower = cut_tower(visual, image_size=48)
    assert tower.pool.grid == (6, 6)
    assert_same(pooled(tower, pixels(48, 48)), theirs.visual(pixels(48, 48)))
    assert_same(visual(pixels(48, 48)), theirs.visual(pixels(48, 48)))


@pytest.mark.parametrize("size", [64, 72, 128])
def test_timm_attention_pool_at_another_size_equals_timms_own_resizing(size: int) -> None:
    visual = build_visual(MINI_NAME)
    tower = cut_tower(visual, image_size=size)
    assert tower.pool.grid == (size // 8, size // 8)
    assert_same(pooled(tower, pixels(size, size)), visual(pixels(size, size)))


def test_resnet_at_another_size_resizes_the_pool() -> None:
    visual = small_resnet()
    tower = cut_tower(visual, image_size=96)
    assert tower.pool.grid == (3, 3)
    # open_clip cannot resize ResNets: give its attention pool the resized positions.
    resized = resize_positions(visual.attnpool.positional_embedding, (2, 2), (3, 3), prefix=1)
    visual.attnpool.positional_embedding = nn.Parameter(resized)
    assert_same(pooled(tower, pixels(96, 96)), visual(pixels(96, 96)))


@pytest.mark.parametrize("size", [64, 65, 79, 95, 127])
def test_resnet_grid_follows_its_strides(size: int) -> None:
    tower = cut_tower(small_resnet(), image_size=size)
    assert tower.tokens(pixels(size, size)).shape[1] == tower.pool.num_positions


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


@pytest.mark.parametrize("proj", ["linear", "mlp"])
def test_open_clips_projections_behind_a_timm_average(proj: str) -> None:
    visual = timm_tower("convnext_atto", pool="", proj=proj, image_size=64)
    assert_same(pooled(cut_tower(visual), pixels(64, 64)), visual(pixels(64, 64)))


def test_latent_pool_at_another_size() -> None:
    visual = build_visual("ViT-B-32-SigLIP2-256")
    tower = cut_tower(visual, image_size=160)
    assert tower.pool.grid == (5, 5)
    assert_same(pooled(tower, pixels(160, 160)), visual(pixels(160, 160)))


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
    tower = cut_tower(visual, image_size=96)
    pool = visual.trunk.attn_pool
    pool.pos_embed = nn.Parameter(resize_positions(pool.pos_embed, (14, 14), (6, 6), prefix=0))
    assert_same(pooled(tower, pixels(96, 96)), visual(pixels(96, 96)))


def test_unknown_towers_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="AttentionalPooler"):
        cut_tower(small_vit(attentional_pool=True, attn_pooler_heads=4))
    with pytest.raises(ValueError, match=r"VisionTransformer.*pool_type 'none'"):
        cut_tower(small_vit(pool_type="none"))
    with pytest.raises(ValueError, match=r"VisionTransformer.*CustomResidualAttentionBlock"):
        cut_tower(small_vit(qk_norm=True))
    with pytest.raises(ValueError, match=r"ConvNeXt.*RotAttentionPool2d"):
        cut_tower(timm_tower("convnext_atto", pool="rot_attn", proj="", image_size=64))
    with pytest.raises(ValueError, match=r"VisionTransformer.*token"):
        cut_tower(timm_tower("vit_tiny_patch16_224", pool="token", proj="linear"))
    with pytest.raises(ValueError, match="Linear"):
        cut_tower(nn.Linear(2, 2))


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
