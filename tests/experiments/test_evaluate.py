"""forclip.train and forclip.evaluate."""

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
