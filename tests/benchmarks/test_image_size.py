"""An input of the pictures' own shape finds more, and points better, than a square one of the same area."""

from pathlib import Path

from benchmarks.image_size import COMPARED, draw, measure


def test_wide_inputs_are_better_for_wide_pictures(tmp_path: Path) -> None:
    drawn = draw(tmp_path, 40)
    (square_precision, square_hits), (wide_precision, wide_hits) = (measure(size, *drawn) for size in COMPARED[1])
    assert wide_precision > square_precision + 3
    assert wide_hits > square_hits + 5
