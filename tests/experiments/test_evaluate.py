"""forclip.train and forclip.evaluate."""

import json
from pathlib import Path

import pytest
import yaml

import forclip
from forclip.config import config_to_json, load_config
from forclip.experiments.demo import toyworld_config
from forclip.toyworld.dataset import ToyWorld


def test_train_and_evaluate_from_a_file_or_a_config(small_world: ToyWorld, tmp_path: Path) -> None:
    content = config_to_json(toyworld_config(small_world, 0))
    content["data"]["allow_unlabelled_base"] = True
    content["head"]["num_query_tokens"] = 4
    content["train"] |= {"epochs": 1, "views": 1, "teacher": "none", "interpolation": 0.5}
    content["eval"]["clusters"] = [3]
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(content))
    model = forclip.train(file, tmp_path / "model")
    assert model.fingerprint == forclip.load_model(forclip.ModelConfig(str(tmp_path / "model"))).fingerprint
    metrics = forclip.evaluate(load_config(file), tmp_path / "eval", model=tmp_path / "model")
    assert set(metrics["methods"]) == {"global", "dense", "cluster_3", "sum_untrained", "tiles_3x3", "for"}
    assert (tmp_path / "eval" / "report.html").exists()
    with pytest.raises(ValueError, match="model"):
        forclip.train(file, tmp_path / "model")
    assert {name: m["passes"] for name, m in metrics["methods"].items()} == {
        **dict.fromkeys(metrics["methods"], 1),
        "tiles_3x3": 9,
    }

    # The same run as one that was trained with tiles; without the baseline of tiles.
    saved = tmp_path / "model" / "config.json"
    run = json.loads(saved.read_text())
    run["backbone"]["tiles"] = "2x2"
    saved.write_text(json.dumps(run))
    content["eval"] |= {"tiles": "none", "clusters": []}
    file.write_text(yaml.safe_dump(content))
    tiled = forclip.evaluate(file, tmp_path / "tiled", model=tmp_path / "model")["methods"]
    assert "tiles_3x3" not in tiled
    assert (tiled["for"]["passes"], tiled["for"]["vectors_per_image"]) == (5, 20)
    assert tiled["for"]["all"] != metrics["methods"]["for"]["all"]
    assert "takes 5 passes" in (tmp_path / "tiled" / "report.html").read_text()
