import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lvis import LVIS, LVISEval, LVISResults

from forclip.data.formats.coco import load_lvis
from forclip.location import local_path
from forclip.types import Annotations

URL = "http://images.cocodataset.org/"


def small() -> dict[str, Any]:
    """Image 10 has a crab, and surely no aerosol can; nobody looked for a bow. In image 2 only a bow was looked for."""
    return {
        "images": [
            {
                "id": 10,
                "coco_url": f"{URL}train2017/000000000010.jpg",
                "neg_category_ids": [1],
                "not_exhaustive_category_ids": [9],
            },
            {
                "id": 2,
                "coco_url": f"{URL}val2017/000000000002.jpg",
                "neg_category_ids": [4],
                "not_exhaustive_category_ids": [],
            },
        ],
        "categories": [
            {"id": 9, "name": "crab_(animal)", "synonyms": ["crab_(animal)"], "frequency": "r"},
            {"id": 1, "name": "aerosol_can", "synonyms": ["aerosol_can", "spray_can"], "frequency": "c"},
            {"id": 4, "name": "bow", "synonyms": ["bow", "bow_(weapon)", "long_bow"], "frequency": "f"},
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 9, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3]], "area": 6},
            {"id": 2, "image_id": 10, "category_id": 9, "bbox": [5, 5, 3, 4], "segmentation": [[1, 2, 3]], "area": 6},
        ],
    }


def load(folder: Path, content: Any, images: Path | None = None) -> Annotations:
    file = folder / "lvis.json"
    file.write_text(json.dumps(content))
    return load_lvis(file, images or folder / "nowhere")


def changed(key: str, position: int, **changes: Any) -> dict[str, Any]:
    """The small file with some values of one entry replaced, or left out where they are None."""
    content = small()
    content[key][position] = {k: v for k, v in (content[key][position] | changes).items() if v is not None}
    return content


def test_a_small_file(tmp_path: Path) -> None:
    found = load(tmp_path, small())
    assert found.image_ids == ("2", "10")
    assert found.class_names == ("aerosol can", "bow", "crab (animal)")
    assert found.labels.tolist() == [[False, False, False], [False, False, True]]
    assert found.verified_mask.tolist() == [[False, True, False], [True, False, True]]
    assert found.boxes.tolist() == [[1, 2, 4, 6], [5, 5, 8, 9]]
    assert found.box_images.tolist() == [1, 1]
    assert found.box_classes.tolist() == [2, 2]
    assert found.synonyms == (("spray can",), ("bow (weapon)", "long bow"), ())
    assert found.frequencies == ("c", "f", "r")


def test_not_exhaustive_leaves_a_positive_positive_and_makes_nothing_negative(tmp_path: Path) -> None:
    with_it = load(tmp_path, changed("images", 0, not_exhaustive_category_ids=[9, 4]))
    without = load(tmp_path, changed("images", 0, not_exhaustive_category_ids=[]))
    np.testing.assert_array_equal(with_it.labels, without.labels)
    np.testing.assert_array_equal(with_it.verified_mask, without.verified_mask)


def test_a_positive_stays_positive_where_it_is_said_to_be_negative_too(tmp_path: Path) -> None:
    found = load(tmp_path, changed("images", 0, neg_category_ids=[9, 9]))
    assert found.labels[1].tolist() == found.verified_mask[1].tolist() == [False, False, True]


def test_negatives_are_given_to_their_own_image_in_any_order(tmp_path: Path) -> None:
    """Images out of order, some without negatives: the naive reading, image by image."""
    rng = np.random.default_rng(0)
    ids = rng.permutation(40).tolist()
    images = [
        {"id": i, "file_name": f"{i}.jpg", "neg_category_ids": rng.choice([9, 1, 4], i % 3, replace=False).tolist()}
        for i in ids
    ]
    pairs = [(i, int(rng.choice([9, 1, 4]))) for i in ids[:25]]
    annotations = [{"id": k, "image_id": i, "category_id": c} for k, (i, c) in enumerate(pairs)]
    found = load(tmp_path, small() | {"images": images, "annotations": annotations})
    columns = {1: 0, 4: 1, 9: 2}
    for image in images:
        row = found.image_ids.index(str(image["id"]))
        positive = {columns[c] for i, c in pairs if i == image["id"]}
        assert set(np.flatnonzero(found.labels[row])) == positive
        assert set(np.flatnonzero(found.verified_mask[row])) == positive | {
            columns[c] for c in image["neg_category_ids"]
        }


def test_a_file_without_images_is_no_error(tmp_path: Path) -> None:
    found = load(tmp_path, small() | {"images": [], "annotations": []})
    assert found.labels.shape == found.verified_mask.shape == (0, 3)


@pytest.fixture
def lvis_file(shared: Path) -> Path:
    """The reference evaluation's own test file: 100 photos, 1,230 classes."""
    file = shared / "reference" / "lvis_val_100.json"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    return file


def test_labels_as_the_reference_evaluation_has_them(lvis_file: Path) -> None:
    found, peer = load_lvis(lvis_file, Path("images")), LVIS(str(lvis_file))
    assert found.image_ids == tuple(str(i) for i in sorted(peer.get_img_ids()))
    column = {name: c for c, name in enumerate(found.class_names)}
    assert len(column) == len(peer.get_cat_ids())
    for category in peer.load_cats(None):
        labels = found.labels[:, column[category["name"].replace("_", " ")]]
        assert {int(i) for i, shown in zip(found.image_ids, labels, strict=True) if shown} == set(
            peer.cat_img_map[category["id"]]
        )
    assert found.boxes.shape == (len(peer.get_ann_ids()), 4)
    for row, i in enumerate(map(int, found.image_ids)):
        expected = sorted(a["bbox"] for a in peer.load_anns(peer.get_ann_ids(img_ids=[i])))
        boxes = found.boxes[found.box_images == row]
        boxes[:, 2:] -= boxes[:, :2]
        np.testing.assert_allclose(sorted(boxes.tolist()), expected, atol=1e-3)


def test_verified_is_where_the_reference_evaluation_counts_a_detection(lvis_file: Path) -> None:
    """It is given a detection of everything everywhere, and drops those where nobody knows."""
    found, truth = load_lvis(lvis_file, Path("images")), LVIS(str(lvis_file))
    everywhere = [
        {"image_id": i, "category_id": c, "bbox": [0, 0, 1, 1], "score": 1.0}
        for i in truth.get_img_ids()
        for c in truth.get_cat_ids()
    ]
    evaluation = LVISEval(truth, LVISResults(truth, everywhere, max_dets=-1), iou_type="bbox")
    evaluation._prepare()
    row = {int(i): r for r, i in enumerate(found.image_ids)}
    name = {c["id"]: c["name"].replace("_", " ") for c in truth.load_cats(None)}
    column = {c: found.class_names.index(name[c]) for c in name}
    counted = np.zeros_like(found.labels)
    for image, category in evaluation._dts:
        counted[row[image], column[category]] = True
    assert 0 < counted.sum() < counted.size / 10
    np.testing.assert_array_equal(found.verified_mask, counted)
    for word, group in zip("rcf", evaluation.freq_groups, strict=True):
        expected = {name[evaluation.params.cat_ids[k]] for k in group}
        assert expected == {n for n, f in zip(found.class_names, found.frequencies, strict=True) if f == word}


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


TRAIN, VAL = "train2017/000000000010.jpg", "val2017/000000000002.jpg"
LAYOUTS: dict[str, tuple[list[str], list[str]]] = {
    "nowhere": ([], [VAL, TRAIN]),
    "in COCO's folders": ([TRAIN, VAL], [VAL, TRAIN]),
    "flat": (["000000000010.jpg", "000000000002.jpg"], ["000000000002.jpg", "000000000010.jpg"]),
    "one each": (["000000000010.jpg", VAL], [VAL, "000000000010.jpg"]),
    "both": (["000000000010.jpg", TRAIN], [VAL, TRAIN]),
    "in the folder of another set": (["val2017/000000000010.jpg"], [VAL, TRAIN]),
}


@pytest.mark.parametrize(("there", "expected"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_images_are_found_nested_or_flat(tmp_path: Path, there: list[str], expected: list[str]) -> None:
    images = touch(tmp_path / "images", *there)
    assert load(tmp_path, small(), images).paths == tuple(images / name for name in expected)


def test_a_file_name_is_used_unchanged(tmp_path: Path) -> None:
    images = touch(tmp_path / "images", TRAIN, VAL)
    found = load(tmp_path, changed("images", 0, file_name="mine/ten.jpg", coco_url=""), images)
    assert found.paths == (images / VAL, images / "mine/ten.jpg")


def test_the_url_is_preferred_to_the_file_name(tmp_path: Path) -> None:
    """lvis-api's sample has both, and the file names are of COCO's release of 2014."""
    images = touch(tmp_path / "images", TRAIN, VAL)
    found = load(tmp_path, changed("images", 1, file_name="COCO_val2014_000000000002.jpg"), images)
    assert found.paths == (images / VAL, images / TRAIN)


def test_real_images_are_expected_in_cocos_folders(lvis_file: Path) -> None:
    for path in load_lvis(lvis_file, Path("images")).paths:
        assert local_path(path).parent in (Path("images/train2017"), Path("images/val2017"))
        assert local_path(path).stem.isdigit()


def test_an_image_whose_url_has_no_known_folder(tmp_path: Path) -> None:
    content = changed("images", 0, coco_url="http://example.org/my%20crab.jpg?size=large")
    assert load(tmp_path, content, tmp_path / "images").paths[1] == tmp_path / "images" / "my crab.jpg"


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = small()
    content["images"] = [{"id": k, "coco_url": f"{URL}train2017/{k}.jpg", "neg_category_ids": []} for k in range(11)]
    images = touch(tmp_path / "images", "train2017/7.jpg", "8.jpg")
    listed: list[Path] = []
    real = os.listdir

    def listdir(folder: Path) -> list[str]:
        listed.append(folder)
        return real(folder)

    monkeypatch.setattr(os, "listdir", listdir)
    found = load(tmp_path, content, images)
    assert sorted(listed) == [images, images / "train2017"]
    assert [found.paths[k] for k in (7, 8)] == [images / "train2017/7.jpg", images / "8.jpg"]


# The content, where each entry is that is left out or used in part, and its value.
LEFT_OUT: dict[str, tuple[Any, dict[str, str]]] = {
    "negatives no list": (changed("images", 0, neg_category_ids=7), {"images[0]": "7"}),
    "no negatives": (changed("images", 0, neg_category_ids=None), {"images[0]": ""}),
    "an unknown negative": (changed("images", 1, neg_category_ids=[4, 77]), {"images[1]": "77"}),
    "a fraction among the negatives": (changed("images", 0, neg_category_ids=[1, 4.5]), {"images[0]": "4.5"}),
    "a frequency that is no text": (changed("categories", 1, frequency=[1]), {"categories[1]": "[1]"}),
    "synonyms that are no texts": (changed("categories", 1, synonyms=[1]), {"categories[1]": "[1]"}),
    "a negative width": (changed("annotations", 1, bbox=[0, 0, -1, 1]), {"annotations[1]": "[0.0, 0.0, -1.0, 1.0]"}),
}


@pytest.mark.parametrize(("content", "expected"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_parts_that_cannot_be_used_are_left_out(tmp_path: Path, content: Any, expected: dict[str, str]) -> None:
    found, whole = load(tmp_path, content), load(tmp_path, small())
    assert all(s.used_in_part for s in found.skipped)
    assert {re.findall(r"\((\S+)\)$", s.entry)[0]: s.value for s in found.skipped} == expected
    np.testing.assert_array_equal(found.labels, whole.labels)
    lost = changed_negatives(found, whole)
    assert lost == ({("10", "aerosol can")} if next(iter(expected.values())) in ("7", "") else set())


def changed_negatives(found: Annotations, whole: Annotations) -> set[tuple[str, str]]:
    """Images and classes that are verified in only one of the two."""
    different = np.argwhere(found.verified_mask != whole.verified_mask)
    return {(whole.image_ids[r], whole.class_names[c]) for r, c in different}


NO_NAME: dict[str, tuple[dict[str, Any], str]] = {
    "neither name nor address": (changed("images", 0, coco_url=None), ""),
    "an address without a file": (changed("images", 0, coco_url="http://example.org/"), ""),
    "no address": (changed("images", 0, coco_url="http://[x/train2017/a.jpg"), ""),
    "an address that climbs": (changed("images", 0, coco_url=f"{URL}%2e%2e/x.jpg"), "../x.jpg"),
    "an address that climbs with Windows' separators": (changed("images", 0, coco_url=f"{URL}..%5Cx.jpg"), "..\\x.jpg"),
    "a file name that climbs": (changed("images", 0, file_name="../x.jpg", coco_url=""), "../x.jpg"),
}


@pytest.mark.parametrize(("content", "value"), NO_NAME.values(), ids=NO_NAME.keys())
def test_an_image_without_a_usable_name_is_left_out(tmp_path: Path, content: dict[str, Any], value: str) -> None:
    found = load(tmp_path, content)
    assert found.image_ids == ("2",)
    assert found.verified_mask.tolist() == [[False, True, False]]
    assert [re.findall(r"\((\S+)\)$", s.entry)[0] for s in found.skipped] == [
        *("images[0]", "annotations[0]", "annotations[1]")
    ]
    assert value in ast.literal_eval(found.skipped[0].value or "''")


def test_readable_names_that_collide_are_one_class(tmp_path: Path) -> None:
    found = load(tmp_path, changed("categories", 1, name="crab (animal)"))
    assert found.class_names == ("bow", "crab (animal)")
    assert found.synonyms[1] == ("aerosol can", "spray can")
    assert found.labels.tolist() == [[False, False], [False, True]]
    assert found.skipped == ()


def test_a_category_whose_name_is_only_underscores_is_left_out(tmp_path: Path) -> None:
    found = load(tmp_path, changed("categories", 1, name="__"))
    assert found.class_names == ("bow", "crab (animal)")
    assert {(s.value, s.used_in_part) for s in found.skipped} == {("'__'", False), ("1", True)}


def test_ids_of_negatives_may_be_texts_or_end_in_a_point(tmp_path: Path) -> None:
    found = load(tmp_path, changed("images", 0, neg_category_ids=["1", 4.0]))
    assert found.skipped == ()
    assert found.verified_mask[1].tolist() == [True, True, True]


def test_a_coco_file_read_as_lvis_says_that_nothing_is_known_to_be_absent(tmp_path: Path) -> None:
    images = [{"id": 10, "file_name": "x.jpg"}, {"id": 2, "file_name": "y.jpg"}]
    found = load(tmp_path, small() | {"images": images})
    assert len(found.skipped) == 2
    np.testing.assert_array_equal(found.verified_mask, found.labels)


def test_an_empty_frequency_or_another_word_is_kept(tmp_path: Path) -> None:
    assert load(tmp_path, changed("categories", 1, frequency="x")).frequencies == ("x", "f", "r")
