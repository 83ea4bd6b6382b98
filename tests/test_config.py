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
        head=HeadConfig(7, "noise", 0.25, "off", 0.125, 0.5),
        train=TrainConfig(
            epochs=3,
            batch_size=5,
            learning_rate=2.5e-5,
            step_size=0.1,
            weight_decay=0.5,
            warmup_share=0.3,
            ema_decay=0.99,
            views=3,
            trainable="queries",
            labelled_fraction=0.05,
            base_loss="softmax",
            base_weight=0.1,
            teacher="zoom",
            self_training=True,
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


def test_on_off_yes_and_no_are_what_a_setting_takes(tmp_path: Path) -> None:
    """YAML 1.1 reads all of them as true or false, so that `alignment: off` had to be quoted."""
    file = tmp_path / "run.yaml"
    data = "data: {train: {annotations: a.json, images: a}, novel: [no, off, cat]}"
    file.write_text(f"{data}\nhead: {{alignment: off}}\nmodel: {{train_last_stage: yes, compile: True}}\n")
    config = load_config(file)
    assert (config.head.alignment, config.data.novel) == ("off", ("no", "off", "cat"))
    assert (config.model.train_last_stage, config.model.compile) == (True, True)


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


def with_section(name: str, **values: Any) -> dict[str, Any]:
    return MINIMAL | {name: values}


def with_data(**values: Any) -> dict[str, Any]:
    return {"data": MINIMAL["data"] | values}


REFUSED: dict[str, tuple[Any, str, str]] = {
    "unknown section": (MINIMAL | {"trian": {}}, "trian", "{}"),
    "unknown key": (with_section("train", epoch=3), "train.epoch", "3"),
    "unknown key below data": (with_data(galery=1), "data.galery", "1"),
    "wrong type": (with_section("train", epochs="many"), "train.epochs", "many"),
    "half an epoch": (with_section("train", epochs=1.5), "train.epochs", "1.5"),
    "negative epochs": (with_section("train", epochs=-2), "train.epochs", "-2"),
    "no batch": (with_section("train", batch_size=0), "train.batch_size", "0"),
    "no learning rate": (with_section("train", learning_rate=0), "train.learning_rate", "0"),
    "NaN above 0": (with_section("train", learning_rate=float("nan")), "train.learning_rate", "nan"),
    "NaN within 0..1": (with_section("train", warmup_share=float("nan")), "train.warmup_share", "nan"),
    "NaN as a weight": (with_section("train", base_weight=float("nan")), "train.base_weight", "nan"),
    "unknown choice": (with_section("train", trainable="some"), "train.trainable", "some"),
    "shrinkage below 0": (with_section("head", alignment_shrinkage=-0.1), "head.alignment_shrinkage", "-0.1"),
    "no query token": (with_section("head", num_query_tokens=0), "head.num_query_tokens", "0"),
    "unknown alignment": (with_section("head", alignment="half"), "head.alignment", "half"),
    "unknown teacher": (with_section("train", teacher="owl"), "train.teacher", "owl"),
    "no view": (with_section("train", views=0), "train.views", "0"),
    "decay above 1": (with_section("train", ema_decay=1.5), "train.ema_decay", "1.5"),
    "class vectors above 1": (with_section("train", class_vectors=1.1), "train.class_vectors", "1.1"),
    "nothing labelled": (with_section("train", labelled_fraction=0), "train.labelled_fraction", "0"),
    "percent labelled": (with_section("train", labelled_fraction=50), "train.labelled_fraction", "50"),
    "negative weight": (with_section("train", neighbour_weight=-1), "train.neighbour_weight", "-1"),
    "no neighbour": (with_section("train", neighbour_words=0), "train.neighbour_words", "0"),
    "alpha above 1": (with_section("train", interpolation=1.1), "train.interpolation", "1.1"),
    "a word for alpha": (with_section("train", interpolation="half"), "train.interpolation", "half"),
    "half a fold": (with_section("train", held_back_folds=2.5), "train.held_back_folds", "2.5"),
    "negative decay": (with_section("train", weight_decay=-5), "train.weight_decay", "-5"),
    "negative noise": (with_section("head", noise_scale=-1), "head.noise_scale", "-1"),
    "no pixels": (with_section("model", image_size=[64, 0]), "model.image_size", "0"),
    "negative seed": (with_section("train", seed=-1), "train.seed", "-1"),
    "one number for several": (with_section("eval", clusters=5), "eval.clusters", "5"),
    "no cluster": (with_section("eval", clusters=[5, 0]), "eval.clusters.1", "0"),
    "no relevant image": (with_section("eval", min_relevant=0), "eval.min_relevant", "0"),
    "nonsense for tiles": (with_section("model", tiles="3 by 3"), "model.tiles", "3 by 3"),
    "one tile": (with_section("model", tiles="1x1"), "model.tiles", "1x1"),
    "too many tiles": (with_section("model", tiles="9x2"), "model.tiles", "9x2"),
    "tiles that are one another": (with_section("model", tile_overlap=0.95), "model.tile_overlap", "0.95"),
    "tiles auto for a baseline": (with_section("eval", tiles="auto"), "eval.tiles", "auto"),
    "no data": ({"device": "cpu"}, "data", ""),
    "no annotations": ({"data": {"train": {"images": "a"}}}, "data.train.annotations", ""),
    "two rules": (with_data(novel={"below": 3, "fraction": 0.2}), "data.novel", "below and fraction"),
    "a rule out of range": (with_data(novel={"below": 0}), "data.novel.below", "0"),
    "a fraction of 1": (with_data(novel={"fraction": 1}), "data.novel.fraction", "1"),
    "an unknown split": (with_data(novel={"split": "coco"}), "data.novel.split", "coco"),
    "a name that is no text": (with_data(novel=["cat", 7]), "data.novel.1", "7"),
    "a gallery by no rule": (with_data(gallery={"seed": 1}), "data.gallery", "seed"),
    "the whole set as gallery": (with_data(gallery={"fraction": 1}), "data.gallery.fraction", "1"),
    "an unknown set of templates": (with_data(templates="clip8"), "data.templates", "clip8"),
    "a list": ([1, 2], "the file", "[1, 2]"),
    "empty": ("", "the file", "None"),
    "a class that YAML reads as false": (with_data(novel=["cat", False]), "data.novel.1", "False"),
    "a key twice": (
        "data: {}\ntrain:\n  epochs: 1\n  epochs: 2",
        "not readable as YAML",
        "line 4 has the key 'epochs'",
    ),
    "a tab": ("data:\n\ttrain: a", "not readable as YAML", "line 2"),
    "no YAML": ("data: [1, 2", "not readable as YAML", ""),
    "Python objects": ("data: !!python/object/apply:os.getcwd []", "not readable as YAML", ""),
}


@pytest.mark.parametrize(("content", "key", "value"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_config_is_refused_by_file_key_and_value(tmp_path: Path, content: Any, key: str, value: str) -> None:
    file = written(tmp_path, content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(file))}: {re.escape(key)}: .*{re.escape(value)}"):
        load_config(file)


def test_a_missing_list_of_names_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "gone.txt"))):
        load_config(written(tmp_path, with_data(novel="gone.txt")))


@pytest.mark.parametrize("key", ["novel", "base"])
def test_a_name_alone_is_a_class_unless_a_file_is_called_so(tmp_path: Path, key: str) -> None:
    """A folder of that name, such as one of pictures, is no file of names."""
    (tmp_path / "cat").mkdir()
    for name in ("cat", "vehicle.car", "x" * 300):
        assert getattr(load_config(written(tmp_path, with_data(**{key: name}))).data, key) == (name,)
    (tmp_path / "vehicle.car").write_text("dog\n")
    assert getattr(load_config(written(tmp_path, with_data(**{key: "vehicle.car"}))).data, key) == ("dog",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_byte_order_marks_are_no_part_of_a_name(tmp_path: Path, encoding: str) -> None:
    """Windows' editors write one; PowerShell's `>` writes UTF-16."""
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "names.txt").write_bytes(f"{mark}caf\u00e9\r\ndog\r\n".encode(encoding))
    (tmp_path / "run.yaml").write_bytes((mark + json.dumps(with_data(novel="names.txt"))).encode(encoding))
    assert load_config(tmp_path / "run.yaml").data.novel == ("caf\u00e9", "dog")


def test_text_that_is_damaged_is_named(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"\xff\xfea")
    with pytest.raises(ValueError, match=r"names\.txt.*UTF-16"):
        load_config(written(tmp_path, with_data(novel="names.txt")))


def test_a_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml: no such config file"):
        load_config(tmp_path / "nowhere.yaml")


def test_derived_configs_are_checked_too() -> None:
    assert replace(TrainConfig(), epochs=1) == TrainConfig(epochs=1)
    with pytest.raises(ValueError, match="batch_size"):
        replace(TrainConfig(), batch_size=0)
