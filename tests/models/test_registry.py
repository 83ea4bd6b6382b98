"""The table of known models agrees with open_clip, and every architecture has one best-known tag or is refused."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from forclip.cli import app
from forclip.config import ModelConfig
from forclip.models.registry import BY_NAME, DEFAULT, KNOWN_MODELS, best_tag, is_architecture, is_cached
from tests.models.hub import cache_repository, without_network


def test_known_models_are_open_clips() -> None:
    assert len(BY_NAME) == len(KNOWN_MODELS)
    for model in KNOWN_MODELS:
        assert is_architecture(model.architecture)
        assert model.tag is None or open_clip.is_pretrained_cfg(model.architecture, model.tag)
        assert open_clip.get_model_config(model.architecture)["vision_cfg"].get("image_size", 224) == model.image_size
        assert not is_architecture(model.name) or model.name == model.architecture  # a short name hides no architecture


def test_download_sizes_are_those_of_the_weights() -> None:
    for name in ("clip-b16", "siglip2-b16", "mobileclip2-s0", "pe-l14"):
        model = BY_NAME[name]
        with torch.device("meta"):
            whole = open_clip.create_model(model.architecture, load_weights=False, pretrained_text=False, device="meta")
        size = sum(tensor.numel() * 4 for tensor in whole.state_dict().values()) / 1e6
        assert model.megabytes == pytest.approx(size, rel=0.01)


def test_the_default_is_for_photos() -> None:
    assert (ModelConfig().name, ModelConfig().pretrained) == (DEFAULT.architecture, None)
    assert best_tag(DEFAULT.architecture) == DEFAULT.tag


def test_every_architecture_has_one_best_tag_or_none() -> None:
    for name in open_clip.list_models():
        tags = open_clip.list_pretrained_tags_by_model(name)
        if tags:
            assert best_tag(name) in tags
        else:
            with pytest.raises(ValueError, match=name):
                best_tag(name)


def test_the_command_lists_what_is_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_network(monkeypatch, tmp_path)
    assert not is_cached(BY_NAME["clip-b16"])
    snapshot = cache_repository(tmp_path, "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K")
    (snapshot / "open_clip_pytorch_model.bin").touch()
    rows = json.loads(CliRunner().invoke(app, ["models", "--json"]).output)
    assert {row["name"] for row in rows if row["cached"]} == {"clip-b16", "forclip-mini"}
    assert [row["name"] for row in rows if row["default"]] == [DEFAULT.name]
    shown = CliRunner().invoke(app, ["models"]).output
    assert all(model.name in shown and model.licence in shown for model in KNOWN_MODELS)
    assert str(tmp_path) == constants.HF_HUB_CACHE
