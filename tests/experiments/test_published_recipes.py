"""The published recipes: each dataset and kind of tower on generated images, and what is refused before any work."""

from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg
from rich.console import Console
from typer.testing import CliRunner

from forclip.cli import app
from forclip.config import NovelRule
from forclip.data.images.content import find_identical_files
from forclip.data.sources import load_sets
from forclip.experiments.published_recipes import (
    RECIPES,
    TOWERS,
    PretrainedTower,
    find_recipe,
    smoke_config,
    smoke_recipe,
    write_smoke,
)
from forclip.location import local_path
from forclip.models.towers import cut_tower

CLASSES = {"coco": (48, 17), "lvis": (5, 3), "nuimages": (6, 9)}


def smoke(name: str) -> None:
    metrics = smoke_recipe(name, 1.0, Console(quiet=True))
    result = metrics["methods"]["for"]
    assert result["vectors_per_image"] == 4
    assert 0 <= result["base"] <= 100
    assert 0 <= result["novel"] <= 100
    groups = [entry["group"] for entry in metrics["classes"].values()]
    shown = (groups.count("base"), groups.count("novel"))
    assert all(0 < part <= whole for part, whole in zip(shown, CLASSES[name.split("-")[0]], strict=True))


def test_a_recipe_runs() -> None:
    smoke("coco-vit-b-16")


@pytest.mark.parametrize("dataset", ["lvis", "nuimages"])
def test_a_dataset_runs_with_a_small_tower(dataset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    of_dataset = find_recipe(f"{dataset}-vit-b-16")
    small = PretrainedTower("forclip-mini", "", num_tokens=144, width=128, memory=0.0)
    monkeypatch.setitem(RECIPES, dataset, replace(of_dataset, tower=small))
    smoke(dataset)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["coco-rn50x64", "lvis-siglip2", "nuimages-vit-b-16"])
def test_a_large_tower_runs(name: str) -> None:
    smoke(name)


def test_every_dataset_has_a_recipe_for_every_tower() -> None:
    assert len(RECIPES) == 12
    with pytest.raises(ValueError, match="recipe 'coco' is unknown: coco-rn50x64, "):
        find_recipe("coco")


@pytest.mark.parametrize("name", TOWERS)
def test_disk_and_memory_estimates_agree_with_the_tower(name: str) -> None:
    """On the meta device, which has shapes but no values."""
    tower = TOWERS[name]
    with torch.device("meta"):
        model = open_clip.create_model(tower.name, load_weights=False, pretrained_text=False, device="meta")
        pixels = torch.empty(1, *PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)).input_size)
        tokens = cut_tower(model.visual, None, False).tokens(pixels)
    assert tokens.shape == (1, tower.num_tokens, tower.width)
    assert sum(p.numel() for p in model.parameters()) * 4e-9 == pytest.approx(tower.memory, abs=0.05)
    assert find_recipe(f"coco-{name}").disk == pytest.approx((118_287 + 5_000) * tower.num_tokens * tower.width * 2e-9)


@pytest.mark.parametrize("name", TOWERS)
def test_the_configuration_of_a_recipe(name: str) -> None:
    """Pretrained weights known to open_clip, the dataset's split, the requested labelled fraction."""
    splits = {
        "coco": NovelRule(split="coco-48-17"),
        "lvis": NovelRule(frequency="r"),
        "nuimages": NovelRule(split="nuimages"),
    }
    for dataset, novel in splits.items():
        config = find_recipe(f"{dataset}-{name}").config(Path("data"), Path("out"), 0.1, "cuda")
        assert config.data.novel == novel
        assert (config.data.vocabulary, config.data.cache) == ("lvis", Path("out/cache"))
        assert (config.data.train.format, config.train.labelled_fraction, config.device) == (dataset, 0.1, "cuda")
        assert open_clip.is_pretrained_cfg(config.model.name, config.model.pretrained)
        assert smoke_config(config).train.labelled_fraction == 0.1


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["coco-vit-b-16"], "needs --root"),
        (["coco-vit-b-16", "--root", "nowhere", "--out", "out"], "nowhere: no annotations/instances_train2017.json"),
        (["kitti-vit-b-16", "--smoke"], "'kitti-vit-b-16' is unknown"),
    ],
)
def test_missing_arguments_and_files_are_named(given: list[str], named: str) -> None:
    result = CliRunner().invoke(app, ["recipe", *given])
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stderr.count("\n") == 1


def test_recipes_are_listed_with_what_they_need() -> None:
    result = CliRunner().invoke(app, ["recipe"])
    assert result.exit_code == 0
    for part in (*RECIPES, "198", "lvis_v1_train.json"):
        assert part in result.stdout
    assert "\N{HORIZONTAL ELLIPSIS}" not in result.stdout  # nothing is cut at 80 columns


@pytest.mark.parametrize("dataset", CLASSES)
def test_every_smoke_image_is_where_its_annotations_say(tmp_path: Path, dataset: str) -> None:
    write_smoke(dataset, tmp_path)
    recipe = find_recipe(f"{dataset}-vit-b-16")
    train, gallery = load_sets(recipe.config(tmp_path, tmp_path / "out").data)
    assert (len(train), len(gallery)) == (16, 8)
    assert all(local_path(path).is_file() for path in (*train.paths, *gallery.paths))
    assert train.labels.any(1).all()
    assert find_identical_files([*train.paths, *gallery.paths]) == []
