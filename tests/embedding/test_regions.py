"""Boxes of position weights, against boxes by hand and a flood fill in small steps."""

import numpy as np
import pytest

from forclip.embedding.regions import boxes_in_images, region_boxes
from forclip.types import Floats


def box_of(*rows: list[float], threshold: float = 0.5) -> list[float]:
    grid = np.array(rows, np.float32)
    boxes = region_boxes(grid.reshape(1, -1), (grid.shape[0], grid.shape[1]), threshold)
    assert boxes.dtype == np.float32
    assert boxes.shape == (1, 4)
    return [round(float(v), 6) for v in boxes[0]]


def test_a_box_ends_where_the_weights_cross_the_threshold() -> None:
    """From 8 at the third of five centres to 0 at its neighbours, the level 4 is half-way; towards 6 it is further."""
    assert box_of([0, 0, 8, 0, 0]) == [0.4, 0.0, 0.6, 1.0]
    assert box_of([0, 0, 8, 2, 0]) == [0.4, 0.0, round((2.5 + 4 / 6) / 5, 6), 1.0]
    assert box_of([0, 0, 8, 6, 0]) == [0.4, 0.0, round((3.5 + 1 / 3) / 5, 6), 1.0]
    assert box_of([0, 0, 8, 0, 0], threshold=0.25) == [0.35, 0.0, 0.65, 1.0]


def test_the_stronger_of_two_blobs_gives_the_box() -> None:
    assert box_of(
        [8, 7, 0, 0, 0],
        [8, 0, 0, 0, 0],
        [0, 0, 0, 10, 5],
        [0, 0, 0, 5, 0],
    ) == [0.6, 0.5, 1.0, 1.0]


def test_diagonal_neighbours_are_not_connected() -> None:
    assert box_of([10, 0], [0, 8]) == [0.0, 0.0, 0.5, 0.5]
    assert box_of([10, 7], [0, 8]) == [0.0, 0.0, 1.0, 1.0]


def test_a_flat_map_is_the_whole_image() -> None:
    assert box_of([0.25, 0.25, 0.25], [0.25, 0.25, 0.25]) == [0.0, 0.0, 1.0, 1.0]
    assert box_of([0.0, 0.0]) == [0.0, 0.0, 1.0, 1.0]


def test_x_goes_with_columns_and_y_with_rows() -> None:
    assert box_of([0, 0, 0, 0], [0, 0, 0, 1]) == [0.75, 0.5, 1.0, 1.0]
    assert box_of([3.0]) == [0.0, 0.0, 1.0, 1.0]


def test_a_winding_region_is_followed() -> None:
    assert box_of(
        [10, 0, 6, 5],
        [6, 0, 6, 0],
        [6, 6, 10, 0],
        [0, 0, 0, 0],
    ) == [0.0, 0.0, 1.0, 0.75]


_STEPS = 40


def naive_box(weights: Floats, grid: tuple[int, int], threshold: float) -> list[float]:
    """Flood the strong positions from the strongest one, then walk from each of their centres in small steps as long
    as the interpolated weight is high enough."""
    rows, columns = grid
    level = threshold * weights.max()
    strong = (weights >= level).reshape(grid)
    start = divmod(int(weights.argmax()), columns)
    reached, frontier = {start}, [start]
    while frontier:
        row, column = frontier.pop()
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            if 0 <= r < rows and 0 <= c < columns and (r, c) not in reached and strong[r, c]:
                reached.add((r, c))
                frontier.append((r, c))
    weights = weights.reshape(grid)
    ends = []
    for r, c in reached:
        across, down = weights[r], weights[:, c]
        ends.append([walk(across, c, -1, level), walk(down, r, -1, level), walk(across, c, 1, level),
                     walk(down, r, 1, level)])  # fmt: skip
    found = np.array(ends)
    return [found[:, 0].min(), found[:, 1].min(), found[:, 2].max(), found[:, 3].max()]


def walk(line: Floats, position: int, step: int, level: float) -> float:
    at = position + 0.5
    while 0 < at < len(line):
        following = at + step / _STEPS
        if np.interp(following, np.arange(len(line)) + 0.5, line) < level:
            break
        at = following
    return min(max(at, 0.0), len(line)) / len(line)


@pytest.mark.parametrize("grid", [(7, 7), (3, 8), (1, 5), (6, 1)])
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_many_maps_in_one_call(grid: tuple[int, int], threshold: float) -> None:
    """Maps that are neighbours in memory must not be connected."""
    weights = np.random.default_rng(0).random((30, grid[0] * grid[1])).astype(np.float32)
    expected = np.array([naive_box(p, grid, threshold) for p in weights], np.float32)
    np.testing.assert_allclose(region_boxes(weights, grid, threshold), expected, atol=1.1 / _STEPS / min(grid) + 1e-6)


def test_boxes_in_padding_and_in_a_crop_are_converted_to_the_image() -> None:
    """An image twice as wide as high, letterboxed with a quarter of padding above and below; and a centre crop."""
    boxes = np.array([[0.25, 0.25, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 1.0, 1.0]], np.float32)
    frames = np.array([[0, -0.5, 1, 1.5], [0, -0.5, 1, 1.5], [0.25, 0, 0.75, 1]], np.float32)
    expected = np.array([[0.25, 0, 0.5, 0.5], [0, 0, 1, 1], [0.5, 0.5, 0.75, 1]], np.float32)
    np.testing.assert_allclose(boxes_in_images(boxes, frames), expected)
