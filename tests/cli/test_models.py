"""Models on the command line: nothing is chosen, downloaded or drawn in silence."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from forclip.cli import app
from forclip.config import ModelConfig, load_config
from forclip.models.registry import DEFAULT
from forclip.toyworld.dataset import ToyWorld
from tests.models.hub import without_network


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        Image.new("RGB", (40 + number, 30), (90, 120, 30)).save(tmp_path / "photos" / f"{number}.jpg")
    return tmp_path / "photos"


def test_the_default_is_named_and_without_a_network_one_line_says_what_to_do(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_network(monkeypatch, tmp_path / "hub")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"data": {"train": {"annotations": "photos"}}}))
    for command in (
        ("index", photos, "--to", tmp_path / "s"),
        ("index", photos, "--to", tmp_path / "s", "--model", "ViT-B-16"),
        ("train", tmp_path / "run.yaml", "--out", tmp_path / "model"),
        ("eval", tmp_path / "run.yaml", "--out", tmp_path / "eval"),
    ):
        result = run(*command)
        assert result.exit_code == 2
        chosen, error = result.stderr.splitlines()
        assert str(DEFAULT.tag) in chosen
        assert DEFAULT.licence in chosen
        assert "--pretrained FILE" in error
        assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("model", ["ViT-S-32", "ViT-B-61", "org/name"])
def test_no_model_means_random_weights(photos: Path, tmp_path: Path, model: str) -> None:
    result = run("index", photos, "--to", tmp_path / "s", "--model", model)
    assert result.exit_code == 2
    assert model in result.stderr
    assert result.stderr.count("\n") == 1


def notices(result: Result) -> list[str]:
    """Return what a command says besides its progress."""
    return [line for line in result.stderr.splitlines() if line.startswith("forclip: ")]


def test_random_weights_on_request(photos: Path, tmp_path: Path) -> None:
    result = run("index", photos, "--to", tmp_path / "s", "--model", "ViT-S-32-alt", "--pretrained", "random")
    assert result.exit_code == 0
    assert not notices(result)
    assert run("search", tmp_path / "s", "a cat").exit_code == 0


def test_the_mini_model_warns_on_photos_and_not_on_the_toy_world(
    photos: Path, small_world: ToyWorld, tmp_path: Path
) -> None:
    toy = run("index", small_world.images, "--to", tmp_path / "toy", "--model", "forclip-mini")
    assert (toy.exit_code, notices(toy)) == (0, [])
    first = run("index", photos, "--to", tmp_path / "s", "--model", "forclip-mini")
    assert first.exit_code == 0
    (notice,) = notices(first)
    assert "forclip-mini" in notice
    assert notices(run("index", photos, "--to", tmp_path / "s")) == []  # the store's own model, and nothing new


def test_models_in_a_yaml_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "mine" / "open_clip_config.json").write_text("{}")
    (tmp_path / "models" / "w.pt").touch()
    data = {"train": {"annotations": "a.json"}}
    for given, expected in (
        ({"name": "models/mine"}, ModelConfig(str(tmp_path / "models/mine"))),
        ({"name": "local-dir:models/mine"}, ModelConfig(f"local-dir:{tmp_path / 'models/mine'}")),
        ({"name": "ViT-B-32", "pretrained": "models/w.pt"}, ModelConfig("ViT-B-32", str(tmp_path / "models/w.pt"))),
        ({"name": "ViT-B/32", "pretrained": "openai"}, ModelConfig("ViT-B/32", "openai")),
    ):
        (tmp_path / "run.yaml").write_text(json.dumps({"data": data, "model": given}))
        assert load_config(tmp_path / "run.yaml").model == expected
