import numpy as np
import pytest

from benchmarks.pointing_hits import class_mean, covered, evaluate_region, inside, pairs_with_boxes, peaks
from forclip.embedding.regions import overlaps
from forclip.types import Annotations, Floats


def floats(*rows: object) -> Floats:
    return np.array(rows, np.float32)


LEFT, RIGHT = [0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]


def test_one_region_worked_by_hand() -> None:
    """The peak lies in the first box; the place's centre (0.75, 0.25) in none; 0.25 of 0.5 + 0.25 is shared with the
    second, whose upper half the place covers."""
    heat = floats(9, 0, 0, 3)
    boxes = floats([0, 0, 0.4, 0.4], [0.5, 0.3, 1.0, 1.0])
    found = evaluate_region(heat, (2, 2), floats([0.5, 0.0, 1.0, 0.5])[0], boxes)
    assert (found.peak, found.centre, found.correct) == (1, 0, 0)
    # 0.5 wide, from 0.3 to 0.5 high: 0.1 of 0.25 + 0.35 - 0.1.
    assert found.overlap == pytest.approx(0.1 / 0.5, abs=1e-6)


def test_half_an_overlap_is_correct() -> None:
    place = floats([0.0, 0.0, 0.5, 1.0])[0]
    assert evaluate_region(floats(1, 0), (1, 2), place, floats([0, 0, 1, 1])).correct == 1
    assert evaluate_region(floats(1, 0), (1, 2), place, floats([0.01, 0, 1, 1])).correct == 0


def test_equal_peaks_share_the_hit() -> None:
    """A cluster's places are all equally strong: what counts is how many of them hit."""
    heat = floats(1, 1, 1, 0)
    assert peaks(heat, (2, 2)).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75]]
    assert evaluate_region(heat, (2, 2), floats(LEFT)[0], floats([0, 0, 1, 0.5])).peak == pytest.approx(2 / 3)


def test_x_goes_with_columns() -> None:
    heat = np.zeros(6, np.float32)
    heat[5] = 1
    assert peaks(heat, (2, 3)).tolist() == [[pytest.approx(5 / 6), 0.75]]


def test_a_point_on_an_edge_is_inside_and_any_box_will_do() -> None:
    points = floats([0.5, 0.5], [0.2, 0.9], [0.9, 0.1])
    assert inside(points, floats([0.5, 0.5, 0.6, 0.6], [0.1, 0.8, 0.3, 1.0])).tolist() == [True, True, False]


def test_overlaps_agree_with_counting_pixels() -> None:
    rng = np.random.default_rng(0)
    corners = np.sort(rng.integers(0, 33, (20, 2, 2)), 1)
    boxes = np.concatenate([corners[:, 0], corners[:, 1]], 1)
    boxes = boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]
    masks = [np.zeros((32, 32), bool) for _ in boxes]
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    counted = [(masks[0] & m).sum() / (masks[0] | m).sum() for m in masks]
    scaled = (boxes / 32).astype(np.float32)
    np.testing.assert_allclose(overlaps(scaled[0], scaled), counted, atol=1e-6)
    assert covered(scaled) == pytest.approx(np.any(masks, 0).mean())


def test_boxes_without_area_overlap_nothing() -> None:
    assert overlaps(floats([0.5, 0.5, 0.5, 0.5])[0], floats([0.5, 0.5, 0.5, 0.5])).tolist() == [0]
    assert covered(floats([0.5, 0.5, 0.5, 0.5])) == 0


def test_common_classes_do_not_drown_rare_ones() -> None:
    assert class_mean([1, 1, 1, 0], [4, 4, 4, 7]) == 0.5
    assert class_mean([1, 0, 0.5], [2, 2, 2]) == 0.5
    with pytest.raises(ValueError, match="no pair"):
        class_mean([], [])


def test_boxes_of_a_class_in_an_image_come_together() -> None:
    """Two images of 100 x 50 and 10 x 10; the first has two boxes of class 1, and a label 0 without a box."""
    images = Annotations(
        ("a", "b"),
        ("a.jpg", "b.jpg"),  # type: ignore[arg-type]
        ("cat", "dog"),
        np.array([[True, True], [True, False]]),
        floats([0, 0, 50, 50], [1, 2, 6, 7], [50, 25, 100, 50]),
        np.array([0, 1, 0]),
        np.array([1, 0, 1]),
    )
    first, second = pairs_with_boxes(images, np.array([[100, 50], [10, 10]]))
    assert (first.image, first.column, second.image, second.column) == (0, 1, 1, 0)
    np.testing.assert_allclose(first.boxes, [LEFT, [0.5, 0.5, 1, 1]])
    np.testing.assert_allclose(second.boxes, [[0.1, 0.2, 0.6, 0.7]])
