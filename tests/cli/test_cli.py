"""The commands as a user types them, and one line for every error."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from typer.testing import CliRunner

import forclip
from forclip.bucket_path import BucketPath
from forclip.cli import app
from forclip.config import ModelConfig, RunConfig
from forclip.models.retrieval_model import load_model
from forclip.models.summary_head import SummaryHead
from forclip.search.searcher import Searcher
from forclip.toyworld.dataset import ToyWorld
from forclip.training.weight_interpolation import interpolate, load_ends

Config = dict[str, Any]


def run(*arguments: str | Path | BucketPath) -> Any:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def write_config(folder: Path, world: ToyWorld, **changes: Any) -> Path:
    """Write the YAML of a short run on the small world.

    changes: values of the data section, or of other sections by their names; dicts are merged into the existing ones.
    """
    content: Config = {
        "data": {
            "train": {"annotations": str(world.train_file), "images": str(world.images)},
            "gallery": {"annotations": str(world.gallery_file), "images": str(world.images)},
            "novel": list(world.novel),
            "allow_unlabelled_base": True,
        },
        "model": {"name": "forclip-mini"},
        "head": {"num_query_tokens": 9},
        "train": {
            **{"epochs": 2, "batch_size": 40, "checkpoint_every": 2, "views": 1},
            **{"teacher": "cluster", "teacher_clusters": 6, "interpolation": 0.75},
        },
        "eval": {"clusters": [3]},
    }
    for key, value in changes.items():
        section = content if key in ("model", "device", "head", "train", "eval", "data") else content["data"]
        section[key] = {**section.get(key, {}), **value} if isinstance(value, dict) else value
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def assert_one_line(result: Any, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("forclip: ")]
    assert errors == result.stderr.splitlines()[-1:]  # a slow machine prints progress before
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.stderr


def test_tiles_and_a_limit_of_vectors_by_command(tmp_path: Path, small_world: ToyWorld) -> None:
    pictures, store = tmp_path / "pictures", tmp_path / "store"
    pictures.mkdir()
    for file in sorted(small_world.images.glob("gallery_*.jpg"))[:4]:
        (pictures / file.name).write_bytes(file.read_bytes())
    options = ["--tiles", "2x3", "--tile-overlap", "0.25", "--max-vectors", "30"]
    made = run("index", pictures, "--to", store, "--model", "forclip-mini", *options)
    assert made.exit_code == 0, made.output
    assert f"forclip serve {store}" in made.stdout  # what to do next
    info = json.loads(run("info", store, "--json").stdout)
    assert (info["model tiles"], info["model tile_overlap"]) == ("2x3", 0.25)
    assert (info["vectors"], info["max_vectors"]) == (4 * 30, 30)
    assert run("index", pictures, "--to", store).exit_code == 0
    assert_one_line(run("index", pictures, "--to", store, "--tiles", "3x3"), "2x3 overlapping by 0.25", "3x3")
    assert_one_line(run("index", pictures, "--to", store, "--tiles", "3by3"), "'3by3'")
    found = json.loads(run("look", store, sorted(pictures.iterdir())[0], "snail", "--json").stdout)
    assert len(found["regions"]) == 30


def test_train_eval_index_search(tmp_path: Path, small_world: ToyWorld) -> None:
    config = write_config(tmp_path, small_world)
    model = tmp_path / "model"
    done = run("train", config, "--out", model)
    assert done.exit_code == 0
    assert not (model / "calibration.json").exists()  # with a fixed alpha, no classes are held out
    assert len(json.loads((model / "history.json").read_text())) == 2 * 4
    assert len((model / "training_images.txt").read_text().split()) > 0
    choices = json.loads((model / "choices.json").read_text())
    assert (choices["share"], choices["teacher"], choices["labelled_images"]) == (0.75, "cluster", 160)
    trained = load_model(ModelConfig(str(model)))
    untuned, tuned = load_ends(model / "ends.safetensors", trained.backbone)
    between, head = interpolate(untuned, tuned, 0.75).state_dict(), cast(SummaryHead, trained.head).state_dict()
    assert all(torch.equal(between[name], head[name]) for name in head)

    out = tmp_path / "eval"
    evaluated = run("eval", config, "--model", model, "--out", out, "--json")
    assert evaluated.exit_code == 0, evaluated.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics["methods"]) == ["global", "dense", "cluster_3", "sum_untrained", "tiles_3x3", "for"]
    assert json.loads(evaluated.stdout) == metrics
    assert metrics["methods"]["for"]["vectors_per_image"] == 9
    assert "confidence" not in metrics["methods"]["for"]
    assert "<html" in (out / "report.html").read_text()

    assert run("data", "check", model / "run.yaml").exit_code == 0  # its paths are absolute
    (tmp_path / "other").mkdir()
    learned = json.loads((model / "split.json").read_text())["base"][0]
    other = write_config(tmp_path / "other", small_world, novel=[learned])
    refused = run("eval", other, "--model", model, "--out", tmp_path / "never")
    assert refused.exit_code == 2
    assert f"was trained with labels of {learned!r}, which is novel here" in refused.stderr

    store = tmp_path / "store"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for file in sorted(small_world.images.glob("gallery_*.jpg"))[:12]:
        (pictures / file.name).write_bytes(file.read_bytes())
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    indexed = run("index", pictures, "--to", store, "--model", model)
    assert indexed.exit_code == 0, indexed.output
    assert "12 added" in indexed.stdout
    assert "1 could not be read" in indexed.stdout
    for flag, value in (("--head", "cluster_10"), ("--num-query-tokens", "50"), ("--image-size", "32")):
        named = flag[2:].replace("-", "_")
        assert_one_line(run("index", pictures, "--to", tmp_path / "no", "--model", model, flag, value), named, value)
    recorded = json.loads(run("info", store, "--json").stdout)["model num_query_tokens"]
    assert recorded == cast(SummaryHead, trained.head).num_query_tokens
    again = run("index", pictures, "--to", store, "--model", model)
    assert "0 added, 0 updated, 12 unchanged" in again.stdout

    found = run("search", store, "cat", "-k", "5", "--json")
    assert found.exit_code == 0, found.output
    results = json.loads(found.stdout)
    assert [r["rank"] for r in results] == [1, 2, 3, 4, 5]
    scores = [r["score"] for r in results]
    assert scores == sorted(scores, reverse=True)
    assert all(Path(r["uri"]).exists() and len(r["box"]) == 4 for r in results)
    assert len(json.loads(run("search", store, "cat", "--json").stdout)) == 12  # k beyond the store
    assert json.loads(run("info", store, "--json").stdout)["images"] == 12

    other = run("index", pictures, "--to", store, "--model", "forclip-mini")
    assert_one_line(other, str(store), "another model")

    meta = tmp_path / "meta.csv"
    names = sorted(p.name for p in pictures.glob("gallery_*.jpg"))
    meta.write_text("image,shelf\n" + "".join(f"pictures/{n},{k}\n" for k, n in enumerate(names)))
    assert run("index", pictures, "--to", store, "--model", model, "--metadata", meta).exit_code == 0
    some = json.loads(run("search", store, "cat", "--where", "shelf < 3", "--json").stdout)
    assert {Path(r["uri"]).name for r in some} == set(names[:3])
    assert_one_line(run("search", store, "cat", "--where", "shelve < 3"), "'shelve < 3'")
    high = json.loads(run("search", store, "cat", "--min-score", str(scores[1]), "--exact", "--json").stdout)
    assert [r["score"] for r in high] == scores[:2]
    assert "3 deleted, 9 left" in run("delete", store, "--where", "shelf < 3", "--yes").stdout
    (tmp_path / "ids.txt").write_text(f"{pictures / names[5]}\n")
    assert "1 deleted, 8 left" in run("delete", store, "--ids", tmp_path / "ids.txt", "--yes").stdout
    assert_one_line(run("delete", store), "--where or --ids")
    assert "8 images" in run("compact", store).stdout
    sound = run("verify", store)
    assert (sound.exit_code, sound.stdout) == (0, f"{store}: sound\n")
    for damaged in (store / "images.lance" / "data").iterdir():
        damaged.write_bytes(damaged.read_bytes()[:99])
    verified = run("verify", store)
    assert verified.exit_code == 1
    assert "damaged" in verified.stdout


def test_a_stopped_run_resumes(tmp_path: Path, small_world: ToyWorld) -> None:
    """With trial trainings before the training itself, and all choices made by them."""
    config = write_config(tmp_path, small_world, train={"interpolation": None, "epochs": 1})
    model = tmp_path / "model"
    done = run("train", config, "--out", model)
    assert done.exit_code == 0
    assert (model / "checkpoint_held_back_1.safetensors").exists()
    assert len(json.loads((model / "choices.json").read_text())["share_gains"]) == 5
    assert_one_line(run("train", config, "--out", model), str(model), "--resume")
    before = [(model / name).read_bytes() for name in ("model.safetensors", "calibration.json")]
    assert run("train", config, "--out", model, "--resume").exit_code == 0
    after = [(model / name).read_bytes() for name in ("model.safetensors", "calibration.json")]
    assert after == before  # nothing left to do


@pytest.mark.parametrize(
    ("section", "changes", "named"),
    [
        ("head", {"alignment_shrinkage": 0.1}, "head.alignment_shrinkage is 0.1"),
        ("model", {"resize_mode": "letterbox"}, "model.resize_mode is 'letterbox'"),
        ("train", {"epochs": 3}, "train.epochs is 3"),
    ],
)
def test_a_run_is_not_continued_with_other_settings(
    tmp_path: Path, small_world: ToyWorld, section: str, changes: dict[str, Any], named: str
) -> None:
    model, config = tmp_path / "model", write_config(tmp_path, small_world)
    assert run("train", config, "--out", model).exit_code == 0
    before = {file.name: file.read_bytes() for file in model.iterdir() if file.is_file()}
    other = write_config(tmp_path, small_world, **{section: changes})
    assert_one_line(run("train", other, "--out", model, "--resume"), named, "started with")
    assert {file.name: file.read_bytes() for file in model.iterdir() if file.is_file()} == before


def test_a_run_with_tiles_auto_is_continued_with_the_tiles_that_it_chose(tmp_path: Path, small_world: ToyWorld) -> None:
    """For pictures this small, another choice would be none."""
    model = tmp_path / "model"
    config = write_config(tmp_path, small_world, model={"tiles": "1x2"}, train={"epochs": 1})
    assert run("train", config, "--out", model).exit_code == 0
    config = write_config(tmp_path, small_world, model={"tiles": "auto"}, train={"epochs": 1})
    assert run("train", config, "--out", model, "--resume").exit_code == 0
    assert yaml.safe_load((model / "run.yaml").read_text())["model"]["tiles"] == "1x2"


def test_a_refused_run_keeps_its_configuration(tmp_path: Path, small_world: ToyWorld) -> None:
    model, config = tmp_path / "model", write_config(tmp_path, small_world)
    assert run("train", config, "--out", model).exit_code == 0
    before = (model / "run.yaml").read_bytes()
    content = yaml.safe_load(config.read_text())
    labels = json.loads(small_world.train_file.read_text())
    labels["annotations"] = labels["annotations"][1:]
    (tmp_path / "fewer.json").write_text(json.dumps(labels))
    content["data"]["train"]["annotations"] = str(tmp_path / "fewer.json")
    config.write_text(yaml.safe_dump(content))
    assert_one_line(run("train", config, "--out", model, "--resume"), "another configuration")
    assert (model / "run.yaml").read_bytes() == before


def test_an_unreadable_image_is_skipped_and_listed(tmp_path: Path, small_world: ToyWorld) -> None:
    content = json.loads(small_world.train_file.read_text())
    content["images"][3]["file_name"] = "missing.jpg"
    annotations = tmp_path / "train.json"
    annotations.write_text(json.dumps(content))
    train = {"annotations": str(annotations), "images": str(small_world.images)}
    file = write_config(tmp_path, small_world, data={"train": train})
    result = run("train", file, "--out", tmp_path / "model")
    assert result.exit_code == 0, result.output
    skipped = json.loads((tmp_path / "model" / "skipped.json").read_text())
    assert [s["image_id"] for s in skipped] == ["4"]
    assert "missing.jpg" in skipped[0]["reason"]


def test_errors_in_the_data(tmp_path: Path, small_world: ToyWorld) -> None:
    images = str(small_world.images)

    def attempt(**changes: Any) -> Any:
        return run("train", write_config(tmp_path, small_world, **changes), "--out", tmp_path / "never")

    gone = attempt(data={"train": {"annotations": "gone.json", "images": images}})
    assert_one_line(gone, "gone.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"images": [')
    assert_one_line(attempt(data={"train": {"annotations": str(broken), "images": images}}), "broken.json")
    assert_one_line(attempt(novel=["unicorn"]), "'unicorn'")
    assert_one_line(attempt(base=["cat", "dog"], novel=["dog"]), "'dog'", "both")
    content = json.loads(small_world.train_file.read_text())
    names = [c["name"] for c in content["categories"]]
    assert_one_line(attempt(novel=names), "none is left to learn from")
    content["categories"].append({"id": 999, "name": "mobility scooter"})
    broken.write_text(json.dumps(content))
    source = {"annotations": str(broken), "images": images}
    empty = attempt(data={"train": source, "gallery": None, "allow_unlabelled_base": False})
    assert_one_line(empty, "no training image shows base class", "data.allow_unlabelled_base")


def test_what_is_left_out_of_labels_is_told_once_and_listed(tmp_path: Path, small_world: ToyWorld) -> None:
    content = json.loads(small_world.train_file.read_text())
    content["annotations"][0]["image_id"] = 424242
    content["annotations"][1]["bbox"] = [1, 2, float("nan"), 4]
    (tmp_path / "broken.json").write_text(json.dumps(content))
    source = {"annotations": str(tmp_path / "broken.json"), "images": str(small_world.images)}
    # The gallery is a part of the same file.
    stopped = run(
        "train",
        write_config(tmp_path, small_world, data={"train": source, "gallery": None, "novel": ["unicorn"]}),
        *("--out", tmp_path / "never"),
    )
    assert stopped.exit_code == 2
    line, error = stopped.stderr.splitlines()
    assert "broken.json: 1 entry left out" in line
    assert "data check" in line
    assert "unicorn" in error
    config = write_config(tmp_path, small_world, data={"train": source, "gallery": None})
    listed = json.loads(run("data", "check", config, "--json").stdout)
    assert [(e["value"], e["used_in_part"]) for e in listed["train"]["left_out"]] == [
        ("424242", False),
        ("[1.0, 2.0, nan, 4.0]", True),
    ]
    assert listed["gallery"]["left_out"] == []
    printed = run("data", "check", config)
    assert printed.exit_code == 0
    assert "424242" in printed.stdout
    assert "nan" in printed.stdout
    assert "left out" not in printed.stderr


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": {"name": "ViT-Z-99"}}, "ViT-Z-99"),
        ({"model": {"name": "local-dir:/nowhere"}}, "/nowhere"),
        ({"device": "abacus"}, "abacus"),
        ({"train": {"epochs": 0}}, "epochs"),
        ({"train": {"epoch": 1}}, "epoch"),
        ({"train": {"base_weight": 0, "pseudo_weight": 0, "set_weight": 0}}, "weight"),
        ({"templates": ["a photo"]}, "'a photo'"),
    ],
)
def test_errors_in_the_config(tmp_path: Path, small_world: ToyWorld, changes: Config, named: str) -> None:
    config = write_config(tmp_path, small_world, **changes)
    assert_one_line(run("train", config, "--out", tmp_path / "never"), named)


def test_errors_on_the_command_line(tmp_path: Path, small_world: ToyWorld) -> None:
    assert_one_line(run("search", tmp_path / "nothing", "cat"), "nothing")
    assert_one_line(run("index", tmp_path / "nothing", "--to", tmp_path / "s"), "nothing")
    assert_one_line(run("index", tmp_path, "--to", tmp_path / "s"), "no images")
    head = run("index", small_world.images, "--to", tmp_path / "s", "--model", "forclip-mini", "--head", "cluster_x")
    assert_one_line(head, "cluster_x")
    assert_one_line(run("eval", tmp_path / "gone.yaml", "--out", tmp_path / "o"), "gone.yaml")
    config = write_config(tmp_path, small_world)
    assert_one_line(run("eval", config, "--model", tmp_path, "--out", tmp_path / "o"), str(tmp_path))


def test_every_command_has_help() -> None:
    for command in app.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        shown = run(name, "--help")
        assert shown.exit_code == 0
        assert command.callback is not None
        assert command.callback.__doc__


def test_help_lists_commands_in_the_order_in_which_a_user_meets_them() -> None:
    listed = re.findall(r"^[^a-z-]*([a-z]+)  +[A-Z]", run("--help").stdout, re.MULTILINE)
    learning = ["quickstart", "demo", "models", "data", "train", "eval", "compare", "ablate", "recipe"]
    using = ["plan", "index", "search", "look", "serve", "export", "duplicates"]
    assert listed == [*learning, *using, "info", "doctor", "verify", "publish", "relocate", "delete", "compact"]


def test_help_shows_flags_without_a_value() -> None:
    for command in (("index",), ("data", "check"), ("data",), ()):
        lines = [
            line for line in run(*command, "--help").stdout.splitlines() if re.search(r"--(json|retry|help)\b", line)
        ]
        assert lines
        assert not any("bool" in line.lower() for line in lines)
    assert "<path>" in run("data", "check", "--help").stdout


def test_version_and_shell_completion_are_options() -> None:
    assert run("--version").stdout == f"forclip {forclip.__version__}\n"
    assert "--install-completion" in run("--help").stdout


def test_an_error_names_a_file_exactly(tmp_path: Path) -> None:
    assert_one_line(run("eval", tmp_path / "two  spaces [a].yaml"), "two  spaces [a].yaml")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from forclip.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "print([m for m in ('torch', 'open_clip', 'numpy', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.perf_counter() - start < 30  # a generous limit: this detects hanging, not slowness


def test_stores_are_found_from_any_folder(
    tmp_path: Path, small_world: ToyWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, small_world)
    monkeypatch.chdir(tmp_path)
    assert run("train", config, "--out", "model").exit_code == 0
    (tmp_path / "a" / "pictures").mkdir(parents=True)
    picture = next(small_world.images.glob("gallery_*.jpg"))
    (tmp_path / "a" / "pictures" / "one.jpg").write_bytes(picture.read_bytes())
    assert run("index", "a/../a/pictures", "--to", "store", "--model", "model").exit_code == 0
    assert "0 added, 0 updated, 1 unchanged" in run("index", "a/pictures", "--to", "store", "--model", "model").stdout
    monkeypatch.chdir(tmp_path / "a")
    found = json.loads(run("search", tmp_path / "store", "cat", "--json").stdout)
    assert [r["uri"] for r in found] == [str(tmp_path / "a" / "pictures" / "one.jpg")]


def test_search_by_several_texts_and_by_an_image(searcher: Searcher) -> None:
    store = searcher.index.store.folder
    combined = run("search", store, "cat", "--any", "dog", "--all", "tree", "--not", "car", "-k", "3", "--json")
    assert combined.exit_code == 0, combined.output
    assert [r["rank"] for r in json.loads(combined.stdout)] == [1, 2, 3]
    assert {r["decided_by"] for r in json.loads(combined.stdout)} <= {"cat", "dog", "tree"}
    picture = searcher.search("cat", 1)[0].uri
    assert json.loads(run("search", store, "--like", picture, "-k", "1", "--json").stdout)[0]["rank"] == 1
    cut = json.loads(run("search", store, "cat", "--cutoff", "-1", "-k", "3", "--json").stdout)
    assert (len(cut["results"]), cut["no_confidence_reason"]) == (3, "this model has no calibration")
    assert "no calibration" in run("search", store, "cat", "--cutoff", "-1").stdout
    assert_one_line(run("search", store, "--not", "cat"), "nothing to search for")
    assert_one_line(run("search", store, "cat", "--cutoff", "auto"), "no probabilities")
    assert_one_line(run("search", store, "cat", "--cutoff", "much"), "'much'")


def test_search_writes_a_report(searcher: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "cat.html"
    found = run("search", searcher.index.store.folder, "cat", "-k", "3", "--report", page, "--json")
    assert found.exit_code == 0, found.output
    assert all(r["uri"] in page.read_text() for r in json.loads(found.stdout))
    (tmp_path / "file").touch()
    blocked = tmp_path / "file" / "cat.html"
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)  # returns None: no browser was there
    shown = run(
        "search", searcher.index.store.folder, "cat", "-k", "3", "--report", page, "--open", "--pictures", "iterm"
    )
    assert shown.exit_code == 0, shown.output
    assert opened == [page.as_uri()]
    assert str(page) in shown.stderr
    assert "\x1b]1337;File=inline=1" in shown.stdout
    assert run("search", searcher.index.store.folder, "cat", "--open").exit_code == 0
    assert Path(opened[1].removeprefix("file://")).is_file()
    assert_one_line(run("search", searcher.index.store.folder, "cat", "--pictures", "ascii"), "'ascii'")
    assert_one_line(run("search", searcher.index.store.folder, "cat", "--report", blocked), str(tmp_path / "file"))


def test_a_closed_output_is_no_error(searcher: Searcher) -> None:
    """As in `forclip info my.store | head -1`."""
    command = [sys.executable, "-m", "forclip", "info", str(searcher.index.store.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


def test_look(searcher: Searcher, tmp_path: Path) -> None:
    """The regions of an image as the store has them, and the image with the heatmap."""
    store, best = searcher.index.store.folder, searcher.search("snail", 1)[0]
    done = run("look", store, best.uri, "snail", "--to", tmp_path / "heat.png", "--json")
    assert done.exit_code == 0, done.output
    looked = json.loads(done.stdout)
    winner = looked["regions"][looked["winner"]]
    assert winner["score"] == pytest.approx(best.score, abs=1e-6)
    assert winner["box"] == pytest.approx(best.box)
    assert len(looked["regions"]) == 4
    values = np.array(looked["heatmap"]["values"])
    row, column = divmod(int(values.argmax()), values.shape[1])
    x0, y0, x1, y1 = winner["box"]
    assert x0 < (column + 0.5) / values.shape[1] < x1
    assert y0 < (row + 0.5) / values.shape[0] < y1
    with Image.open(best.uri) as before, Image.open(tmp_path / "heat.png") as after:
        assert after.size == before.size
        assert np.asarray(after).tolist() != np.asarray(before.convert("RGB")).tolist()
    assert f"{best.score:.3f}" in run("look", store, best.uri, "snail").stdout
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    assert_one_line(run("look", store, tmp_path / "other.png", "snail"), "other.png", "is not in")
    assert_one_line(run("look", store, best.uri, " "), "empty")
    assert_one_line(run("look", store, best.uri, "snail", "--to", tmp_path / "heat.nonsense"), "nonsense")


def test_look_refuses_an_image_that_changed(tmp_path: Path, small_world: ToyWorld) -> None:
    picture = tmp_path / "a.jpg"
    shutil.copy(sorted(small_world.images.glob("gallery_*.jpg"))[0], picture)
    assert run("index", tmp_path, "--to", tmp_path / "s", "--model", "forclip-mini").exit_code == 0
    assert run("look", tmp_path / "s", picture, "snail").exit_code == 0
    Image.new("RGB", (8, 8)).save(picture)
    assert_one_line(run("look", tmp_path / "s", picture, "snail"), "a.jpg", "changed since it was indexed")
    picture.unlink()
    assert_one_line(run("look", tmp_path / "s", picture, "snail"), "a.jpg", "no such file")


def test_train_from_labels_alone(small_world: ToyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[RunConfig] = []
    monkeypatch.setattr("forclip.training.runs.train", lambda config, out, **others: configs.append(config))
    labels, images = small_world.train_file, small_world.images
    options = ("--images", images, "--model", "forclip-mini", "--device", "cpu")
    result = run("train", "--from", labels, *options, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    (config,) = configs
    assert (config.data.train.annotations, config.model.name) == (labels, "forclip-mini")
    assert_one_line(run("train", "--out", tmp_path / "run"), "--from")
    assert_one_line(run("train", "run.yaml", "--from", labels, "--out", tmp_path / "run"), "--from")
    assert_one_line(run("train", "run.yaml", "--images", images, "--out", tmp_path / "run"), "run.yaml")


def test_export(searcher: Searcher, tmp_path: Path) -> None:
    store = searcher.index.store.folder
    written = run("export", store, "cat", "-k", "3", "--format", "csv", "--to", tmp_path / "cat.csv")
    assert written.exit_code == 0, written.output
    assert written.stdout == f"3 images: {tmp_path / 'cat.csv'}\n"
    again = run("export", store, "cat", "-k", "5", "--format", "csv", "--to", tmp_path / "cat.csv", "--new")
    assert again.stdout == f"2 images: {tmp_path / 'cat-2.csv'}\n"
    divided = run("export", store, "cat", "-k", "20", "--format", "yolo", "--to", tmp_path / "cat", "--split", "0.5")
    assert divided.exit_code == 0, divided.output
    assert {f.name for f in (tmp_path / "cat" / "images").iterdir()} == {"train", "val"}
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join(r.image_id for r in searcher.search("cat", 2)))
    assert run("export", store, "--ids", ids, "--format", "files", "--to", tmp_path / "x.txt").exit_code == 0
    assert (tmp_path / "x.txt").read_text() == ids.read_text() + "\n"
    assert run("export", store, "dog", "--ids", ids, "--to", tmp_path / "dog.json").exit_code == 0
    assert_one_line(run("export", store, "--to", tmp_path / "y"), "nothing to search for")
    assert_one_line(run("export", store, "--ids", ids, "--cutoff", "auto", "--to", tmp_path / "y"), "ids.txt")


def test_search_with_verdicts(searcher: Searcher, tmp_path: Path) -> None:
    store = searcher.index.store.folder
    first = [r.image_id for r in searcher.search("cat", 10)]
    (tmp_path / "right").write_text(first[9])
    (tmp_path / "wrong").write_text(first[0])
    found = run("search", store, "cat", "--right", tmp_path / "right", "--wrong", tmp_path / "wrong", "--json")
    assert found.exit_code == 0, found.output
    ranked = [r["image_id"] for r in json.loads(found.stdout)]
    assert first[9] in ranked
    assert first[0] not in ranked
    (tmp_path / "wrong").write_text("nothing")
    assert_one_line(run("search", store, "cat", "--wrong", tmp_path / "wrong"), "has no image 'nothing'")


def test_index_says_what_is_not_indexed(tmp_path: Path, small_world: ToyWorld) -> None:
    photos = tmp_path / "photos"
    (photos / ".thumbnails").mkdir(parents=True)
    shutil.copy(sorted(small_world.images.glob("gallery_*.jpg"))[0], photos / "a.jpg")
    (photos / "a.xmp").touch()
    (photos / "gone.jpg").symlink_to("nowhere")
    options = ("--to", tmp_path / "s", "--model", "forclip-mini")
    printed = run("index", photos, *options).stdout
    assert str(photos / ".thumbnails") in "".join(printed.split())
    assert str(photos / "gone.jpg") in "".join(printed.split())
    assert "1 .xmp" in printed
    content = json.loads(run("index", photos, *options, "--json").stdout)
    assert (content["added"], content["unchanged"], content["unreadable"]) == (0, 1, {})
    assert sorted(part["count"] for part in content["not_indexed"].values()) == [1, 1, 1]
    assert [str(photos / "gone.jpg")] in [part["examples"] for part in content["not_indexed"].values()]


def test_photos_and_models_move(small_world: ToyWorld, tmp_path: Path) -> None:
    photos, store = tmp_path / "photos", tmp_path / "s"
    photos.mkdir()
    for file in sorted(small_world.images.glob("gallery_*.jpg"))[:3]:
        (photos / file.name).write_bytes(file.read_bytes())
    assert run("index", photos, "--to", store, "--model", "forclip-mini").exit_code == 0
    photos.rename(tmp_path / "new")
    assert "missing" in run("relocate", store).stdout
    assert_one_line(run("relocate", store, "pictures=new"), "'pictures'", "photos")
    assert "present" in run("relocate", store, f"photos={tmp_path / 'new'}").stdout
    (root,) = json.loads(run("relocate", store, "--json").stdout)
    assert (root["root"], root["images"], root["folder"]) == ("photos", 3, str(tmp_path / "new"))
    found = json.loads(run("search", store, "cat", "--json").stdout)
    assert all(Path(r["uri"]).is_file() for r in found)
    (tmp_path / "ids.txt").write_text(found[0]["uri"] + "\n")  # paths work where ids do
    assert run("search", store, "cat", "--right", tmp_path / "ids.txt").exit_code == 0
    assert_one_line(run("search", store, "cat", "--model", "forclip-mini", "--pretrained", "random"), "another model")
    assert_one_line(run("search", store, "cat", "--pretrained", "w.pt"), "--model")
    assert run("compact", store).exit_code == 0


def test_a_label_file_is_checked_by_itself(small_world: ToyWorld, tmp_path: Path) -> None:
    content = json.loads(small_world.gallery_file.read_text())
    content["annotations"][0]["category_id"] = "unknown"
    (tmp_path / "a.json").write_text(json.dumps(content))
    checked = run("data", "check", tmp_path / "a.json", "--images", small_world.images, "--json")
    assert checked.exit_code == 0, checked.output
    found = json.loads(checked.stdout)
    assert (found["images"], len(found["left_out"]), found["left_out"][0]["value"]) == (60, 1, "'unknown'")
    assert run("data", "check", tmp_path / "a.json", "--images", tmp_path).exit_code == 1  # the pictures are missing
    yolo = tmp_path / "data.yaml"
    (tmp_path / "train").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "x.png")
    (tmp_path / "train" / "x.txt").write_text("7 .5 .5 .1 .1\n")
    yolo.write_text("train: train\nnames: [cat]\n")
    assert "line 1" in run("data", "check", yolo).stdout
