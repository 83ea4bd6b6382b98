"""Label Studio's exports: kinds of results, several annotations, and what can't be used."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from forclip.data.formats.label_studio import load_label_studio
from forclip.search.export import export
from forclip.search.selection import Item, Selection


def write(folder: Path, tasks: Any) -> Path:
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder / "export.json"


def result(kind: str, value: dict[str, Any], **others: Any) -> dict[str, Any]:
    sizes = {"original_width": 200, "original_height": 100}
    return {"id": "r", "type": kind, "from_name": "x", "to_name": "image", "value": value, **sizes, **others}


def task(name: str, *results: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "data": {"image": f"/data/upload/1/0123abcd-{name}"},
        "annotations": [{"result": results}],
        **others,
    }


POINTS = [[10, 20], [30, 25], [15, 60]]
ELLIPSE = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 30}
BOX = {"x": 10, "y": 20, "width": 30, "height": 40}
VALUES: dict[str, tuple[str, dict[str, Any], tuple[float, ...] | None]] = {
    "rectangle": ("rectanglelabels", {**BOX, "rotation": 0, "rectanglelabels": ["cat"]}, (20, 20, 80, 60)),
    # 60 x 40 pixels, turned clockwise around its first corner (100, 20).
    "turned": ("rectanglelabels", {**BOX, "x": 50, "rotation": 90, "rectanglelabels": ["cat"]}, (60, 20, 100, 80)),
    "polygon": (
        "polygonlabels",
        {"points": [[10, 20], [30, 25], [15, 60]], "polygonlabels": ["cat"]},
        (20, 20, 60, 60),
    ),
    "ellipse": (
        "ellipselabels",
        {"x": 50, "y": 50, "radiusX": 10, "radiusY": 30, "ellipselabels": ["cat"]},
        (80, 20, 120, 80),
    ),
    "brush": ("brushlabels", {"format": "rle", "rle": [1, 2], "brushlabels": ["cat"]}, None),
    "key point": ("keypointlabels", {"x": 1, "y": 2, "width": 0.5, "keypointlabels": ["cat"]}, None),
    "choice": ("choices", {"choices": ["cat"]}, None),
    "taxonomy": ("taxonomy", {"taxonomy": [["animal", "cat"]]}, None),
}


@pytest.mark.parametrize(("kind", "value", "box"), VALUES.values(), ids=VALUES.keys())
def test_results_become_labels_and_boxes(
    kind: str, value: dict[str, Any], box: tuple[float, ...] | None, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    loaded = load_label_studio(write(tmp_path, [task("a.jpg", result(kind, value)), task("b.jpg")]), tmp_path)
    assert (loaded.image_ids, loaded.class_names) == (("a.jpg", "b.jpg"), ("cat",))
    assert loaded.labels.tolist() == [[True], [False]]
    assert loaded.verified is None
    assert loaded.boxes.tolist() == ([] if box is None else [pytest.approx(box, abs=1e-4)])
    assert loaded.skipped == ()


def test_a_region_may_have_its_label_in_another_result(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    parts = result("rectangle", BOX), result("labels", {**BOX, "labels": ["cat"]})
    comment = result("textarea", {"text": ["blurred"]}), {"type": "relation", "from_id": "r", "to_id": "s"}
    loaded = load_label_studio(write(tmp_path, [task("a.jpg", *parts, *comment)]), tmp_path)
    assert (loaded.boxes.tolist(), loaded.skipped) == ([[20, 20, 80, 60]], ())


def test_ground_truth_comes_first_and_skipped_annotations_do_not_count(tmp_path: Path) -> None:
    def choice(name: str, **others: Any) -> dict[str, Any]:
        return {"result": [result("choices", {"choices": [name]})], **others}

    for name in "abcd":
        (tmp_path / f"{name}.jpg").touch()
    tasks = [
        task("a.jpg", annotations=[choice("cat"), choice("dog")]),
        task("b.jpg", annotations=[choice("cat"), choice("dog", ground_truth=True)]),
        task("c.jpg", annotations=[choice("cat", was_cancelled=True)]),
        task("d.jpg", annotations=[], predictions=[choice("cat")]),
    ]
    loaded = load_label_studio(write(tmp_path, tasks), tmp_path)
    assert loaded.class_names == ("cat", "dog")
    assert loaded.labels.tolist() == [[True, True], [False, True], [False, False], [False, False]]
    assert loaded.verified_mask.tolist() == [[True, True], [True, True], [False, False], [False, False]]


def test_json_min_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "b.jpg").touch()
    region = {**BOX, "rotation": 0, "rectanglelabels": ["cat"], "original_width": 200, "original_height": 100}
    tasks = [
        {"id": 1, "image": "/data/upload/1/0123abcd-a.jpg", "label": [region], "choice": "sharp", "annotator": 1},
        {"id": 2, "photo": "/data/local-files/?d=x/b.jpg", "kinds": {"choices": ["dog", "cat"]}, "annotation_id": 3},
    ]
    loaded = load_label_studio(write(tmp_path, tasks), tmp_path)
    assert loaded.class_names == ("cat", "dog", "sharp")
    assert loaded.labels.tolist() == [[True, False, True], [True, True, False]]
    assert loaded.boxes.tolist() == [[20, 20, 80, 60]]


@pytest.mark.parametrize(
    ("broken", "reason", "in_part"),
    [
        ([3], "no object", False),
        ([{"id": 1, "data": {"text": "hello"}, "annotations": []}], "no picture", False),
        ([task("a.jpg", result("rectanglelabels", {**BOX, "rectanglelabels": []}))], "no label", False),
        ([task("a.jpg", result("rectanglelabels", {**BOX, "x": "?", "rectanglelabels": ["cat"]}))], "numbers", True),
        ([task("a.jpg", result("rectanglelabels", {**BOX, "x": 1e99, "rectanglelabels": ["cat"]}))], "larger", True),
        (
            [task("a.jpg", result("rectanglelabels", {**BOX, "rectanglelabels": ["cat"]}, original_width=None))],
            "size",
            True,
        ),
    ],
)
def test_what_cannot_be_used_is_listed_and_the_rest_is_read(
    broken: list[Any], reason: str, in_part: bool, tmp_path: Path
) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    loaded = load_label_studio(
        write(tmp_path, [*broken, task("b.jpg", result("choices", {"choices": ["dog"]}))]), tmp_path
    )
    (skipped,) = loaded.skipped
    assert reason in skipped.reason
    assert skipped.used_in_part == in_part
    assert "b.jpg" in loaded.image_ids
    assert ("cat" in loaded.class_names) == in_part
    assert len(loaded.boxes) == 0


@pytest.mark.parametrize(("content", "named"), [({}, "list"), ([], "no task"), ([{"data": 1}], "none of its 1 tasks")])
def test_a_file_of_which_nothing_can_be_used_is_refused(content: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"export\.json: .*{named}"):
        load_label_studio(write(tmp_path, content), tmp_path)


def test_an_export_comes_back_once_it_is_accepted(tmp_path: Path) -> None:
    for k in range(2):
        Image.new("RGB", (40, 20)).save(tmp_path / f"ä {k}.png")
    items = tuple(Item(str(k), tmp_path / f"ä {k}.png", 40, 20, 0.5, box=(0.25, 0.5, 0.5, 1.0)) for k in range(2))
    export(Selection(items, "cat"), "labelstudio", tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert not load_label_studio(write(tmp_path, tasks), tmp_path).verified_mask.any()
    accepted = [{**task, "annotations": task["predictions"]} for task in tasks]
    loaded = load_label_studio(write(tmp_path, accepted), tmp_path)
    assert loaded.image_ids == ("ä 0.png", "ä 1.png")
    assert loaded.boxes.tolist() == [[10, 10, 20, 20]] * 2
