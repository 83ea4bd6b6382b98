import numpy as np
import pytest

from forclip.places import place_boxes
from forclip.types import Floats


def box_of(*rows: list[float]) -> list[float]:
    grid = np.array(rows, np.float32)
    boxes = place_boxes(grid.reshape(1, -1), (grid.shape[0], grid.shape[1]))
    assert boxes.dtype == np.float32
    assert boxes.shape == (1, 4)
    return [round(float(v), 6) for v in boxes[0]]


def test_of_two_blobs_the_strongest_ones_box() -> None:
    assert box_of(
        [8, 7, 0, 0, 0],
        [8, 0, 0, 0, 0],
        [0, 0, 0, 9, 5],
        [0, 0, 0, 6, 0],
    ) == [0.6, 0.5, 1.0, 1.0]


def test_half_of_the_strongest_is_enough_and_less_is_not() -> None:
    assert box_of([10, 5, 4.9, 9]) == [0.0, 0.0, 0.5, 1.0]


def test_diagonal_neighbours_are_not_connected() -> None:
    assert box_of([9, 0], [0, 8]) == [0.0, 0.0, 0.5, 0.5]
    assert box_of([9, 7], [0, 8]) == [0.0, 0.0, 1.0, 1.0]


def test_a_flat_map_is_the_whole_image() -> None:
    assert box_of([0.25, 0.25, 0.25], [0.25, 0.25, 0.25]) == [0.0, 0.0, 1.0, 1.0]


def test_x_goes_with_columns_and_y_with_rows() -> None:
    assert box_of([0, 0, 0, 0], [0, 0, 0, 1]) == [0.75, 0.5, 1.0, 1.0]
    assert box_of([3.0]) == [0.0, 0.0, 1.0, 1.0]


def test_a_winding_region_is_followed() -> None:
    assert box_of(
        [9, 0, 6, 6],
        [6, 0, 6, 0],
        [6, 6, 6, 0],
        [0, 0, 0, 0],
    ) == [0.0, 0.0, 1.0, 0.75]


def naive_box(place: Floats, grid: tuple[int, int]) -> list[float]:
    """Flood from the strongest position."""
    rows, columns = grid
    start = int(place.argmax())
    reached, frontier = {start}, [start]
    while frontier:
        row, column = divmod(frontier.pop(), columns)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            position = r * columns + c
            if 0 <= r < rows and 0 <= c < columns and position not in reached and place[position] >= place[start] / 2:
                reached.add(position)
                frontier.append(position)
    ys, xs = [p // columns for p in reached], [p % columns for p in reached]
    return [min(xs) / columns, min(ys) / rows, (max(xs) + 1) / columns, (max(ys) + 1) / rows]


@pytest.mark.parametrize("grid", [(7, 7), (3, 8), (1, 5), (6, 1)])
def test_many_maps_in_one_call(grid: tuple[int, int]) -> None:
    """Neighbouring maps touch in memory; they must not in the result."""
    places = np.random.default_rng(0).random((40, grid[0] * grid[1])).astype(np.float32)
    expected = np.array([naive_box(p, grid) for p in places], np.float32)
    np.testing.assert_allclose(place_boxes(places, grid), expected, atol=1e-6)
