"""The image tower of any architecture that open_clip lists, with few layers and random weights."""

from typing import Any
from unittest import mock

import open_clip
import timm
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch import Tensor, nn

from forclip.models.mini_clip import register_mini
from forclip.models.tower_parts import Tower


def shallow_tower(name: str, depth: int = 2) -> Any:
    """Build a tower with `depth` transformer blocks, or one block per stage of a convolutional tower, in eval mode."""
    register_mini()
    config = open_clip.get_model_config(name)
    assert config is not None
    vision = config["vision_cfg"]
    if isinstance(vision.get("layers"), list):
        vision["layers"] = [1] * len(vision["layers"])
    elif "timm_model_name" not in vision:
        vision["layers"] = depth
    create = timm.create_model

    def create_shallow(name: str, **options: Any) -> Any:
        return create(name, **_shallow(name, depth), **{**options, "pretrained": False})

    torch.manual_seed(0)
    with mock.patch("timm.create_model", create_shallow):
        return awake(_build_vision_tower(config["embed_dim"], CLIPVisionCfg(**vision)))


def _shallow(timm_name: str, depth: int) -> dict[str, Any]:
    kind = timm_name.split("_")[0]
    if kind in ("vit", "eva", "eva02", "vitamin"):
        return {"depth": depth}
    if kind in ("convnext", "swin"):
        return {"depths": (1, 1, 1, 1)}
    if kind == "fastvit":
        return {"layers": (1,) * (5 if timm_name in ("fastvit_mci3", "fastvit_mci4") else 4)}
    return {}


def awake(visual: nn.Module) -> Any:
    """Freeze, set eval mode, and randomise constant parameters (biases, layer scales, latents) and almost constant ones
    (EVA's projection)."""
    for parameter in visual.parameters():
        parameter.requires_grad_(False)
        if (parameter == parameter.flatten()[0]).all():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        elif parameter.std() < 1e-3:
            parameter.normal_(std=0.1)
    return visual.eval()


def calibrated(visual: nn.Module, images: Tensor) -> Any:
    """Set batch norms to the statistics of `images`: else a deep random tower maps all images to almost one vector."""
    for module in visual.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        visual.train()(images)
    return visual.eval()


def image_shape(visual: Any) -> tuple[int, int]:
    size = visual.image_size
    return size if isinstance(size, tuple) else (size, size)


def pixels(*shape: int) -> Tensor:
    return torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def embedded(visual: Any, images: Tensor) -> Tensor:
    """The tower's own embeddings [B, D]. CoCa's towers return their tokens too."""
    out = visual(images)
    embeddings: Tensor = out[0] if isinstance(out, tuple) else out
    return embeddings


@torch.no_grad()
def pooled(tower: Tower, images: Tensor) -> Tensor:
    """Pool with the pretrained query. Returns [B, D]."""
    tokens = tower.pool.stage(tower.tokens(images))
    embeddings: Tensor = tower.pool(tokens, tower.pool.pretrained_query(tokens))[:, 0]
    return embeddings


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert torch.cosine_similarity(ours, theirs).min() > 0.9999
    # Directions alone would accept towers that map all images to almost one vector.
    scale = (theirs[0] - theirs[1]).abs().max()
    assert scale > 1e-3 * theirs.abs().max()
    assert (ours - theirs).abs().max() < 1e-3 * scale
