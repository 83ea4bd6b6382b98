"""What is in a model folder, and what other folders are called."""

import json
from pathlib import Path
from typing import Any

import pytest

from forclip.config import ModelConfig
from forclip.models.model_folder import folder_layout, is_run_config, open_clip_weights
from forclip.models.retrieval_model import load_model


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_layouts_are_recognised(tmp_path: Path) -> None:
    open_clip = write(tmp_path / "a", open_clip_config__json={"model_cfg": {}}, config__json={"model_type": "clip"})
    assert folder_layout(open_clip) == (open_clip, "open_clip")
    for number, kind in enumerate(("clip", "siglip", "siglip2", "metaclip_2")):
        folder = write(tmp_path / str(number), config__json={"model_type": kind}, modules__json="[]")
        assert folder_layout(folder) == (folder, "transformers")
        assert not is_run_config(folder / "config.json")
    assert is_run_config(write(tmp_path / "run", config__json={"format_version": 1}) / "config.json")
    assert is_run_config(write(tmp_path / "damaged", config__json="{") / "config.json")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "empty"),
        ({"config__json": {"model_type": "bert"}}, "bert"),
        ({"config__json": {"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}}, "llava"),
        ({"config__json": {"architecture": "vit_base_patch16_224", "pretrained_cfg": {}}}, "vit_base_patch16_224"),
        ({"config__json": {"architectures": ["X"]}}, "model_type"),
        ({"config__json": "version https://git-lfs.github.com/spec/v1\n"}, "git lfs pull"),
        ({"config__json": "{"}, "JSON"),
        ({"config__json": "[]"}, "JSON object"),
        ({"model_index__json": {}, "README__md": ""}, "diffusers"),
        ({"adapter_config__json": {}}, "PEFT"),
        ({"modules__json": "[]"}, "sentence-transformers"),
        ({"open_clip_config__json": {}}, "model_cfg"),
        ({"model__safetensors": ""}, r"--pretrained .*model\.safetensors"),
        ({"picture__jpg": ""}, r"config\.json"),
    ],
)
def test_other_folders_are_called_by_their_name(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    folder = write(tmp_path / "model", **files)
    with pytest.raises(ValueError, match=message) as error:
        folder_layout(folder)
    assert str(folder) in str(error.value)
    assert len(str(error.value)) < 200 + 2 * len(str(folder))


def test_models_in_folders_below_are_suggested(tmp_path: Path) -> None:
    write(tmp_path / "st", modules__json="[]")
    write(tmp_path / "st" / "0_CLIPModel", config__json={"model_type": "clip"})
    write(tmp_path / "runs" / "checkpoint-500", config__json={"model_type": "clip"})
    for outer, inner in (("st", "0_CLIPModel"), ("runs", "checkpoint-500")):
        with pytest.raises(ValueError, match=inner):
            folder_layout(tmp_path / outer)
    with pytest.raises(ValueError, match="absent"):
        folder_layout(tmp_path / "absent")
    (tmp_path / "file.pt").touch()
    with pytest.raises(ValueError, match=r"file\.pt"):
        folder_layout(tmp_path / "file.pt")


def test_open_clips_weights_are_found_by_name_or_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file of weights"):
        open_clip_weights(tmp_path)
    (tmp_path / "epoch_3.pt").touch()
    assert open_clip_weights(tmp_path).name == "epoch_3.pt"
    (tmp_path / "epoch_4.pt").touch()
    with pytest.raises(ValueError, match=r"epoch_3\.pt"):
        open_clip_weights(tmp_path)
    (tmp_path / "open_clip_model.safetensors").touch()
    assert open_clip_weights(tmp_path).name == "open_clip_model.safetensors"


def test_placeholders_in_a_run_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        load_model(ModelConfig(str(tmp_path)))
