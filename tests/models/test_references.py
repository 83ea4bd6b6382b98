"""References to models stay valid in another working directory."""

from dataclasses import replace
from pathlib import Path

import pytest

from forclip.config import ModelConfig
from forclip.models.references import absolute_reference


def test_local_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "w.pt").touch()
    for given, expected in (
        (ModelConfig("models/mine"), ModelConfig(str(tmp_path / "models" / "mine"))),
        (ModelConfig("local-dir:models/mine"), ModelConfig(f"local-dir:{tmp_path / 'models' / 'mine'}")),
        (ModelConfig("ViT-B-32", "models/w.pt", 96), ModelConfig("ViT-B-32", str(tmp_path / "models" / "w.pt"), 96)),
        (ModelConfig("forclip-mini", "./models/w.pt"), ModelConfig("forclip-mini", str(tmp_path / "models" / "w.pt"))),
    ):
        absolute = absolute_reference(given)
        assert absolute == expected
        monkeypatch.chdir("/")
        assert absolute_reference(absolute) == absolute
        monkeypatch.chdir(tmp_path)


def test_names_and_tags_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ViT-B-32").mkdir()  # an architecture's name means the architecture
    (tmp_path / "openai").touch()
    for model in (
        ModelConfig("ViT-B-32", "openai"),
        ModelConfig("ViT-B/32", "random"),
        ModelConfig("hf-hub:org/name"),
        ModelConfig("no-such-model"),
    ):
        assert absolute_reference(model) == model
        assert absolute_reference(replace(model, resize_mode="letterbox")).resize_mode == "letterbox"
