"""forclip info and forclip doctor."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forclip.config import ModelConfig
from forclip.doctor import Check, check_all
from forclip.embedding.ingest import index_images
from forclip.facts import Fact, format_facts, size_text
from forclip.toyworld.dataset import ToyWorld
from forclip.training.describe_run import describe_run, has_run, run_facts
from tests.cli.test_cli import assert_one_line, run


@pytest.fixture(scope="module")
def store(small_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures from one folder, one from another, and one that can't be read."""
    folder = tmp_path_factory.mktemp("info")
    for name, pictures in (("a [red]", 2), ("b", 1)):
        (folder / name).mkdir()
        for file in sorted(small_world.images.glob("gallery_*.jpg"))[:pictures]:
            (folder / name / f"{name}{file.name}").write_bytes(file.read_bytes() + name.encode())
    (folder / "b" / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    for name in ("a [red]", "b"):
        index_images(str(folder / name), folder / "store", model=ModelConfig("forclip-mini"))
    return folder / "store"


def test_a_store_is_described_for_people(store: Path) -> None:
    shown = run("info", store).stdout
    assert f"{store.parent / 'a [red]'}: 2 images" in shown
    assert f"{store.parent / 'b'}: 1 image\n" in shown
    assert "forclip-mini, head sum, not finetuned" in shown
    assert "75: 25.0 an image, 128 numbers each, fp16" in shown
    assert "exact: 3 images" in shown
    assert "1 image could not be read" in shown
    assert "broken.jpg" in shown
    contents = json.loads(run("info", store, "--json").stdout)
    assert contents["fingerprint"] not in shown
    assert contents["fingerprint"] in run("info", store, "--verbose").stdout
    assert (contents["kind"], contents["images"], contents["could not be read"]) == ("store", 3, 1)
    assert contents["sources"] == {str(store.parent / "a [red]"): 2, str(store.parent / "b"): 1}


def test_describing_a_store_needs_no_pytorch(store: Path) -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from forclip.cli import app; "
        f"assert CliRunner().invoke(app, ['info', {str(store)!r}]).exit_code == 0; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def write_run(folder: Path) -> Path:
    """The files of a run but for its weights."""
    folder.mkdir(parents=True)
    backbone = {"name": "forclip-mini", "pretrained": None, "image_size": None, "tiles": "none"}
    config = {"format_version": 2, "backbone": backbone, "num_query_tokens": 9, "templates": ["a {}"]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "split.json").write_text(json.dumps({"base": ["cat", "[dog]"], "novel": ["owl"]}))
    choices = {"labelled_images": 160, "teacher": "cluster", "share": 0.75, "candidates": [1]}
    (folder / "choices.json").write_text(json.dumps(choices))
    return folder


def test_a_run_is_described_for_people(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "demo" / "model")
    assert has_run(folder)
    shown = run("info", folder).stdout
    for part in (
        "2 classes: cat, [dog]",
        "1 class: owl",
        "160 labelled images",
        "teacher: cluster",
        "0.75",
        "9 an image",
    ):
        assert part in shown
    assert "not yet" in shown
    values: dict[str, Any] = {"base": 40.0, "novel": 20.0, "all": 30.0, "vectors_per_image": 9, "ms_per_image": None}
    values["intervals"] = {"base": [35.0, 45.0], "novel": [3.0, 50.0], "all": [20.0, 40.0]}
    metrics = {
        "dataset": "toys",
        "metric": "map_at_50/min(50,R)",
        "seeds": [0],
        "methods": {"for": values},
        "images": 80,
    }
    (tmp_path / "demo" / "metrics.json").write_text(json.dumps(metrics))
    measured = next(fact for fact in run_facts(describe_run(folder)) if fact.label == "measured")
    assert isinstance(measured.text, list)
    assert measured.text[0].startswith("Not enough data for novel classes")
    assert "40.0 base (35-45), 20.0 novel (3-50)" in measured.text[1].replace("\N{EN DASH}", "-")
    (folder / "split.json").write_text("{")
    assert_one_line(run("info", folder), "split.json")


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    assert_one_line(run("info", tmp_path / "gone"), "gone", "no such file or folder")
    photos = tmp_path / "my photos"
    photos.mkdir()
    assert_one_line(run("info", photos), f"forclip quickstart '{photos}'")
    (photos / "a.jpg").write_text("no picture")
    assert_one_line(run("info", photos / "a.jpg"), "it is a file")


def test_a_folder_of_runs_or_stores_names_them(tmp_path: Path, store: Path) -> None:
    demo = write_run(tmp_path / "demo" / "model").parent
    assert_one_line(run("info", demo), f"did you mean {demo / 'model'}?")
    assert_one_line(run("info", store.parent), f"did you mean {store}?")


def test_facts_are_aligned_and_internals_left_out() -> None:
    facts = [Fact("a", "one"), Fact("long", ["two", "three"]), Fact("inner", "four", internal=True), Fact("e", [])]
    assert format_facts(facts, False) == ["a     one", "long  two", "      three", "e     none"]
    assert "inner  four" in format_facts(facts, True)
    assert [size_text(size) for size in (999, 1.5e6, 2.25e12)] == ["1 kB", "1.5 MB", "2.25 TB"]


def test_doctor_says_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("doctor", "--offline", "--json")
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert report["broken"] == 0
    assert {"python", "torch", "devices", "threads", "disk", "model cache", "ray"} <= states.keys()
    assert set(states.values()) <= {"ok", "note"}
    assert "model hub" not in states


def test_doctor_reports_what_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # its import fails
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("FORCLIP_CACHE", str(tmp_path / "new"))
    checks = {check.name: check for check in check_all()}
    assert checks["timm"].state == "broken"
    assert checks["model hub"].state == "note"
    assert "127.0.0.1:9" in checks["model hub"].text
    assert checks["segment cache"] == Check("segment cache", "ok", str(tmp_path / "new"))
    assert run("doctor", "--offline").exit_code == 1
