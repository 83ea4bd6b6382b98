import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

from forclip.data.formats.coco import load_coco
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
    lambda name: name.strip() and not name.startswith("/") and ".." not in name.split("/")
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
    assert os.fsencode(found.paths[1]) == b"pictures/caf\xe9.jpg"


def test_unused_fields_may_hold_anything(tmp_path: Path) -> None:
    """Even what JSON doesn't have but Python's json writes."""
    found = load(tmp_path, changed("annotations", 0, area=float("nan"), segmentation={"counts": "x"}, note=[[{}]]))
    assert found.boxes.shape == (2, 4)


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    assert len(load(tmp_path, "\ufeff" + json.dumps(small()))) == 2


def changed(key: str, position: int, **changes: Any) -> dict[str, Any]:
    """The small file with some values of one entry replaced, or left out where they are None."""
    content = small()
    content[key][position] = {k: v for k, v in (content[key][position] | changes).items() if v is not None}
    return content


ANNOTATION_1 = r"annotation 1 \(entry 0 of 'annotations'\) has the bbox"
ANNOTATION_3 = r"annotation 3 \(entry 2 of 'annotations'\)"
ANNOTATION_4 = r"annotation 4 \(entry 3 of 'annotations'\)"
CATEGORY_3 = r"category 3 \(entry 1 of 'categories'\)"
IMAGE_2 = r"image 2 \(entry 1 of 'images'\)"
MALFORMED: dict[str, tuple[Any, str]] = {
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
        r'not readable as JSON: Expecting value: .*, after "id": 2$',
    ),
    "empty": ("", "not readable as JSON: it ends too early"),
    "followed by more": (json.dumps(small()) + "]", "not readable as JSON: trailing characters"),
    "deeply nested": (json.dumps(small())[:-2] + ', {"x": ' + "[" * 100_000, "not readable as JSON: nested too deeply"),
    "a list": ([], "Expected `object`, got `array`"),
    "lists only": ("[" * 100_000, "Expected `object`"),
    "no images": ({k: v for k, v in small().items() if k != "images"}, "`.*images`"),
    "no annotations": ({k: v for k, v in small().items() if k != "annotations"}, "`annotations`"),
    "images no list": (small() | {"images": {}}, "`.*images`"),
    "image no object": (small() | {"images": [7]}, "entry 0 of 'images' is no object: 7"),
    "image without id": (changed("images", 1, id=None), r"entry 1 of 'images' has no id .*\{'file_name'"),
    "id a list": (changed("images", 0, id=[1]), r"entry 0 of 'images' has no id .*: \{'id': \[1\]"),
    "id a fraction": (changed("images", 0, id=1.5), r"entry 0 of 'images' has no id .*: \{'id': 1.5"),
    "unknown image": (changed("annotations", 2, image_id=99), f"{ANNOTATION_3} names image_id 99,"),
    "no image": (changed("annotations", 2, image_id=None), f"{ANNOTATION_3} has no image_id"),
    "image id a list": (
        changed("annotations", 2, image_id=[2]),
        rf"{ANNOTATION_3} has the image_id \[2\], not a whole",
    ),
    "unknown category": (changed("annotations", 3, category_id=1), f"{ANNOTATION_4} names category_id 1,"),
    "category id of another type": (
        changed("annotations", 3, category_id="5"),
        f"{ANNOTATION_4} names category_id '5'",
    ),
    "crowd a word": (changed("annotations", 3, iscrowd="0"), f"{ANNOTATION_4} has the iscrowd '0', not 0 or 1"),
    "image id twice": (changed("images", 1, id=10), r"image '10' \(entry 1 of 'images'\) .* entry 0"),
    "image id twice in two types": (changed("images", 1, id="10"), "image '10' .* entry 0"),
    "category id twice": (changed("categories", 1, id=7), "category '7' .*entry 1 .* entry 0"),
    "annotation id twice": (changed("annotations", 3, id=2), "annotation 2 .*entry 3 .* entry 1"),
    "category name twice": (changed("categories", 1, name="dog"), f"{CATEGORY_3} is named 'dog', .* category 7 'dog'"),
    "category without name": (changed("categories", 1, name=None), f"{CATEGORY_3} has no name"),
    "category with blank name": (changed("categories", 1, name=" "), f"{CATEGORY_3} has no name"),
    "category name a number": (changed("categories", 1, name=5), f"{CATEGORY_3} has the name 5, not a text"),
    "synonyms one word": (
        changed("categories", 1, synonyms="mug"),
        f"{CATEGORY_3} has the synonyms 'mug', not a list of texts",
    ),
    "NaN in a box": (
        changed("annotations", 0, bbox=[0, 0, float("nan"), 1]),
        rf"{ANNOTATION_1} \[0.0, 0.0, nan, 1.0\]",
    ),
    "infinite box": (changed("annotations", 0, bbox=[0, float("-inf"), 1, 1]), rf"{ANNOTATION_1} \[0.0, -inf"),
    "number beyond float": (changed("annotations", 0, bbox=[0, 0, 10**400, 1]), rf"{ANNOTATION_1} \[0, 0, 1000"),
    "number beyond any picture": (changed("annotations", 0, bbox=[0, 0, 1e9, 1]), rf"{ANNOTATION_1} \[0.0, 0.0, 1000"),
    "negative width": (changed("annotations", 0, bbox=[5, 5, -1, 1]), rf"{ANNOTATION_1} \[5.0, 5.0, -1.0, 1.0\]"),
    "negative height": (changed("annotations", 0, bbox=[5, 5, 1, -0.5]), rf"{ANNOTATION_1} \[5.0, 5.0, 1.0, -0.5\]"),
    "negative width of a later box": (
        changed("annotations", 2, bbox=[5, 5, -1, 1]),
        rf"{ANNOTATION_3} has the bbox \[5.0, 5.0, -1.0, 1.0\]",
    ),
    "negative width of a crowd": (changed("annotations", 1, bbox=[5, 5, -1, 1]), r"annotation 2 .* has the bbox \[5.0"),
    "short box": (changed("annotations", 0, bbox=[1, 2, 3]), rf"{ANNOTATION_1} \[1, 2, 3\], not x, y, width, height"),
    "long box": (changed("annotations", 0, bbox=[1, 2, 3, 4, 5]), rf"{ANNOTATION_1} \[1, 2, 3, 4, 5\]"),
    "words in a box": (changed("annotations", 0, bbox=[1, 2, 3, "4"]), rf"{ANNOTATION_1} \[1, 2, 3, '4'\]"),
    "words in a box with NaN": (changed("annotations", 0, bbox=["x", float("nan")]), rf"{ANNOTATION_1} \['x', nan\]"),
    "box no list": (changed("annotations", 0, bbox={"x": 1}), rf"{ANNOTATION_1} \{{'x': 1\}}"),
    "half a surrogate pair for a key": (
        changed("annotations", 0, **{"\udcff": 1}),
        "not readable as JSON: 'utf-8' codec",
    ),
    "an id of a thousand letters": (
        changed("annotations", 0, image_id="x" * 1000),
        "annotation 1 .* names image_id 'xxx",
    ),
    "no box and then the file ends": (
        json.dumps(changed("annotations", 0, bbox=[1]))[:-20],
        "entry 0 of 'annotations' can't be used: Expected `array` of length 4",
    ),
    "no file name": (changed("images", 1, file_name=None), f"{IMAGE_2} has no file name"),
    "empty file name": (changed("images", 1, file_name=""), f"{IMAGE_2} has no file name"),
    "file name a number": (changed("images", 1, file_name=2), f"{IMAGE_2} has the file_name 2, not a text"),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_files_are_refused_by_file_and_entry(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"instances\.json: .*{message}") as raised:
        load(tmp_path, content)
    said = str(raised.value).removeprefix(str(tmp_path))
    assert "\n" not in said
    assert len(said) < 300


OUTSIDE = (
    *("/etc/passwd", "//server/x.jpg", "..", "../x.jpg", "a/../../b.jpg", "a/..", "C:/x.jpg", "c:x.jpg"),
    *("C:\\x.jpg", "..\\x.jpg", "a\\..\\x.jpg", "\\\\server\\x.jpg", "a\\b.jpg", "a\0.jpg", "\ud800.jpg"),
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_file_names_that_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{IMAGE_2} has the file name .*, not a path inside the image folder"
    ) as raised:
        load(tmp_path, changed("images", 1, file_name=name))
    assert repr(name) in str(raised.value)


@pytest.mark.parametrize("name", ["..x.jpg", "a..b/c...jpg", "ab:c.jpg", "a/./b.jpg", " x.jpg", "%2e%2e.jpg"])
def test_unusual_file_names_inside_the_folder_are_not(tmp_path: Path, name: str) -> None:
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
