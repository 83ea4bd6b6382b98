import json
import os
from pathlib import Path
from typing import Any

import pytest

from forclip.data.formats.nuimages import NUIMAGES_NOVEL, READABLE_NAMES, is_background, load_nuimages, readable_names
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


ANN_3 = r"object_ann.json: object_ann 'a3' \(entry 2\)"
MALFORMED: dict[str, tuple[Any, str]] = {
    "no list": (tables() | {"sample": {}}, "sample.json: .* Expected `array`"),
    "row no object": (tables() | {"category": [7]}, "category.json: entry 0 is no object: 7"),
    "token a number": (
        changed("object_ann", 1, token=7),
        r"object_ann.json: entry 1 has no token .*\{'token': 7",
    ),
    "name missing": (changed("category", 4, name=None), r"category.json: category 'c5' \(entry 4\) has no name"),
    "name blank": (changed("category", 4, name=" "), "category.json: category c5 has no name, but ' '"),
    "name ends in a dot": (changed("category", 4, name="vehicle."), "category.json: category c5 has no name, but"),
    "names collide": (
        changed("category", 4, name="human.adult_pedestrian"),
        "category.json: categories 'human.pedestrian.adult' and 'human.adult_pedestrian' are both called",
    ),
    "name twice": (changed("category", 4, name="vehicle.bicycle"), "category.json: categories 'vehicle.bicycle' and"),
    "token twice": (changed("category", 4, token="c1"), "category.json: category 'c1' .*entry 4.* entry 0"),
    "image twice": (changed("sample_data", 3, token="d2"), "sample_data.json: sample_data 'd2' .*entry 3.* entry 0"),
    "unknown sample": (changed("sample_data", 1, sample_token="s9"), "sample_data d3 names sample_token 's9', which"),
    "unknown key camera": (changed("sample", 0, key_camera_token="d9"), "sample s2 names key_camera_token 'd9', which"),
    "key camera of another": (changed("sample", 0, key_camera_token="d1"), "sample s2 names key_camera_token 'd1'"),
    "unknown image": (
        changed("object_ann", 2, sample_data_token="d9"),
        "object_ann.json: object_ann a3 names sample_data_token 'd9', which is no keyframe image",
    ),
    "annotation of a sweep": (
        changed("object_ann", 2, sample_data_token="d3"),
        "object_ann.json: object_ann a3 names sample_data_token 'd3', which is no keyframe image",
    ),
    "unknown category": (
        changed("object_ann", 2, category_token="c9"),
        "object_ann.json: object_ann a3 names category_token 'c9'",
    ),
    "short box": (
        changed("object_ann", 2, bbox=[1, 2, 3]),
        rf"{ANN_3} has the bbox \[1, 2, 3\], not xmin, ymin, xmax, ymax",
    ),
    "words in a box": (
        changed("object_ann", 2, bbox=[1, 2, 3, "4"]),
        rf"{ANN_3} has the bbox \[1, 2, 3, '4'\], not xmin",
    ),
    "no box": (changed("object_ann", 2, bbox=None), f"{ANN_3} has no bbox"),
    "box inside out": (
        changed("object_ann", 2, bbox=[10, 20, 5, 30]),
        r"object_ann.json: object_ann a3 has the box \[10.0, 20.0, 5.0, 30.0\], not xmin",
    ),
    "box upside down": (changed("object_ann", 2, bbox=[1, 20, 5, 3]), "object_ann a3 has the box"),
    "endless box": (changed("object_ann", 2, bbox=[1, 2, 1e300, 3]), "object_ann a3 has the box"),
    "NaN in a box": (
        changed("object_ann", 2, bbox=[1, 2, float("nan"), 3]),
        r"object_ann.json: object_ann a3 has the box \[1.0, 2.0, nan, 3.0\], not xmin",
    ),
    "NaN in a box of words": (
        changed("object_ann", 2, bbox=["x", float("nan")]),
        rf"{ANN_3} has the bbox \['x', nan\]",
    ),
    "row null": (
        tables() | {"category": [None]},
        "category.json: entry 0 is no object: None",
    ),
    "infinity in a box": (
        changed("object_ann", 2, bbox=[1, 2, float("inf"), 3]),
        r"object_ann a3 has the box \[1.0, 2.0",
    ),
    "key frame a word": (
        changed("sample_data", 1, is_key_frame="no"),
        r"sample_data.json: sample_data 'd3' \(entry 1\) has the is_key_frame 'no', not true or false",
    ),
    "token missing": (changed("sample", 1, token=None), r"sample.json: entry 1 has no token .*\{'timestamp'"),
    "name null": (
        tables() | {"category": [{"token": "c1", "name": None}]},
        r"category.json: category 'c1' \(entry 0\) has the name None, not a text",
    ),
    "path traversal": (
        changed("sample_data", 0, filename="samples/../../secret.jpg"),
        "sample_data.json: sample_data d2 has a file name outside the folder nuimages: 'samples/",
    ),
    "absolute path": (changed("sample_data", 0, filename="/etc/passwd"), "sample_data d2 has a file name outside"),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_tables_are_refused_by_file_and_entry(tmp_path: Path, content: Tables, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, content)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_json_that_only_python_writes_is_read(tmp_path: Path) -> None:
    """NaN where it is not needed, and file names that are not UTF-8: half a surrogate pair for each such byte."""
    content = changed("sample_data", 0, filename=os.fsdecode(b"samples/caf\xe9.jpg"), timestamp=float("nan"))
    assert os.fsencode(load(tmp_path, content).paths[1]) == b"nuimages/samples/caf\xe9.jpg"


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
    for damaged in (whole[:-20], b"", b"\xff\xd8\xff\xe0 a JPEG", b'[{"token": "\xff"}]', b'[{"x": ' + b"[" * 100_000):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"{table}\.json: not readable as JSON"):
            load_nuimages(tmp_path, ROOT)
    file.unlink()
    with pytest.raises(ValueError, match=rf"{table}\.json: no such file"):
        load_nuimages(tmp_path, ROOT)
