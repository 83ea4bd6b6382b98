"""Training and evaluation on the smallest sets: a sensible run, without NaN."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from forclip.experiments.evaluate import evaluate
from forclip.models.summary_head import SummaryHead
from forclip.training.runs import train

GALLERY: list[list[str]] = [["cat"], ["dog"], ["cat", "dog"], [], ["car"]]


def coco(file: Path, images: Sequence[Sequence[str]]) -> None:
    """Write pictures of noise and their labels. images: the class names that each shows."""
    names = ["cat", "dog", "car"] if file.stem == "gallery" else sorted({name for shown in images for name in shown})
    rng = np.random.default_rng(len(file.stem))
    for k in range(len(images)):
        Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8)).save(file.with_name(f"{file.stem}{k}.png"))
    labels = [(k, names.index(name) + 1) for k, shown in enumerate(images) for name in shown]
    content = {
        "images": [{"id": k, "file_name": f"{file.stem}{k}.png"} for k in range(len(images))],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
        "annotations": [{"id": k, "image_id": i, "category_id": c} for k, (i, c) in enumerate(labels)],
    }
    file.write_text(json.dumps(content))


SETS: dict[str, tuple[Sequence[Sequence[str]], dict[str, Any]]] = {
    "one image": ([["cat"]], {}),
    "one image of two classes": ([["cat", "dog"]], {"base_loss": "softmax"}),
    "one label among ten images": ([["cat"], *[[]] * 9], {"labelled_fraction": 0.1}),
    "all images show all classes": ([["cat", "dog"]] * 3, {"base_loss": "binary"}),
    "one image a class, more folds than classes": ([["cat"], ["dog"], ["car"]], {"held_back_folds": 9}),
    "a fraction that leaves one image": ([["cat"], ["dog"]] * 3, {"labelled_fraction": 0.01, "ema_decay": 0.9}),
    "one view, a batch larger than the set": ([["cat"], []], {"views": 1, "batch_size": 1000}),
    "every objective on one image": (
        [["cat"]],
        {"teacher": "zoom", "random_text_weight": 1, "neighbour_weight": 1, "diversity_weight": 1, "batch_size": 1},
    ),
    "a teacher and no labels": ([["cat"]], {"base_weight": 0, "teacher": "cluster"}),
    "a gallery without the class": ([["bird"], []], {}),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize(("images", "settings"), SETS.values(), ids=SETS.keys())
def test_small_sets_train_and_are_evaluated(
    tmp_path: Path, images: Sequence[Sequence[str]], settings: dict[str, Any]
) -> None:
    coco(tmp_path / "train.json", images)
    coco(tmp_path / "gallery.json", GALLERY)
    content: dict[str, Any] = {
        "data": {"train": {"annotations": "train.json"}, "gallery": {"annotations": "gallery.json"}},
        "model": {"name": "forclip-mini"},
        "head": {"num_query_tokens": 3},
        "train": {"epochs": 1, "views": 2, **settings},
        "eval": {"clusters": [2]},
    }
    if settings.get("neighbour_weight"):
        (tmp_path / "words.txt").write_text("cup\ntree\n")
        content["data"]["vocabulary"] = "words.txt"
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    console = Console(record=True, quiet=True, width=200)
    model = train(tmp_path / "run.yaml", tmp_path / "model", console=console)
    assert isinstance(model.head, SummaryHead)
    assert all(torch.isfinite(weight).all() for weight in model.head.parameters())
    assert torch.isfinite(model.encode_query("cat")).all()
    metrics = evaluate(tmp_path / "run.yaml", tmp_path / "eval", model=tmp_path / "model", console=console)
    found = [values["all"] for values in metrics["methods"].values()]
    assert all(value is None if "bird" in images[0] else math.isfinite(value) for value in found)
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"teacher": "zoom"}, "teacher: zoom"), ({"self_training": True}, "self_training: true")],
)
def test_what_needs_whole_pictures_is_refused_with_tiles_before_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], named: str
) -> None:
    coco(tmp_path / "train.json", GALLERY)
    content = {
        "data": {"train": {"annotations": "train.json"}},
        "model": {"name": "forclip-mini", "tiles": "2x2"},
        "train": settings,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr("forclip.training.runs.encode_training_images", None)  # would fail if it were called
    with pytest.raises(ValueError, match=f"train.{named} .*2x2.*model.tiles"):
        train(tmp_path / "run.yaml", tmp_path / "model", console=Console(quiet=True))


def test_a_run_that_stopped_in_its_trials_is_not_started_over(tmp_path: Path) -> None:
    coco(tmp_path / "train.json", GALLERY)
    content = {"data": {"train": {"annotations": "train.json"}}, "model": {"name": "forclip-mini"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "checkpoint_held_back_0.safetensors").touch()
    with pytest.raises(ValueError, match="already holds a run"):
        train(tmp_path / "run.yaml", tmp_path / "model", console=Console(quiet=True))


def test_labels_that_tell_nothing_apart_are_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco(tmp_path / "train.json", [["cat"], ["cat"]])
    content = {
        "data": {"train": {"annotations": "train.json"}},
        "model": {"name": "forclip-mini"},
        "train": {"epochs": 1, "teacher": "none"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    train(tmp_path / "run.yaml", tmp_path / "model", console=Console(width=200))
    assert "no base class has both" in capsys.readouterr().out
