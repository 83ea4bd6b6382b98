"""A small dataset with one of each thing that can be wrong."""

import json
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from forclip.cli import app
from forclip.config import DataConfig, SourceConfig
from forclip.data.check import check_data, print_check
from forclip.progress import untracked


@pytest.fixture
def broken(tmp_path: Path) -> DataConfig:
    """Training: 0 and 1 are the same picture, 2 is text, 3 is not there. Gallery: 0 is training's 4, and 1."""
    for part in ("train", "gallery"):
        (tmp_path / part).mkdir()

    def draw(file: Path, seed: int) -> None:
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 10, 3), np.uint8)).save(file)

    for name, seed in (("0.png", 0), ("1.png", 0), ("4.png", 4)):
        draw(tmp_path / "train" / name, seed)
    (tmp_path / "train" / "2.png").write_text("no picture")
    for name, seed in (("0.png", 4), ("1.png", 9)):
        draw(tmp_path / "gallery" / name, seed)
    boxes = [(0, 1, [0, 0, 10, 8]), (0, 2, [5, 5, 0, 2]), (1, 1, [-3, 0, 5, 5]), (4, 2, [2, 2, 8, 9])]
    write(tmp_path / "train.json", 5, ["cat", "dog", "eel"], boxes)
    write(tmp_path / "gallery.json", 2, ["cat", "dog", "yak"], [(1, 1, [0, 0, 5, 5])])
    train, gallery = (SourceConfig(tmp_path / f"{p}.json", tmp_path / p) for p in ("train", "gallery"))
    return DataConfig(train, novel=("dog",), gallery=gallery)


def write(file: Path, count: int, names: list[str], boxes: Sequence[tuple[int, int, Sequence[float]]]) -> None:
    content = {
        "images": [{"id": k, "file_name": f"{k}.png"} for k in range(count)],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
        "annotations": [
            {"id": k, "image_id": image, "category_id": category, "bbox": box}
            for k, (image, category, box) in enumerate(boxes)
        ],
    }
    file.write_text(json.dumps(content))


def test_a_missing_picture_of_another_machine_counts_as_missing(broken: DataConfig) -> None:
    file = broken.train.annotations
    content = json.loads(file.read_text())
    content["images"] = [*content["images"][:3], {"id": 9, "file_name": "0.png"}]
    file.write_text(json.dumps(content))
    assert not check_data(broken, untracked).pictures_missing
    content["images"][-1]["file_name"] = "/home/anna/gone.png"
    file.write_text(json.dumps(content))
    assert check_data(broken, untracked).pictures_missing


def test_each_finding(broken: DataConfig) -> None:
    found = check_data(broken, untracked)
    train = found.train
    assert (train.images, train.without_label, train.labels, train.boxes) == (5, 2, 4, 4)
    assert [Path(p).name for p in train.missing] == ["3.png"]
    assert [Path(p).name for p in train.unreadable] == ["2.png"]
    assert train.duplicates == [["0", "1"]]
    assert [(b.image_id, b.class_name, b.reason) for b in train.odd_boxes] == [
        ("0", "dog", "has no area"),
        ("1", "cat", "leaves the image of 10 x 8"),
        ("4", "dog", "leaves the image of 10 x 8"),
    ]
    assert found.in_both == [("4", "0")]
    assert found.not_in_both == ["eel", "yak"]
    assert [(c.name, c.group, c.train, c.gallery) for c in found.classes] == [
        ("cat", "base", 2, 1),
        ("dog", "novel", 2, 0),
        ("eel", "base", 0, 0),
        ("yak", "neither", 0, 0),
    ]
    assert len(found.problems) == 7
    assert found.problems[-1] == "novel classes in no gallery image: dog"


def test_boxes_in_fractions_are_odd(broken: DataConfig, tmp_path: Path) -> None:
    write(tmp_path / "train.json", 2, ["cat", "dog"], [(0, 1, [0.1, 0.2, 0.5, 0.75])])
    (box,) = check_data(broken, untracked).train.odd_boxes
    assert "pixel" in box.reason


def test_doubles_in_the_gallery_alone_are_not_in_training(tmp_path: Path) -> None:
    sources = []
    for part, colours in (("train", (1,)), ("gallery", (2, 2, 3))):
        (tmp_path / part).mkdir()
        for k, colour in enumerate(colours):
            Image.new("L", (10, 8), colour).save(tmp_path / part / f"{k}.png")
        write(tmp_path / f"{part}.json", len(colours), ["cat"], [(0, 1, [0, 0, 5, 5])])
        sources.append(SourceConfig(tmp_path / f"{part}.json", tmp_path / part))
    found = check_data(DataConfig(sources[0], gallery=sources[1]), untracked)
    assert found.gallery.duplicates == [["0", "1"]]
    assert (found.in_both, found.train.duplicates) == ([], [])


def test_how_many_images_were_checked_for_a_class(tmp_path: Path) -> None:
    """Federated: of three training images one shows a cat, one surely shows none, and of one nobody knows."""
    rows = ["a.png,cat,1", "b.png,cat,0", "c.png,dog,1"]
    for part in ("train", "gallery"):
        (tmp_path / f"{part}.csv").write_text("\n".join(["image,label,present", *rows]))
        rows = ["d.png,cat,0"]
    train, gallery = (SourceConfig(tmp_path / f"{part}.csv") for part in ("train", "gallery"))
    found = check_data(DataConfig(train, gallery=gallery), untracked)
    numbers = [(c.name, c.train, c.train_verified, c.gallery, c.gallery_verified) for c in found.classes]
    assert numbers == [("cat", 1, 2, 0, 1), ("dog", 1, 1, 0, 0)]


def test_what_is_left_out_is_listed_once_by_reason(broken: DataConfig, tmp_path: Path) -> None:
    """The gallery is a part of the training file; the terminal shows the first of each reason, the JSON all."""
    content = json.loads((tmp_path / "train.json").read_text())
    content["annotations"] += [{"id": k, "image_id": 900 + k, "category_id": 1} for k in range(9)]
    content["annotations"] += [{"id": 9, "image_id": 0, "category_id": 1, "bbox": [0, 0, -1, 1]}]
    (tmp_path / "train.json").write_text(json.dumps(content))
    found = check_data(replace(broken, gallery=None), untracked)
    assert [e.value for e in found.train.left_out] == [str(900 + k) for k in range(9)] + ["[0.0, 0.0, -1.0, 1.0]"]
    assert found.gallery.left_out == []
    (problem,) = (p for p in found.problems if "left out" in p)
    assert "9 entries" in problem
    assert "1 entry" in problem
    stream = StringIO()
    print_check(found, Console(file=stream, width=400))
    assert "904" in stream.getvalue()
    assert "905" not in stream.getvalue()
    assert "-1.0" in stream.getvalue()


def test_a_gallery_of_its_own_lists_its_own(broken: DataConfig, tmp_path: Path) -> None:
    content = json.loads((tmp_path / "gallery.json").read_text())
    content["annotations"].append({"id": 7, "image_id": 77, "category_id": 1})
    (tmp_path / "gallery.json").write_text(json.dumps(content))
    found = check_data(broken, untracked)
    assert (found.train.left_out, [e.value for e in found.gallery.left_out]) == ([], ["77"])


def test_a_table_and_json_of_the_same(broken: DataConfig, tmp_path: Path) -> None:
    console = Console(record=True, width=160, quiet=False, file=(tmp_path / "out").open("w"))
    print_check(check_data(broken, untracked), console)
    text = console.export_text()
    for part in ("2 base, 1 novel, 1 neither", "unreadable: ", "in training as 4, in the gallery as 0", "yak"):
        assert part in text
    config = tmp_path / "run.yaml"
    sources = {p: {"annotations": f"{p}.json", "images": p} for p in ("train", "gallery")}
    config.write_text(json.dumps({"data": {**sources, "novel": ["dog"]}}))
    result = CliRunner().invoke(app, ["data", "check", str(config), "--json"])
    assert result.exit_code == 1, result.output  # a picture is missing
    assert json.loads(result.stdout)["train"]["duplicates"] == [["0", "1"]]


def test_80_columns_are_enough(broken: DataConfig) -> None:
    stream = StringIO()
    print_check(check_data(broken, untracked), Console(file=stream, width=80))
    heading = " ".join(stream.getvalue().splitlines()[:2])
    assert {"images", "labels", "boxes", "missing", "corrupt", "content"} <= set(heading.split())
    assert "\N{HORIZONTAL ELLIPSIS}" not in stream.getvalue()


def test_sound_data_has_no_problem(broken: DataConfig, tmp_path: Path) -> None:
    for part, seed in (("train", 1), ("gallery", 2)):
        write(tmp_path / f"{part}.json", 1, ["cat"], [(0, 1, [0, 0, 9, 8])])
        Image.fromarray(np.full((8, 10, 3), seed, np.uint8)).save(tmp_path / part / "0.png")
    found = check_data(DataConfig(broken.train, gallery=broken.gallery), untracked)
    assert found.problems == []
    assert found.not_in_both == []
