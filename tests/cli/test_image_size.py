"""Pictures of a 16:9 camera under an input of rows and columns: from index to search, look and eval."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from forclip.config import ModelConfig
from forclip.embedding.ingest import index_images
from forclip.models.retrieval_model import load_model
from forclip.search.searcher import open_searcher
from forclip.toyworld import pictographs
from forclip.toyworld.dataset import ToyWorld
from tests.cli.test_cli import assert_one_line, run, write_config

SIZE = (640, 360)
NAMES = pictographs.NAMES[::9]
Boxes = dict[str, tuple[int, int, int, int]]


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Boxes]:
    """Wide pictures of one small object each, somewhere; the folder, and each object's box by its name."""
    folder, rng = tmp_path_factory.mktemp("camera"), np.random.default_rng(0)
    boxes: Boxes = {}
    for name in NAMES:
        picture, side = Image.new("RGB", SIZE, (235, 232, 225)), 90
        x, y = (int(rng.integers(0, edge - side)) for edge in SIZE)
        sprite = pictographs.render(name, side, (190, 40, 45))
        picture.paste(sprite, (x, y), sprite)
        picture.save(folder / f"gallery_{len(boxes):05d}.jpg")
        boxes[name] = (x, y, x + side, y + side)
    return folder, boxes


def index(folder: Path, store: Path, *options: str) -> Any:
    return run("index", folder, "--to", store, "--model", "forclip-mini", *options)


def hits(store: Path, boxes: Boxes) -> tuple[int, int]:
    """Count the objects whose picture comes first, and those in which the middle of the found region is."""
    searcher, first, inside = open_searcher(store), 0, 0
    for number, (name, (x0, y0, x1, y1)) in enumerate(boxes.items()):
        results = searcher.search(name)
        [(rank, result)] = [(k, r) for k, r in enumerate(results) if Path(r.uri).stem == f"gallery_{number:05d}"]
        assert result.box is not None
        left, top, right, bottom = result.box
        x, y = (left + right) / 2 * SIZE[0], (top + bottom) / 2 * SIZE[1]
        first += rank == 0
        inside += x0 <= x <= x1 and y0 <= y <= y1
    return first, inside


def test_wide_pictures_are_found_with_their_regions(camera: tuple[Path, Boxes], tmp_path: Path) -> None:
    folder, boxes = camera
    store = tmp_path / "store"
    indexed = index(folder, store, "--image-size", "144x256")
    assert indexed.exit_code == 0, indexed.output
    assert "forclip: " not in indexed.stderr
    first, inside = hits(store, boxes)
    assert first >= 14
    assert inside == len(boxes) == 17

    described = run("info", store)
    assert json.loads(run("info", store, "--json").stdout)["model image_size"] == [144, 256]
    assert "image size 144x256" in described.stdout
    name, (x0, y0, x1, y1) = next(iter(boxes.items()))
    [found] = json.loads(run("search", store, name, "-k", "1", "--json").stdout)
    assert Path(found["uri"]).name == "gallery_00000.jpg"
    look = json.loads(run("look", store, folder / "gallery_00000.jpg", name, "--json").stdout)
    heat = np.array(look["heatmap"]["values"])
    assert heat.shape == (18, 32)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert x0 <= (column + 0.5) / 32 * SIZE[0] <= x1
    assert y0 <= (row + 0.5) / 18 * SIZE[1] <= y1

    # The store keeps its size; another one is another model.
    again = index(folder, store)
    assert "0 added, 0 updated, 17 unchanged" in again.stdout, again.output
    assert_one_line(index(folder, store, "--image-size", "192"), str(store), "another model")
    assert "17 unchanged" in index(folder, store, "--image-size", "144x256").stdout


def test_a_letterbox_of_rows_and_columns_leaves_the_regions_right(tmp_path: Path, camera: tuple[Path, Boxes]) -> None:
    """A quarter of the rows is padding. Only Python chooses a letterbox for a store."""
    folder, boxes = camera
    model = ModelConfig("forclip-mini", image_size=(192, 256), resize_mode="letterbox")
    index_images(str(folder), tmp_path / "store", model=model, head="dense")
    assert hits(tmp_path / "store", boxes)[1] >= 16


def test_an_input_that_is_turned_against_the_pictures_is_mentioned(
    camera: tuple[Path, Boxes], small_world: ToyWorld, tmp_path: Path
) -> None:
    indexed = index(camera[0], tmp_path / "high", "--image-size", "128x72")
    assert indexed.exit_code == 0
    assert "was the image size 72x128 meant?" in indexed.stderr
    square = index(small_world.images, tmp_path / "square", "--image-size", "72x128", "--head", "global")
    assert "meant" not in square.stderr


@pytest.mark.parametrize("size", ["288", "288x", "x", "9x9x9", "-64", "64x-8", "16x64"])
def test_a_bad_size_is_refused_with_its_value(camera: tuple[Path, Boxes], tmp_path: Path, size: str) -> None:
    if size == "288":
        assert_one_line(run("index", camera[0], "--to", tmp_path / "store", "--image-size", size), "--model")
        return
    assert_one_line(index(camera[0], tmp_path / "store", "--image-size", size), size)


def test_a_run_of_rows_and_columns_is_trained_and_measured(small_world: ToyWorld, tmp_path: Path) -> None:
    config = write_config(tmp_path, small_world, model={"image_size": [64, 96]}, train={"epochs": 1})
    trained = run("train", config, "--out", tmp_path / "run")
    assert trained.exit_code == 0, trained.output
    written = json.loads((tmp_path / "run" / "config.json").read_text())["backbone"]
    assert written["image_size"] == [64, 96]
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())["model"]["image_size"] == [64, 96]
    loaded = load_model(ModelConfig(str(tmp_path / "run")))
    assert loaded.head.grid == (8, 12)
    measured = run("eval", config, "--model", tmp_path / "run", "--out", tmp_path / "eval")
    assert measured.exit_code == 0, measured.output
    assert json.loads((tmp_path / "eval" / "metrics.json").read_text())["methods"]["dense"]["vectors_per_image"] == 96
    square = write_config(tmp_path, small_world, train={"epochs": 1})
    assert_one_line(run("eval", square, "--model", tmp_path / "run", "--out", tmp_path / "no"), str(tmp_path / "run"))
