import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from forclip.config import (
    DataConfig,
    EvalConfig,
    HeadConfig,
    ModelConfig,
    RunConfig,
    SourceConfig,
    TrainConfig,
    config_to_json,
    load_config,
)

MINIMAL: dict[str, Any] = {"data": {"train": {"annotations": "train.json", "images": "pictures"}}}


def written(folder: Path, content: Any) -> Path:
    file = folder / "run.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def test_a_config_survives_yaml(tmp_path: Path) -> None:
    """Every field with another value than its default."""
    config = RunConfig(
        data=DataConfig(
            train=SourceConfig(tmp_path / "a.json", tmp_path / "a"),
            novel=("cat", "no"),
            gallery=SourceConfig(tmp_path / "b.json", tmp_path / "b"),
            base=("dog", "1"),
            vocabulary=tmp_path / "words.txt",
            templates=("a {}", "{}: yes"),
            allow_unlabelled_base=True,
            cache=tmp_path / "tokens",
        ),
        model=ModelConfig("ViT-B-16", "openai", 320, "letterbox"),
        head=HeadConfig(7, "noise", 0.25, "off", 0.125),
        train=TrainConfig(
            epochs=3,
            batch_size=5,
            learning_rate=2.5e-5,
            weight_decay=0.5,
            warmup_share=0.3,
            ema_decay=0.99,
            views=3,
            trainable="queries",
            labelled_fraction=0.05,
            base_loss="softmax",
            base_weight=0.1,
            teacher="zoom",
            stage_learning_rate=0.35,
            teacher_clusters=9,
            pseudo_weight=0.2,
            pseudo_temperature=0.3,
            set_weight=0.4,
            random_text_weight=0.6,
            neighbour_weight=0.7,
            neighbour_words=12,
            diversity_weight=0.8,
            held_back_folds=5,
            interpolation=0.9,
            class_vectors=0.15,
            checkpoint_every=11,
            seed=4,
        ),
        eval=EvalConfig((2, 3), 4),
        device="cuda:1",
    )
    for section, default in ((config.head, HeadConfig()), (config.train, TrainConfig())):
        assert [f.name for f in fields(section) if getattr(section, f.name) == getattr(default, f.name)] == []
    plain = config_to_json(config)
    assert json.loads(json.dumps(plain)) == plain
    assert load_config(written(tmp_path, plain)) == config


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, MINIMAL))
    expected = RunConfig(DataConfig(SourceConfig(tmp_path / "train.json", tmp_path / "pictures")))
    assert config == expected


def test_scientific_notation_is_a_number(tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-3 as a word."""
    content = "data: {train: {annotations: a, images: b}}\ntrain: {learning_rate: 1e-3}"
    assert load_config(written(tmp_path, content)).train.learning_rate == 0.001


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "novel.txt").write_text("cat\n\n traffic light \n")
    (folder / "base.txt").write_text("dog\n")
    monkeypatch.chdir(tmp_path)
    source = {"annotations": "../train.json", "images": "/photos"}
    data = {"train": source, "gallery": source, "novel": "novel.txt", "base": "base.txt", "vocabulary": "words.txt"}
    written(folder, {"data": data | {"cache": "tokens"}})
    found = load_config(Path("configs/run.yaml")).data
    assert found.train == found.gallery == SourceConfig(folder / "../train.json", Path("/photos"))
    assert found.novel == ("cat", "traffic light")
    assert found.base == ("dog",)
    assert found.vocabulary == folder / "words.txt"
    assert found.cache == folder / "tokens"


REFUSED: dict[str, tuple[Any, str]] = {
    "unknown section": (MINIMAL | {"trian": {}}, "trian: Unexpected keyword argument"),
    "unknown key": (MINIMAL | {"train": {"epoch": 3}}, "train.epoch: Unexpected keyword argument (given: '3')"),
    "unknown key below data": ({"data": MINIMAL["data"] | {"galery": 1}}, "data.galery: Unexpected keyword argument"),
    "wrong type": (MINIMAL | {"train": {"epochs": "many"}}, "train.epochs: Input should be a valid integer"),
    "half an epoch": (MINIMAL | {"train": {"epochs": 1.5}}, "(given: '1.5')"),
    "negative epochs": (MINIMAL | {"train": {"epochs": -2}}, "epochs must be above 0, not -2"),
    "no learning rate": (MINIMAL | {"train": {"learning_rate": 0}}, "learning_rate must be above 0, not 0"),
    "learning rate no number": (
        MINIMAL | {"train": {"learning_rate": float("nan")}},
        "learning_rate must be above 0, not nan",
    ),
    "unknown choice": (
        MINIMAL | {"train": {"trainable": "some"}},
        "train.trainable: Input should be 'queries', 'query_key' or",
    ),
    "whitened beyond fully": (
        MINIMAL | {"head": {"alignment_shrinkage": -0.1}},
        "alignment_shrinkage must be within 0..1, not -0.1",
    ),
    "half aligned": (MINIMAL | {"head": {"alignment": "half"}}, "head.alignment: Input should be 'auto', 'on' or"),
    "unknown teacher": (MINIMAL | {"train": {"teacher": "owl"}}, "train.teacher: Input should be 'auto', 'cluster',"),
    "no view": (MINIMAL | {"train": {"views": 0}}, "views must be above 0, not 0"),
    "an average that forgets less than nothing": (
        MINIMAL | {"train": {"ema_decay": 1.5}},
        "ema_decay must be within 0..1, not 1.5",
    ),
    "class vectors overshoot": (
        MINIMAL | {"train": {"class_vectors": 1.1}},
        "class_vectors must be within 0..1, not 1.1",
    ),
    "nothing labelled": (
        MINIMAL | {"train": {"labelled_fraction": 0}},
        "labelled_fraction must be above 0 and at most 1, not 0",
    ),
    "percent labelled": (
        MINIMAL | {"train": {"labelled_fraction": 50}},
        "labelled_fraction must be above 0 and at most 1, not 50",
    ),
    "negative weight": (
        MINIMAL | {"train": {"neighbour_weight": -1}},
        "neighbour_weight must not be negative, but is -1",
    ),
    "no neighbour": (MINIMAL | {"train": {"neighbour_words": 0}}, "neighbour_words must be above 0, not 0"),
    "a word for the share": (MINIMAL | {"train": {"interpolation": "half"}}, "train.interpolation: "),
    "half a fold": (MINIMAL | {"train": {"held_back_folds": 2.5}}, "train.held_back_folds: "),
    "one number for several": (MINIMAL | {"eval": {"clusters": 5}}, "eval.clusters: "),
    "no data": ({"device": "cpu"}, "data: "),
    "no annotations": ({"data": {"train": {"images": "a"}}}, "data.train.annotations: "),
    "two rules": (
        {"data": MINIMAL["data"] | {"novel": {"below": 3, "fraction": 0.2}}},
        "says what is novel, not below and fraction",
    ),
    "an unknown split": (
        {"data": MINIMAL["data"] | {"novel": {"split": "coco"}}},
        "data.novel.split: Input should be 'coco-48-17', 'coco-63-17' or 'nuimages' (given: 'coco')",
    ),
    "a name that is no text": (
        {"data": MINIMAL["data"] | {"novel": ["cat", 7]}},
        "data.novel.1: Input should be a valid string (given: '7')",
    ),
    "a gallery by no rule": ({"data": MINIMAL["data"] | {"gallery": {"seed": 1}}}, "data.gallery"),
    "an unknown set of templates": ({"data": MINIMAL["data"] | {"templates": "clip8"}}, "data.templates"),
    "a list": ([1, 2], "the file: "),
    "empty": ("", "the file: "),
    "no YAML": ("data: [1, 2", "not readable as YAML"),
    "Python objects": ("data: !!python/object/apply:os.getcwd []", "not readable as YAML"),
    "no such list of names": ({"data": MINIMAL["data"] | {"novel": "gone.txt"}}, "gone.txt: no such file of names"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_config_is_refused_by_file_and_key(tmp_path: Path, content: Any, message: str) -> None:
    # The list of names is a file of its own, and the one that is named.
    file = tmp_path if "gone.txt" in message else tmp_path / "run.yaml"
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}.*{re.escape(message)}"):
        load_config(written(tmp_path, content))


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml: no such config file"):
        load_config(tmp_path / "nowhere.yaml")


def test_derived_configs_are_checked_too() -> None:
    assert replace(TrainConfig(), epochs=1) == TrainConfig(epochs=1)
    with pytest.raises(ValueError, match="batch_size must be above 0, not 0"):
        replace(TrainConfig(), batch_size=0)
