import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from forclip.data.formats.nuimages import NUIMAGES_NOVEL, READABLE_NAMES, is_background, load_nuimages, readable_names
from forclip.location import local_path
from forclip.types import Annotations

ROOT = Path("nuimages")
Tables = dict[str, list[dict[str, Any]]]


def sample_data(token: str, sample: str, filename: str, is_key_frame: bool) -> dict[str, Any]:
    """All columns of nuScenes-devkit's docs/schema_nuimages.md."""
    return {
        "token": token,
        "sample_token": sample,
        "ego_pose_token": "e1",
        "calibrated_sensor_token": "k1",
        "filename": filename,
        "fileformat": filename.rpartition(".")[2],
        "width": 1600,
        "height": 900,
        "timestamp": 1533151603547590,
        "is_key_frame": is_key_frame,
        "next": "",
        "prev": "",
    }


def object_ann(token: str, image: str, category: str, *bbox: float) -> dict[str, Any]:
    return {
        "token": token,
        "sample_data_token": image,
        "category_token": category,
        "attribute_tokens": [],
        "bbox": list(bbox),
        "mask": {"size": [900, 1600], "counts": "bGVuZ3Ro"},
    }


def category(token: str, name: str) -> dict[str, Any]:
    return {"token": token, "name": name, "description": "..."}


def tables() -> Tables:
    """Two samples, the second first; a sweep of the same camera and the lidar's keyframe; surfaces; a class unseen."""
    return {
        "category": [
            category("c1", "vehicle.bicycle"),
            category("c2", "human.pedestrian.adult"),
            category("c3", "flat.driveable_surface"),
            category("c4", "vehicle.ego"),
            category("c5", "animal"),
        ],
        "sample": [
            {"token": "s2", "timestamp": 2, "log_token": "l", "key_camera_token": "d2", "key_lidar_token": "d4"},
            {"token": "s1", "timestamp": 1, "log_token": "l", "key_camera_token": "d1", "key_lidar_token": "d5"},
        ],
        "sample_data": [
            sample_data("d2", "s2", "samples/CAM_BACK/two.jpg", True),
            sample_data("d3", "s2", "sweeps/CAM_BACK/two_later.jpg", False),
            sample_data("d4", "s2", "samples/LIDAR_TOP/two.pcd.bin", True),
            sample_data("d1", "s1", "samples/CAM_FRONT/one.jpg", True),
            sample_data("d5", "s1", "samples/LIDAR_TOP/one.pcd.bin", True),
        ],
        "object_ann": [
            object_ann("a1", "d2", "c1", 10, 20, 110, 220),
            object_ann("a2", "d2", "c2", 0, 0, 1600, 900),
            object_ann("a3", "d2", "c1", 5, 5, 5, 5),
            object_ann("a4", "d1", "c2", 1, 2, 3, 4.5),
        ],
        "attribute": [],
        "calibrated_sensor": [],
        "ego_pose": [],
        "log": [],
        "sensor": [],
        "surface_ann": [{"token": "f1", "sample_data_token": "d2", "category_token": "c3", "mask": None}],
    }


def load(folder: Path, content: Tables) -> Annotations:
    for name, rows in content.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return load_nuimages(folder, ROOT)


def test_a_small_version(tmp_path: Path) -> None:
    """Keyframes only; dotted names made readable, with synonyms; surfaces are no classes; boxes as they are."""
    found = load(tmp_path, tables())
    assert found.image_ids == ("d1", "d2")
    assert found.paths == (ROOT / "samples/CAM_FRONT/one.jpg", ROOT / "samples/CAM_BACK/two.jpg")
    assert found.class_names == ("adult pedestrian", "animal", "bicycle")
    assert found.synonyms[2] == ("bike",)
    assert found.labels.tolist() == [[True, False, False], [True, False, True]]
    assert found.boxes.tolist() == [[10, 20, 110, 220], [0, 0, 1600, 900], [5, 5, 5, 5], [1, 2, 3, 4.5]]
    assert found.box_images.tolist() == [1, 1, 1, 0]
    assert found.box_classes.tolist() == [2, 0, 2, 0]
    assert found.verified is None


def test_boxes_are_amodal(tmp_path: Path) -> None:
    """A bicycle all behind a pedestrian, and one that another half hides: each keeps the box of the whole object."""
    content = tables()
    hidden, half = (20, 20, 60, 60), (80, 0, 180, 90)
    content["object_ann"] = [
        object_ann("a1", "d1", "c2", 0, 0, 100, 100),
        object_ann("a2", "d1", "c1", *hidden),
        object_ann("a3", "d1", "c1", *half),
    ]
    found = load(tmp_path, content)
    assert found.boxes[found.box_classes == found.class_names.index("bicycle")].tolist() == [list(hidden), list(half)]


def test_only_the_tables_that_are_needed_are_read(tmp_path: Path) -> None:
    needed = {name: tables()[name] for name in ("category", "sample", "sample_data", "object_ann")}
    assert load(tmp_path, needed).image_ids == ("d1", "d2")


def test_keyframes_where_samples_name_no_camera(tmp_path: Path) -> None:
    """The lidar has a keyframe as well: is_key_frame alone would make a point cloud an image."""
    content = tables()
    for sample, key in zip(content["sample"], (None, ""), strict=True):
        sample["key_camera_token"] = key
    assert load(tmp_path, content).image_ids == ("d1", "d2")
    for sample in content["sample"]:
        del sample["key_camera_token"]
    assert load(tmp_path, content).image_ids == ("d1", "d2")


def test_a_version_without_annotations(tmp_path: Path) -> None:
    """v1.0-test is published without any."""
    found = load(tmp_path, tables() | {"object_ann": []})
    assert found.labels.shape == (2, 3)
    assert not found.labels.any()
    assert found.boxes.shape == (0, 4)


def test_a_surface_that_an_object_is_annotated_as(tmp_path: Path) -> None:
    content = tables()
    content["object_ann"].append(object_ann("a5", "d1", "c3", 0, 0, 1, 1))
    assert load(tmp_path, content).class_names == ("adult pedestrian", "animal", "bicycle", "driveable surface")


def test_unknown_dotted_names(tmp_path: Path) -> None:
    content = tables()
    content["category"][0]["name"] = "vehicle.emergency.fire_truck"
    found = load(tmp_path, content)
    assert found.class_names == ("adult pedestrian", "animal", "fire truck")
    assert found.synonyms[2] == ("fire truck (emergency vehicle)",)
    assert readable_names("ufo") == ("ufo", ())


def test_every_category_of_the_taxonomy_has_a_readable_name() -> None:
    """23 objects; no word is used for two of them, or a text query would mean both."""
    objects = [dotted for dotted in READABLE_NAMES if not is_background(dotted)]
    assert len(objects) == 23
    words = [word for names in READABLE_NAMES.values() for word in names]
    assert len(words) == len(set(words))
    assert not [word for word in words if "." in word or "_" in word]
    assert is_background("vehicle.ego")
    assert is_background("flat.driveable_surface")
    assert not is_background("static_object.bicycle_rack")


def test_the_split_is_of_object_classes() -> None:
    objects = {names[0] for dotted, names in READABLE_NAMES.items() if not is_background(dotted)}
    assert len(NUIMAGES_NOVEL) == len(set(NUIMAGES_NOVEL)) == 9
    assert set(NUIMAGES_NOVEL) < objects
    assert {"ambulance", "wheelchair", "animal"} < set(NUIMAGES_NOVEL)
    assert {"car", "adult pedestrian", "truck"} < objects - set(NUIMAGES_NOVEL)


def changed(table: str, position: int, **changes: Any) -> Tables:
    """The small version with some columns of one row replaced, or left out where they are None."""
    content = tables()
    row = content[table][position] | changes
    content[table][position] = {k: v for k, v in row.items() if v is not None}
    return content


@pytest.mark.parametrize("content", [{}, 7, None])
def test_a_table_that_is_no_list_is_refused(tmp_path: Path, content: Any) -> None:
    load(tmp_path, tables())
    (tmp_path / "sample.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"sample\.json: "):
        load_nuimages(tmp_path, ROOT)


OF_D2 = {"object_ann[0]": "d2", "object_ann[1]": "d2", "object_ann[2]": "d2"}
# The content, where each row is that is left out, and its value.
LEFT_OUT: dict[str, tuple[Any, dict[str, str]]] = {
    "row no object": (tables() | {"category": [*tables()["category"], 7]}, {"category[5]": "7"}),
    "row null": (tables() | {"category": [*tables()["category"], None]}, {"category[5]": "None"}),
    "name missing": (changed("category", 4, name=None), {"category[4]": ""}),
    "name blank": (changed("category", 4, name=" "), {"category[4]": " "}),
    "name ends in a dot": (changed("category", 4, name="vehicle."), {"category[4]": "vehicle."}),
    "token twice": (changed("category", 4, token="c1"), {"category[4]": "animal"}),
    "token a list": (changed("category", 4, token=["c5"]), {"category[4]": "['c5']"}),
    "image twice": (
        changed("sample_data", 3, token="d2", sample_token="s2"),
        {"sample_data[3]": "samples/CAM_FRONT/one.jpg", "sample[1]": "d1", "object_ann[3]": "d1"},
    ),
    "image without token": (
        changed("sample_data", 0, token=None),
        {"sample_data[0]": "", "sample[0]": "d2"} | OF_D2,
    ),
    "image without name": (
        changed("sample_data", 0, filename=None),
        {"sample_data[0]": "", "sample[0]": "d2"} | OF_D2,
    ),
    "name that climbs": (
        changed("sample_data", 0, filename="samples/../../secret.jpg"),
        {"sample_data[0]": "samples/../../secret.jpg"} | OF_D2,
    ),
    "name from the root": (
        changed("sample_data", 0, filename="/etc/passwd"),
        {"sample_data[0]": "/etc/passwd"} | OF_D2,
    ),
    "unknown image": (changed("object_ann", 2, sample_data_token="d9"), {"object_ann[2]": "d9"}),
    "annotation of a sweep": (changed("object_ann", 2, sample_data_token="d3"), {"object_ann[2]": "d3"}),
    "no image": (changed("object_ann", 2, sample_data_token=None), {"object_ann[2]": ""}),
    "unknown category": (changed("object_ann", 2, category_token="c9"), {"object_ann[2]": "c9"}),
    "category left out": (
        changed("category", 0, name=""),
        {"category[0]": "", "object_ann[0]": "c1", "object_ann[2]": "c1"},
    ),
}


def places(found: Annotations) -> dict[str, str]:
    """The value of what is left out, by table and row."""
    return {re.findall(r"\((\S+)\)$", s.entry)[0]: s.value.strip("'") for s in found.skipped}


@pytest.mark.parametrize(("content", "expected"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_a_row_that_cannot_be_used_is_left_out_alone(tmp_path: Path, content: Tables, expected: dict[str, str]) -> None:
    found = load(tmp_path, content)
    assert places(found) == expected
    assert all(s.entry.startswith(f"{tmp_path}/") for s in found.skipped)
    kept = [a for k, a in enumerate(tables()["object_ann"]) if f"object_ann[{k}]" not in expected]
    assert found.labels.sum() == len({(a["sample_data_token"], a["category_token"]) for a in kept})
    assert len(found.boxes) == len(kept)


LABEL_KEPT: dict[str, Any] = {
    "three numbers": [1, 2, 3],
    "a word": [1, 2, 3, "x"],
    "inside out": [10, 20, 5, 30],
    "upside down": [1, 20, 5, 3],
    "endless": [1, 2, 1e300, 3],
    "NaN": [1, 2, float("nan"), 3],
    "words and NaN": ["x", float("nan")],
    "infinity": [1, 2, float("inf"), 3],
}


@pytest.mark.parametrize("box", LABEL_KEPT.values(), ids=LABEL_KEPT.keys())
def test_a_label_is_kept_without_a_box_that_cannot_be_used(tmp_path: Path, box: Any) -> None:
    found = load(tmp_path, changed("object_ann", 2, bbox=box))
    assert found.labels.tolist() == [[True, False, False], [True, False, True]]
    assert found.boxes.tolist() == [[10, 20, 110, 220], [0, 0, 1600, 900], [1, 2, 3, 4.5]]
    assert places(found).keys() == {"object_ann[2]"}
    assert found.skipped[0].used_in_part


NOT_NEEDED: dict[str, Tables] = {
    "object without token": changed("object_ann", 1, token=None),
    "object token twice": changed("object_ann", 1, token="a1"),
    "row twice": tables() | {"sample_data": [*tables()["sample_data"], tables()["sample_data"][0]]},
    "category twice": tables() | {"category": [*tables()["category"], tables()["category"][0]]},
    "no ego pose": changed("sample_data", 0, ego_pose_token=None),
    "no is_key_frame": changed("sample_data", 0, is_key_frame=None),
    "is_key_frame a number": changed("sample_data", 0, is_key_frame=1),
    "unknown sample": changed("sample_data", 0, sample_token="s9") | {"sample": tables()["sample"][1:]},
    "no sample": changed("sample_data", 0, sample_token=None) | {"sample": tables()["sample"][1:]},
    "no samples": tables() | {"sample": []},
    "no is_key_frame and no samples": changed("sample_data", 0, is_key_frame=None) | {"sample": []},
    "numbers as texts": changed("object_ann", 0, bbox=["10", "20", "110", "220"]),
}


@pytest.mark.parametrize("content", NOT_NEEDED.values(), ids=NOT_NEEDED.keys())
def test_oddities_that_lose_nothing_do_not_matter(tmp_path: Path, content: Tables) -> None:
    found = load(tmp_path, content)
    assert found.skipped == ()
    assert found.image_ids == ("d1", "d2")
    assert found.labels.tolist() == [[True, False, False], [True, False, True]]
    assert len(found.boxes) == 4


def test_tokens_may_be_numbers(tmp_path: Path) -> None:
    content = changed("category", 4, token=5)
    content["object_ann"][3]["category_token"] = "5"
    assert load(tmp_path, content).labels.tolist() == [[False, True, False], [True, False, True]]


def test_a_label_without_a_box(tmp_path: Path) -> None:
    found = load(tmp_path, changed("object_ann", 2, bbox=None))
    assert found.skipped == ()
    assert len(found.boxes) == 3


def test_categories_with_one_readable_name_are_one_class(tmp_path: Path) -> None:
    for name in ("human.adult_pedestrian", "human.pedestrian.adult"):
        content = changed("category", 4, name=name)
        content["object_ann"][0]["category_token"] = "c5"
        found = load(tmp_path, content)
        assert found.class_names == ("adult pedestrian", "bicycle")
        assert found.labels.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("key", ["d9", "d1", 9, ["d2"]])
def test_a_key_camera_that_is_none_of_the_sample_is_told(tmp_path: Path, key: Any) -> None:
    """The sample's keyframes that are images are used."""
    found = load(tmp_path, changed("sample", 0, key_camera_token=key))
    assert found.image_ids == ("d1", "d2")
    assert places(found) == {"sample[0]": str(key)}


@pytest.mark.parametrize("value", ["no", 7, []])
def test_an_is_key_frame_that_is_no_truth_value_is_told(tmp_path: Path, value: Any) -> None:
    content = changed("sample_data", 0, is_key_frame=value) | {"sample": []}
    found = load(tmp_path, content)
    assert found.image_ids == ("d1", "d2")
    assert places(found) == {"sample_data[0]": str(value)}


def test_json_that_only_python_writes_is_read(tmp_path: Path) -> None:
    """NaN where it is not needed, and file names that are not UTF-8: half a surrogate pair for each such byte."""
    content = changed("sample_data", 0, filename=os.fsdecode(b"samples/caf\xe9.jpg"), timestamp=float("nan"))
    assert os.fsencode(local_path(load(tmp_path, content).paths[1])) == b"nuimages/samples/caf\xe9.jpg"


def test_a_table_that_ends_too_early_says_after_which_row(tmp_path: Path) -> None:
    load(tmp_path, tables())
    file = tmp_path / "object_ann.json"
    file.write_bytes(file.read_bytes()[: file.read_bytes().index(b'"a3"') + 20])
    with pytest.raises(
        ValueError, match=r'object_ann\.json: not readable as JSON: it ends too early, after "token": "a3"$'
    ):
        load_nuimages(tmp_path, ROOT)


@pytest.mark.parametrize("table", ["category", "sample", "sample_data", "object_ann"])
def test_a_table_that_is_missing_or_damaged_is_named(tmp_path: Path, table: str) -> None:
    load(tmp_path, tables())
    file = tmp_path / f"{table}.json"
    whole = file.read_bytes()
    for damaged in (whole[:-20], b"", b"\xff\xd8\xff\xe0 a JPEG", b'[{"x": ' + b"[" * 100_000):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{table}\.json: not readable as JSON"):
            load_nuimages(tmp_path, ROOT)
    file.unlink()
    with pytest.raises(ValueError, match=rf"{table}\.json: no such file"):
        load_nuimages(tmp_path, ROOT)
