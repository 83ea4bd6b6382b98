from pathlib import Path

import pytest

from forclip.data.formats.common import UnusableEntry, annotations_of_objects, box_problem


def test_labels_of_unknown_images_are_unverified() -> None:
    paths = [Path(name) for name in "abc"]
    found = annotations_of_objects("abc", paths, [(0, "cat", None), (2, "dog", (0, 0, 1, 1))], unknown_rows=[1, 2])
    assert found.labels.tolist() == [[True, False], [False, False], [False, True]]
    assert found.verified_mask.tolist() == [[True, True], [False, False], [False, True]]
    assert found.boxes.tolist() == [[0, 0, 1, 1]]


def test_a_long_value_is_shortened() -> None:
    skipped = UnusableEntry("too long", "x" * 1000).at("a.txt: line 1")
    assert (skipped.entry, skipped.reason, skipped.used_in_part) == ("a.txt: line 1", "too long", False)
    assert len(skipped.value) < 100


NONE: dict[str, list[float]] = {
    "NaN": [0, 0, float("nan"), 1],
    "infinite": [0, float("-inf"), 1, 1],
    "larger than any image": [0, 0, 1e9, 1],
    "inside out": [5, 0, 4, 1],
    "upside down": [0, 5, 1, 4],
}


@pytest.mark.parametrize("corners", NONE.values(), ids=NONE.keys())
def test_what_is_no_box(corners: list[float]) -> None:
    assert box_problem(corners)


def test_kinds_of_problems_differ() -> None:
    assert len({box_problem(corners) for corners in NONE.values()}) == 3


@pytest.mark.parametrize("corners", [[0, 0, 1, 1], [-5, -5, 3, 2], [4, 4, 4, 4], [0, 0, 1e8, 1]])
def test_boxes_outside_an_image_or_without_area_are_boxes(corners: list[float]) -> None:
    assert box_problem(corners) == ""
