"""Towers in bf16 on a CPU have weights of their own, and nearly the tokens of float32."""

import pytest
import torch
from torch.nn import functional as F

from forclip.models.cpu_bf16 import in_bf16
from forclip.models.mini_clip import MINI_NAME
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.towers import cut_tower
from tests.models.architectures import shallow_tower

NAMES = ("RN50", "ViT-B-32", "coca_ViT-B-32", "ViT-B-16-SigLIP", "EVA02-B-16", "convnext_tiny", "MobileCLIP-S1")


@pytest.mark.parametrize("name", NAMES)
def test_towers_of_each_family_give_nearly_the_same_tokens(name: str) -> None:
    visual = shallow_tower(name)
    tower = cut_tower(visual)
    side = visual.image_size if isinstance(visual.image_size, int) else visual.image_size[0]
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        single, half = tower.tokens(pixels), in_bf16(tower.tokens)(pixels)
        assert half.dtype == torch.float32
        assert not torch.equal(half, single)
        assert F.cosine_similarity(half, single, dim=-1).mean() > 0.999
        assert torch.equal(tower.tokens(pixels), single)  # the tower itself is as it was


def test_a_backbone_keeps_its_weights_and_its_fingerprint() -> None:
    backbone = load_open_clip(MINI_NAME, None)
    half = backbone.with_compute("bf16")
    assert half.fingerprint == load_open_clip(MINI_NAME, None).fingerprint
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert {p.dtype for p in half.new_pool().parameters()} == {torch.float32}
    pixels = torch.randn(1, 3, 96, 96)
    again = half.with_compute("float32").encode_tokens(pixels)
    assert torch.equal(again, backbone.encode_tokens(pixels))
