"""`forclip search --annotations`: each result right or wrong by the labels, and what the list is worth."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from forclip.cli import app
from forclip.config import SourceConfig
from forclip.search.labels import StoreLabels, judge_by_labels, load_store_labels
from forclip.search.output import answer_table
from forclip.search.request import SearchRequest, answer, with_labels
from forclip.search.searcher import Searcher
from forclip.toyworld.dataset import ToyWorld


@pytest.fixture(scope="module")
def labels(searcher: Searcher, small_world: ToyWorld) -> StoreLabels:
    found = load_store_labels(searcher.index, SourceConfig(small_world.gallery_file, small_world.images))
    return StoreLabels(found.images, {"snail": "novel"})


def run(searcher: Searcher, world: ToyWorld, *arguments: str) -> Any:
    given = ["--annotations", str(world.gallery_file), "--images", str(world.images), *arguments]
    return CliRunner().invoke(app, ["search", str(searcher.index.store.folder), *given])


def test_each_result_has_a_verdict(searcher: Searcher, labels: StoreLabels) -> None:
    found = with_labels(searcher, answer(searcher, SearchRequest("Snail", k=20)), labels)
    column = labels.images.class_names.index("snail")
    said = found.by_labels
    assert said is not None
    assert (said.class_name, said.group) == ("snail", "novel")
    assert list(said.verdicts) == [labels.shows(r.image_id, column) for r in found.results]
    table = answer_table(found)
    place = [c.header for c in table.columns].index("label")
    assert [*table.columns[place].cells] == [{True: "right", False: "wrong"}[bool(v)] for v in said.verdicts]


def test_the_command_says_what_the_list_is_worth(
    searcher: Searcher, labels: StoreLabels, small_world: ToyWorld
) -> None:
    column = labels.images.class_names.index("snail")
    expected = judge_by_labels(searcher.index, labels, column, searcher.encode_text("snail"))
    done = run(searcher, small_world, "snail", "-k", "5", "--json")
    assert done.exit_code == 0, done.output
    assert "Labels for 60 of the store's 60 images" in done.stderr
    told = json.loads(done.stdout)
    assert [r["relevant"] for r in told["results"]] == [labels.shows(r["image_id"], column) for r in told["results"]]
    assert told["labels"]["average_precision"] == pytest.approx(expected.average_precision)
    assert told["labels"]["precision_at_10"] == pytest.approx(expected.precision_at_10)
    assert told["labels"]["missed"] == list(expected.missed)
    plain = " ".join(run(searcher, small_world, "snail", "-k", "5").stdout.split())
    assert f"By the labels {expected.relevant} images show 'snail': AP@50 {expected.average_precision:.1f} %" in plain


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["snial"], "'snial' names no class of the labels; did you mean 'snail'"),
        (["snail", "--any", "anchor"], "labels are compared with one text's list, not with 'snail or anchor'"),
        (["snail", "--split", "coco-17"], "coco-17: no run's folder"),
        (["snail", "--subset", "val"], "a subset is of YOLO and Pascal VOC data"),
    ],
)
def test_what_labels_cannot_say_is_told(
    searcher: Searcher, small_world: ToyWorld, arguments: list[str], told: str
) -> None:
    done = run(searcher, small_world, *arguments)
    assert done.exit_code == 2
    assert told in done.stderr


def test_options_of_annotations_need_annotations(searcher: Searcher, small_world: ToyWorld) -> None:
    for command in ("search", "serve"):
        arguments = [command, str(searcher.index.store.folder), *(["snail"] if command == "search" else [])]
        done = CliRunner().invoke(app, [*arguments, "--images", str(small_world.images)])
        assert (done.exit_code, "are of --annotations" in done.stderr) == (2, True)


def test_serving_with_labels_of_other_images_is_refused(searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("image,label\nx.jpg,snail\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    store = str(searcher.index.store.folder)
    done = CliRunner().invoke(app, ["serve", store, "--annotations", str(tmp_path / "other.csv"), "--port", port])
    assert done.exit_code == 2
    assert "none of its 1 images is in the store" in done.stderr
