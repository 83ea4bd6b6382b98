import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from forclip.data.coco import load_coco
from forclip.types import Annotations

ROOT = Path(__file__).parents[2]
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


def test_real_photos_as_pycocotools_reads_them() -> None:
    file = Path(os.environ.get("FORCLIP_SHARED", ROOT.parent / "shared")) / "photos" / "instances.json"
    if not file.exists():
        pytest.skip(f"{file} is not there; FORCLIP_SHARED names the folder that holds photos/instances.json")
    assert_equals_pycocotools(file)


def changed(key: str, position: int, **changes: Any) -> dict[str, Any]:
    """The small file with some values of one entry replaced, or left out where they are None."""
    content = small()
    content[key][position] = {k: v for k, v in (content[key][position] | changes).items() if v is not None}
    return content


MALFORMED: dict[str, tuple[Any, str]] = {
    "truncated": (json.dumps(small())[:-20], "not readable as JSON"),
    "empty": ("", "not readable as JSON"),
    "deeply nested": ("[" * 100_000, "not readable as JSON"),
    "a list": ([], "a COCO file holds an object, not a list"),
    "no images": ({k: v for k, v in small().items() if k != "images"}, "no list under 'images'"),
    "no annotations": ({k: v for k, v in small().items() if k != "annotations"}, "no list under 'annotations'"),
    "images no list": (small() | {"images": {}}, "no list under 'images'"),
    "image no object": (small() | {"images": [7]}, "entry 0 of 'images' has no id: 7"),
    "image without id": (changed("images", 1, id=None), "entry 1 of 'images' has no id"),
    "id a list": (changed("images", 0, id=[1]), r"entry 0 of 'images' has no id: \{'id': \[1\]"),
    "unknown image": (changed("annotations", 2, image_id=99), "annotation 3 names image_id 99,"),
    "no image": (changed("annotations", 2, image_id=None), "annotation 3 names image_id None,"),
    "image id a list": (changed("annotations", 2, image_id=[2]), r"annotation 3 names image_id \[2\],"),
    "unknown category": (changed("annotations", 3, category_id=1), "annotation 4 names category_id 1,"),
    "category id of another type": (changed("annotations", 3, category_id="5"), "annotation 4 names category_id '5',"),
    "image id twice": (changed("images", 1, id=10), "image id '10' is there twice"),
    "image id twice in two types": (changed("images", 1, id="10"), "image id '10' is there twice"),
    "category id twice": (changed("categories", 1, id=7), "category id '7' is there twice"),
    "category name twice": (changed("categories", 1, name="dog"), "category name 'dog' is there twice"),
    "category without name": (changed("categories", 1, name=None), "category 3 has no name"),
    "category with blank name": (changed("categories", 1, name=" "), "category 3 has no name"),
    "NaN in a box": (
        changed("annotations", 0, bbox=[0, 0, float("nan"), 1]),
        r"annotation 1 has the box \[0, 0, nan, 1\]",
    ),
    "infinite box": (changed("annotations", 0, bbox=[0, float("-inf"), 1, 1]), r"annotation 1 has the box \[0, -inf"),
    "number beyond float": (
        changed("annotations", 0, bbox=[0, 0, 10**400, 1]),
        r"annotation 1 has the box \[0, 0, 1000",
    ),
    "negative width": (changed("annotations", 0, bbox=[5, 5, -1, 1]), r"annotation 1 has the box \[5, 5, -1, 1\]"),
    "negative height": (changed("annotations", 0, bbox=[5, 5, 1, -0.5]), r"annotation 1 has the box \[5, 5, 1, -0.5\]"),
    "short box": (changed("annotations", 0, bbox=[1, 2, 3]), r"annotation 1 has the box \[1, 2, 3\]"),
    "words in a box": (changed("annotations", 0, bbox=[1, 2, 3, "4"]), r"annotation 1 has the box \[1, 2, 3, '4'\]"),
    "box no list": (changed("annotations", 0, bbox={"x": 1}), r"annotation 1 has the box \{'x': 1\}"),
    "no file name": (changed("images", 1, file_name=None), "image 2 has no file_name"),
    "file name a number": (changed("images", 1, file_name=2), "image 2 has no file_name"),
    "absolute file name": (changed("images", 1, file_name="/etc/passwd"), "image 2 has a file_name .*'/etc/passwd'"),
    "climbing file name": (
        changed("images", 1, file_name="a/../../b.jpg"),
        r"image 2 has a file_name .*'a/\.\./\.\./b.jpg'",
    ),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_files_are_refused_by_file_and_entry(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"instances\.json: .*{message}"):
        load(tmp_path, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.json: no such annotation file"):
        load_coco(tmp_path / "nowhere.json", IMAGES)
    with pytest.raises(ValueError, match=f"{tmp_path.name}: not readable as JSON"):
        load_coco(tmp_path, IMAGES)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "instances.json").write_bytes(b"\xff\xd8\xff\xe0 a JPEG")
    with pytest.raises(ValueError, match=r"instances\.json: not readable as JSON"):
        load_coco(tmp_path / "instances.json", IMAGES)
