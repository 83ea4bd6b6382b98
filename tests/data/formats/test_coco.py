import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from forclip.data.formats.coco import load_coco
from forclip.location import local_path
from forclip.types import Annotations

IMAGES = Path("pictures")


def small() -> dict[str, Any]:
    """Images 2 and 10, in the wrong order; category ids that are no columns; a crowd; a label without a box."""
    return {
        "images": [{"id": 10, "file_name": "ten.jpg"}, {"id": 2, "file_name": "sub/two.jpg"}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cup"}, {"id": 5, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 7, "bbox": [1, 2.5, 10, 20], "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 3, "bbox": [0, 0, 5, 5], "iscrowd": 1},
            {"id": 3, "image_id": 2, "category_id": 7, "bbox": [4, 4, 0, 2]},
            {"id": 4, "image_id": 10, "category_id": 5},
        ],
    }


def load(folder: Path, content: Any) -> Annotations:
    file = folder / "instances.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return load_coco(file, IMAGES)


def test_a_small_file(tmp_path: Path) -> None:
    found = load(tmp_path, small())
    assert found.image_ids == ("2", "10")
    assert found.paths == (IMAGES / "sub" / "two.jpg", IMAGES / "ten.jpg")
    assert found.class_names == ("cat", "cup", "dog")
    assert found.labels.tolist() == [[False, True, True], [True, False, True]]
    assert found.boxes.tolist() == [[1, 2.5, 11, 22.5], [4, 4, 4, 6]]
    assert found.box_images.tolist() == [1, 0]
    assert found.box_classes.tolist() == [2, 2]


def test_ids_may_be_strings(tmp_path: Path) -> None:
    content = small()
    content["images"] = [{"id": "b", "file_name": "b.jpg"}, {"id": "a", "file_name": "a.jpg"}]
    content["annotations"] = [{"id": "x", "image_id": "b", "category_id": 7}]
    found = load(tmp_path, content)
    assert found.image_ids == ("a", "b")
    assert found.labels.tolist() == [[False] * 3, [False, False, True]]


def test_a_file_without_annotations_is_no_error(tmp_path: Path) -> None:
    found = load(tmp_path, small() | {"annotations": []})
    assert not found.labels.any()
    assert found.boxes.shape == (0, 4)


def assert_equals_pycocotools(file: Path) -> None:
    found, peer = load_coco(file, IMAGES), COCO(str(file))
    assert found.image_ids == tuple(str(i) for i in sorted(peer.getImgIds()))
    assert set(found.class_names) == {c["name"] for c in peer.loadCats(peer.getCatIds())}
    for column, name in enumerate(found.class_names):
        (category,) = (c["id"] for c in peer.dataset["categories"] if c["name"] == name)
        shown = set(peer.getImgIds(catIds=[category]))
        assert found.labels[:, column].tolist() == [int(i) in shown for i in found.image_ids]
    for row, image_id in enumerate(found.image_ids):
        annotations = peer.loadAnns(peer.getAnnIds(imgIds=[int(image_id)], iscrowd=False))
        expected = sorted((peer.cats[a["category_id"]]["name"], *a["bbox"]) for a in annotations)
        mine = found.box_images == row
        names = [found.class_names[c] for c in found.box_classes[mine]]
        sizes = found.boxes[mine, 2:] - found.boxes[mine, :2]
        got = sorted((n, *b) for n, b in zip(names, np.hstack([found.boxes[mine, :2], sizes]).tolist(), strict=True))
        assert [g[0] for g in got] == [e[0] for e in expected]
        np.testing.assert_allclose([g[1:] for g in got], [e[1:] for e in expected], atol=1e-3)
        assert found.paths[row] == IMAGES / peer.imgs[int(image_id)]["file_name"]


def test_a_generated_file_as_pycocotools_reads_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image_ids = rng.choice(100_000, 30, replace=False).tolist()
    category_ids = rng.choice(90, 8, replace=False).tolist()
    annotations = [
        {
            "id": k,
            "image_id": int(rng.choice(image_ids[:-3])),
            "category_id": int(rng.choice(category_ids[:-1])),
            # Corners differ by at least a pixel, so that rounding can't change the order of boxes.
            "bbox": [k + 0.25, *(float(v) for v in rng.integers(0, 200, 3))],
            "iscrowd": int(rng.random() < 0.2),
        }
        for k in range(150)
    ]
    content = {
        "images": [{"id": i, "file_name": f"{i:012}.jpg"} for i in image_ids],
        "categories": [{"id": c, "name": f"class {chr(122 - k)}"} for k, c in enumerate(category_ids)],
        "annotations": annotations,
    }
    load(tmp_path, content)
    assert_equals_pycocotools(tmp_path / "instances.json")


def test_real_photos_as_pycocotools_reads_them(shared: Path) -> None:
    assert_equals_pycocotools(shared / "photos" / "instances.json")


IDS = st.integers(0, 10**12) | st.text("0123456789ab", min_size=1, max_size=3)
SIZES = st.integers(0, 2000) | st.floats(0, 2000)
NAMES = st.text("ab é/.-", min_size=1, max_size=6).filter(
    lambda name: name.strip() and all(part.strip(".") for part in name.split("/"))
)


@st.composite
def coco_files(draw: st.DrawFn) -> dict[str, Any]:
    """Small files of any order and any ids, with crowds, labels without a box, and images without a label."""
    image_ids = draw(st.lists(IDS, max_size=5, unique_by=str))
    category_ids = draw(st.lists(IDS, max_size=4, unique_by=str))
    class_names = draw(st.lists(NAMES, min_size=len(category_ids), max_size=len(category_ids), unique=True))
    annotations = []
    for k in range(draw(st.integers(0, 8)) if image_ids and category_ids else 0):
        entry: dict[str, Any] = {"id": k, "image_id": draw(st.sampled_from(image_ids)), "segmentation": [[1.5, 2]]}
        entry["category_id"] = draw(st.sampled_from(category_ids))
        entry |= {"bbox": draw(st.lists(SIZES, min_size=4, max_size=4))} if draw(st.booleans()) else {}
        entry |= {"iscrowd": draw(st.sampled_from((0, 1, True, False, None)))} if draw(st.booleans()) else {}
        annotations.append(entry)
    return {
        "images": [{"id": i, "file_name": draw(NAMES), "width": 5} for i in image_ids],
        "categories": [
            {"id": i, "name": n, "supercategory": 7} for i, n in zip(category_ids, class_names, strict=True)
        ],
        "annotations": annotations,
    }


def naive(content: dict[str, Any]) -> dict[str, Any]:
    """Annotations' fields as lists, one thing at a time."""
    images = sorted((i for i in content["images"] if isinstance(i["id"], int)), key=lambda i: i["id"])
    images += sorted((i for i in content["images"] if isinstance(i["id"], str)), key=lambda i: i["id"])
    categories = sorted(content["categories"], key=lambda c: c["name"])
    shown = {(a["image_id"], a["category_id"]) for a in content["annotations"]}
    boxed = [a for a in content["annotations"] if "bbox" in a and not a.get("iscrowd")]
    corners = [(x, y, x + width, y + height) for x, y, width, height in (a["bbox"] for a in boxed)]
    return {
        "image_ids": [str(i["id"]) for i in images],
        "paths": [IMAGES / i["file_name"] for i in images],
        "class_names": [c["name"] for c in categories],
        "labels": [[(i["id"], c["id"]) in shown for c in categories] for i in images],
        "boxes": [[float(np.float32(v)) for v in corner] for corner in corners],
        "box_images": [[i["id"] for i in images].index(a["image_id"]) for a in boxed],
        "box_classes": [[c["id"] for c in categories].index(a["category_id"]) for a in boxed],
    }


@given(coco_files())
def test_any_file_as_a_naive_reader_reads_it(tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any]) -> None:
    found = load(tmp_path_factory.getbasetemp(), content)
    for field, expected in naive(content).items():
        value = getattr(found, field)
        assert (value.tolist() if isinstance(value, np.ndarray) else list(value)) == expected, field
    assert found.labels.shape == (len(content["images"]), len(content["categories"]))
    assert (found.verified, found.synonyms, found.frequencies) == (None, (), ())


def test_synonyms_and_frequencies_are_taken_where_there_are_any(tmp_path: Path) -> None:
    content = small()
    content["categories"][0] |= {"synonyms": ["dog", "domestic_dog", "hound", "hound", ""], "frequency": "common"}
    found = load(tmp_path, content)
    assert found.class_names == ("cat", "cup", "dog")
    assert found.synonyms == ((), (), ("domestic_dog", "hound"))
    assert found.frequencies == ("", "", "common")


def test_images_without_annotations_stay(tmp_path: Path) -> None:
    content = small()
    content["images"].append({"id": 5, "file_name": "empty.jpg"})
    found = load(tmp_path, content)
    assert found.image_ids == ("2", "5", "10")
    assert found.labels.sum(1).tolist() == [2, 0, 2]


def test_a_crowd_is_a_label_even_where_its_segmentation_is_no_polygon(tmp_path: Path) -> None:
    crowd = {"segmentation": {"counts": [3, 4], "size": [5, 6]}, "iscrowd": 1, "area": 7.5, "bbox": [0, 0, 5, 5]}
    content = small() | {"annotations": [{"id": 1, "image_id": 2, "category_id": 3} | crowd]}
    found = load(tmp_path, content)
    assert found.labels.sum() == 1
    assert found.boxes.shape == (0, 4)


def test_corners_are_added_before_they_are_rounded(tmp_path: Path) -> None:
    """In single precision x + width would lose what x has lost already."""
    found = load(tmp_path, changed("annotations", 0, bbox=[16_777_217, 0, 1, 1]))
    assert found.boxes[0, 2] == 16_777_218


def test_names_that_are_not_utf8_are_kept(tmp_path: Path) -> None:
    """As Python's json writes them: half a surrogate pair for each byte that is no UTF-8."""
    name = os.fsdecode(b"caf\xe9.jpg")
    found = load(tmp_path, changed("images", 0, file_name=name))
    assert os.fsencode(local_path(found.paths[1])) == b"pictures/caf\xe9.jpg"


def test_unused_fields_may_hold_anything(tmp_path: Path) -> None:
    """Even what JSON doesn't have but Python's json writes."""
    found = load(tmp_path, changed("annotations", 0, area=float("nan"), segmentation={"counts": "x"}, note=[[{}]]))
    assert found.boxes.shape == (2, 4)


def test_what_only_pythons_json_writes_is_told_from_texts(tmp_path: Path) -> None:
    name = 'NaN, "Infinity": -Infinity \\\\ NaN'
    content = changed("categories", 1, name=name)
    content["annotations"][0]["bbox"] = [float("nan"), float("inf"), float("-inf"), 1]
    content["categories"][2]["name"] = float("nan")
    found = load(tmp_path, content)
    assert found.class_names == (name, "dog")
    assert {s.value for s in found.skipped} == {"[nan, inf, -inf, 1.0]", "", "5"}


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert len(load(tmp_path, "\ufeff" + json.dumps(small()))) == 2


def changed(key: str, position: int, **changes: Any) -> dict[str, Any]:
    """The small file with some values of one entry replaced, or left out where they are None."""
    content = small()
    content[key][position] = {k: v for k, v in (content[key][position] | changes).items() if v is not None}
    return content


REFUSED: dict[str, tuple[Any, str]] = {
    "truncated": (json.dumps(small())[:-20], 'not readable as JSON: it ends too early, after "id": 4$'),
    "truncated in an id": (
        json.dumps(small())[: json.dumps(small()).index("10") + 1],
        "not readable as JSON: it ends too early$",
    ),
    "not JSON in the middle": (
        json.dumps(small()).replace('"category_id": 3', '"category_id": ?'),
        r'not readable as JSON: invalid character \(byte \d+\), after "id": 2$',
    ),
    "NaN and then no JSON": (
        json.dumps(changed("annotations", 0, bbox=[0, 0, float("nan"), 1])).replace(
            '"category_id": 3', '"category_id": ?'
        ),
        r'not readable as JSON: invalid character .*, after "id": 2$',
    ),
    "no box and then the file ends": (json.dumps(changed("annotations", 0, bbox=[1]))[:-20], 'after "id": 4$'),
    "a comma too many": (json.dumps(small()).replace("}]}", "}],}"), "trailing comma"),
    "empty": ("", "not readable as JSON: it is empty"),
    "followed by more": (json.dumps(small()) + "]", "not readable as JSON: trailing characters"),
    "one object a line": ('{"image": "a.jpg"}\n{"image": "b.jpg"}\n', "JSON Lines"),
    "deeply nested": (json.dumps(small())[:-2] + ', {"x": ' + "[" * 100_000, "not readable as JSON: nested too deeply"),
    "lists only": ("[" * 100_000, "nested too deeply"),
    "a pointer of LFS": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "a web page": ("<!DOCTYPE html><html></html>", "web page"),
    "a list": ([], "a list of 0 entries"),
    "detection results": ([{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}], "detection results"),
    "captions": ([{"image_id": 1, "id": 2, "caption": "A dog."}], "captions"),
    "a table of nuImages": ([{"token": "a", "name": "vehicle.car"}], "nuImages"),
    "LabelMe": ({"version": "5", "flags": {}, "shapes": [], "imagePath": "x.jpg"}, "LabelMe"),
    "other keys": ({"pictures": [], "labels": []}, "'labels', 'pictures'"),
    "no images": ({k: v for k, v in small().items() if k != "images"}, "'images'"),
    "images no list": (small() | {"images": {}}, "'images'"),
    "annotations no list": (small() | {"annotations": "none"}, "'annotations'"),
    "no image that can be used": (small() | {"images": [{"id": 1, "file_name": "../x.jpg"}]}, r"\.\./x\.jpg"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_is_something_else_is_refused_in_one_sentence(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"instances\.json: .*{message}") as raised:
        load(tmp_path, content)
    said = str(raised.value).removeprefix(str(tmp_path))
    assert "\n" not in said
    assert len(said) < 300


# The content, and where each entry is that is left out, and its value; in LABEL_KEPT the label of the entry is used.
LEFT_OUT: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "image no object": (small() | {"images": [*small()["images"], 7]}, {"images[2]": "7"}),
    "image without id": (
        changed("images", 1, id=None),
        {"images[1]": "", "annotations[1]": "2", "annotations[2]": "2"},
    ),
    "image id a list": (
        changed("images", 0, id=[1]),
        {"images[0]": "[1]", "annotations[0]": "10", "annotations[3]": "10"},
    ),
    "image id a fraction": (
        changed("images", 0, id=1.5),
        {"images[0]": "1.5", "annotations[0]": "10", "annotations[3]": "10"},
    ),
    "image id twice": (changed("images", 1, id=10), {"images[1]": "10", "annotations[1]": "2", "annotations[2]": "2"}),
    "image id twice in two types": (
        changed("images", 1, id="10"),
        {"images[1]": "10", "annotations[1]": "2", "annotations[2]": "2"},
    ),
    "no file name": (
        changed("images", 1, file_name=None),
        {"images[1]": "", "annotations[1]": "2", "annotations[2]": "2"},
    ),
    "empty file name": (
        changed("images", 1, file_name=""),
        {"images[1]": "", "annotations[1]": "2", "annotations[2]": "2"},
    ),
    "file name a list": (
        changed("images", 1, file_name=["x"]),
        {"images[1]": "['x']", "annotations[1]": "2", "annotations[2]": "2"},
    ),
    "annotation null": (small() | {"annotations": [*small()["annotations"], None]}, {"annotations[4]": "None"}),
    "unknown image": (changed("annotations", 2, image_id=99), {"annotations[2]": "99"}),
    "no image": (changed("annotations", 2, image_id=None), {"annotations[2]": ""}),
    "image id of an annotation a list": (changed("annotations", 2, image_id=[2]), {"annotations[2]": "[2]"}),
    "an id of a thousand letters": (changed("annotations", 2, image_id="x" * 1000), {"annotations[2]": "xxx"}),
    "unknown category": (changed("annotations", 3, category_id=1), {"annotations[3]": "1"}),
    "no category": (changed("annotations", 3, category_id=None), {"annotations[3]": ""}),
    "a caption": (changed("annotations", 3, category_id=None, caption="A dog."), {"annotations[3]": "A dog."}),
    "category id twice": (changed("categories", 1, id=7), {"categories[1]": "cup", "annotations[1]": "3"}),
    "category without id": (changed("categories", 1, id=None), {"categories[1]": "", "annotations[1]": "3"}),
    "category without name": (changed("categories", 1, name=None), {"categories[1]": "", "annotations[1]": "3"}),
    "category with blank name": (changed("categories", 1, name=" "), {"categories[1]": "", "annotations[1]": "3"}),
    "half a surrogate pair for a name": (
        changed("categories", 1, name="\udcff"),
        {"categories[1]": "dcff", "annotations[1]": "3"},
    ),
}
LABEL_KEPT: dict[str, tuple[int, Any]] = {  # the annotation, and its box
    "NaN": (0, [0, 0, float("nan"), 1]),
    "infinity": (0, [0, float("-inf"), 1, 1]),
    "a number beyond float": (0, [0, 0, 10**400, 1]),
    "a number beyond any picture": (0, [0, 0, 1e9, 1]),
    "a negative width": (0, [5, 5, -1, 1]),
    "a negative height": (0, [5, 5, 1, -0.5]),
    "a negative width later": (2, [5, 5, -1, 1]),
    "three numbers": (0, [1, 2, 3]),
    "five numbers": (0, [1, 2, 3, 4, 5]),
    "a word": (0, [1, 2, 3, "x"]),
    "words and NaN": (0, ["x", float("nan")]),
    "an object": (0, {"x": 1}),
    "truth values": (0, [True, False, 1, 2]),
}


@pytest.mark.parametrize(("content", "expected"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_an_entry_that_cannot_be_used_is_left_out_alone(
    tmp_path: Path, content: dict[str, Any], expected: dict[str, str]
) -> None:
    found = load(tmp_path, content)
    assert {re.findall(r"\((\S+)\)$", s.entry)[0] for s in found.skipped} == set(expected)
    for skipped in found.skipped:
        assert not skipped.used_in_part
        assert skipped.entry.startswith(f"{tmp_path}/instances.json: ")
        assert next(v for k, v in expected.items() if f"({k})" in skipped.entry) in skipped.value
        assert len(skipped.value) < 100
    whole = load(tmp_path, small())
    left = {int(k[12:-1]) for k in expected if k.startswith("annotations")}
    positive = {  # by image id and class
        (str(a["image_id"]), {7: "dog", 3: "cup", 5: "cat"}[a["category_id"]])
        for k, a in enumerate(small()["annotations"])
        if k not in left
    }
    assert {(found.image_ids[r], found.class_names[c]) for r, c in np.argwhere(found.labels)} == positive
    assert len(whole) - len(found) == sum(k.startswith("images") for k in expected if "[2]" not in k)


@pytest.mark.parametrize(("position", "box"), LABEL_KEPT.values(), ids=LABEL_KEPT.keys())
def test_a_label_is_kept_without_a_box_that_cannot_be_used(tmp_path: Path, position: int, box: Any) -> None:
    found, whole = load(tmp_path, changed("annotations", position, bbox=box)), load(tmp_path, small())
    np.testing.assert_array_equal(found.labels, whole.labels)
    kept = np.arange(2) != position // 2
    np.testing.assert_array_equal(found.boxes, whole.boxes[kept])
    (skipped,) = found.skipped
    assert skipped.used_in_part
    assert f"annotations[{position}]" in skipped.entry
    assert skipped.value


NOT_NEEDED: dict[str, dict[str, Any]] = {
    "annotation id twice": changed("annotations", 3, id=2),
    "annotation without id": changed("annotations", 0, id=None),
    "annotation id a list": changed("annotations", 0, id=[1]),
    "image listed twice": small() | {"images": [*small()["images"], small()["images"][0]]},
    "whole numbers with a point": changed("images", 0, id=10.0),
    "category ids as texts": small() | {"categories": [c | {"id": str(c["id"])} for c in small()["categories"]]},
    "ids of an annotation as texts": changed("annotations", 0, image_id="10", category_id="7"),
    "ids of an annotation with a point": changed("annotations", 0, image_id=10.0, category_id=7.0),
    "crowd as a text": changed("annotations", 1, iscrowd="1"),
    "crowd 2": changed("annotations", 1, iscrowd=2),
    "no crowd as a text": changed("annotations", 0, iscrowd="0"),
    "no crowd as a fraction": changed("annotations", 0, iscrowd=0.0),
    "numbers as texts": changed("annotations", 0, bbox=["1", "2.5", "10", "20"]),
    "a box of a crowd that is none": changed("annotations", 1, bbox=[5, 5, -1, 1]),
    "an empty box": changed("annotations", 3, bbox=[]),
    "null for a box": small()
    | {"annotations": [*small()["annotations"][:3], small()["annotations"][3] | {"bbox": None}]},
    "damaged run lengths and no box": changed("annotations", 3, segmentation={"counts": [1, 2], "size": [1, 4]}),
    "the same category twice": small() | {"categories": [*small()["categories"], small()["categories"][0]]},
    "half a surrogate pair for a key": changed("annotations", 0, **{"\udcff": 1}),
    "synonyms null": changed("categories", 1, synonyms=[], frequency=""),
    "names with Windows' separators": changed("images", 1, file_name="sub\\two.jpg"),
    "names from here": changed("images", 1, file_name="./sub/two.jpg"),
}


@pytest.mark.parametrize("content", NOT_NEEDED.values(), ids=NOT_NEEDED.keys())
def test_oddities_that_lose_nothing_do_not_matter(tmp_path: Path, content: dict[str, Any]) -> None:
    found, expected = load(tmp_path, content), load(tmp_path, small())
    assert found.skipped == ()
    for field in ("image_ids", "paths", "class_names"):
        assert getattr(found, field) == getattr(expected, field)
    for field in ("labels", "boxes", "box_images", "box_classes"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
def test_any_encoding(tmp_path: Path, encoding: str) -> None:
    text = json.dumps(changed("categories", 1, name="Käsekuchen für Günther"), ensure_ascii=False)
    (tmp_path / "instances.json").write_bytes(text.encode(encoding))
    found = load_coco(tmp_path / "instances.json", IMAGES)
    assert found.class_names == ("Käsekuchen für Günther", "cat", "dog")
    assert found.labels.sum() == 4


def test_categories_with_one_name_are_one_class(tmp_path: Path) -> None:
    """Roboflow's parent category may have the name of a class; other files have a class in two id ranges."""
    content = changed("categories", 1, name="dog", synonyms=["hound"])
    content["categories"][0] |= {"synonyms": ["puppy"], "frequency": "f"}
    found = load(tmp_path, content)
    assert found.class_names == ("cat", "dog")
    assert found.labels.tolist() == [[False, True], [True, True]]
    assert found.synonyms == ((), ("puppy", "hound"))
    assert found.frequencies == ("", "f")
    assert found.skipped == ()


def test_a_parent_category_without_objects_is_no_class(tmp_path: Path) -> None:
    """Roboflow adds one with id 0, of which no image could ever be trained."""
    content = small()
    for category in content["categories"]:
        category["supercategory"] = "things"
    content["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})
    found = load(tmp_path, content)
    assert found.class_names == ("cat", "cup", "dog")
    assert [s.value for s in found.skipped] == ["'things'"]
    content["annotations"][0]["category_id"] = 0
    found = load(tmp_path, content)
    assert found.class_names == ("cat", "cup", "dog", "things")
    assert found.skipped == ()


def test_a_box_around_polygons_or_a_mask_where_there_is_no_box(tmp_path: Path) -> None:
    polygons = [[1, 2, 5, 2, 5, 8], [4, 1, 6, 1, 6, 3.5, 4, 3]]
    assert load(tmp_path, changed("annotations", 3, segmentation=polygons)).boxes[-1].tolist() == [1, 1, 6, 8]
    assert load(tmp_path, changed("annotations", 3, segmentation=polygons[0])).boxes[-1].tolist() == [1, 2, 5, 8]
    mask = {"counts": [5, 2, 13], "size": [4, 5]}
    assert load(tmp_path, changed("annotations", 3, segmentation=mask)).boxes[-1].tolist() == [1, 1, 2, 3]
    for none in ([], [[1, 2]], [[1, 2, 3, 4, 5, "x"]], "x", {"counts": "abc", "size": [2, 2]}):
        assert len(load(tmp_path, changed("annotations", 3, segmentation=none)).boxes) == 2


def test_panoptic_segments_are_objects(tmp_path: Path) -> None:
    segments = [
        {"id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 2, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"id": 3, "bbox": [0, 0, 9, 9]},
    ]
    content = small() | {"annotations": [{"image_id": 10, "file_name": "ten.png", "segments_info": segments}]}
    found = load(tmp_path, content)
    assert found.labels.tolist() == [[False] * 3, [False, True, True]]
    assert found.boxes.tolist() == [[1, 2, 4, 6]]
    assert len(found.skipped) == 1


@pytest.mark.parametrize("missing", [{"annotations": None}, {}])
def test_an_unlabelled_set(tmp_path: Path, missing: dict[str, Any]) -> None:
    found = load(tmp_path, {k: v for k, v in small().items() if k != "annotations"} | missing)
    assert found.labels.shape == (2, 3)
    assert not found.labels.any()
    assert len(load(tmp_path, {"images": small()["images"]})) == 2


@pytest.mark.parametrize(
    "name", ["/elsewhere/{}", "C:\\data\\{}", "http://host/{}?size=large", "../{}", "file:///x/{}"]
)
def test_names_of_other_machines_lead_to_pictures_in_the_folder(tmp_path: Path, name: str) -> None:
    """Never to one outside."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "two.jpg").touch()
    (tmp_path / "out.jpg").touch()
    file = tmp_path / "instances.json"
    for base, expected in (("two.jpg", images / "two.jpg"), ("out.jpg", None)):
        file.write_text(json.dumps(changed("images", 1, file_name=name.format(base))))
        found = load_coco(file, images)
        assert dict(zip(found.image_ids, found.paths, strict=True)).get("2") == expected
        assert len(found.skipped) == (0 if expected else 3)


def test_an_absolute_name_in_the_image_folder(tmp_path: Path) -> None:
    file, images = tmp_path / "instances.json", tmp_path / "images"
    file.write_text(json.dumps(changed("images", 1, file_name=str(images / "sub" / "two.jpg"))))
    assert load_coco(file, images).paths == (images / "sub" / "two.jpg", images / "ten.jpg")


def test_the_name_in_an_address_where_there_is_no_other(tmp_path: Path) -> None:
    content = changed("images", 1, file_name=None, coco_url="http://images.cocodataset.org/val2017/two.jpg")
    file, images = tmp_path / "instances.json", tmp_path / "images"
    file.write_text(json.dumps(content))
    images.mkdir()
    for there in (images / "two.jpg", images / "val2017" / "two.jpg"):
        there.parent.mkdir(exist_ok=True)
        there.touch()
        assert load_coco(file, images).paths == (there, images / "ten.jpg")


@pytest.mark.parametrize("name", ["..x.jpg", "a..b/c...jpg", "ab:c.jpg", " x.jpg", "%2e%2e.jpg"])
def test_unusual_file_names_inside_the_folder_are_kept(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, changed("images", 1, file_name=name)).paths[0] == IMAGES / name


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.json: no such file"):
        load_coco(tmp_path / "nowhere.json", IMAGES)
    with pytest.raises(ValueError, match=f"{tmp_path.name}: not readable as JSON"):
        load_coco(tmp_path, IMAGES)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_bytes(b"\xff\xd8\xff\xe0 a JPEG")
    with pytest.raises(ValueError, match=r"instances\.json: not readable as JSON"):
        load_coco(tmp_path / "instances.json", IMAGES)
