"""A drawn heatmap covers the part of the image given by its frame, and boxes are outlined."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forclip.embedding.regions import Heatmap
from forclip.search.look import Look, draw_look, save_picture
from forclip.types import Floats

EMPTY_BOX = np.zeros((1, 4), np.float32)


def look(boxes: Floats, winner: int = 0) -> Look:
    count = len(boxes)
    return Look(np.eye(count, dtype=np.float32), boxes, np.zeros(count, np.float32), 0, winner)


def opacity(values: Floats, frame: tuple[float, float, float, float], size: tuple[int, int]) -> Floats:
    """Draw a heatmap over a black image of `size`; return its opacity per pixel, 0..1: [height, width]."""
    drawn = draw_look(Image.new("RGB", size), look(EMPTY_BOX), Heatmap(values, frame, 1.0))
    heat: Floats = np.asarray(drawn)[..., 0].astype(np.float32) / (0.8 * 230)
    return heat


def test_the_heatmap_is_linear_between_positions() -> None:
    heat = opacity(np.array([[0.0, 1.0], [0.0, 1.0]], np.float32), (0, 0, 1, 1), (200, 40))
    x = (np.arange(200) + 0.5) / 200
    np.testing.assert_allclose(heat, np.tile(np.interp(x, [0.25, 0.75], [0, 1]), (40, 1)), atol=0.01)


@pytest.mark.parametrize(
    ("frame", "centre"),
    [((0, 0, 1, 1), (0.875, 0.125)), ((0, -0.5, 1, 1.5), None), ((0.25, 0, 0.75, 1), (0.6875, 0.125))],
)
def test_a_peak_lies_where_the_frame_maps_it(
    frame: tuple[float, float, float, float], centre: tuple[float, float] | None
) -> None:
    """The peak is the upper right of 4 x 4 positions, in a squashed image, letterbox padding and a centre crop."""
    values = np.zeros((4, 4), np.float32)
    values[0, 3] = 1
    heat = opacity(values, frame, (160, 80))
    if centre is None:
        # The peak lies above the image. At the image's edge, half-way to the next position, half of it is left.
        assert heat.max() == heat[0, -1] == pytest.approx(0.5, abs=0.02)
        return
    row, column = np.divmod(np.flatnonzero(heat == heat.max()), 160)
    assert heat.max() == pytest.approx(1, abs=0.01)
    assert abs((column.min() + 0.5) / 160 - centre[0]) < 0.02
    assert abs((row.max() + 0.5) / 80 - centre[1]) < 0.02
    assert (heat[:, : round(frame[0] * 160)] == 0).all()
    assert (heat[:, round(frame[2] * 160) :] == 0).all()


def test_the_winner_has_a_bold_outline_and_others_a_thin_one() -> None:
    boxes = np.array([[0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.9, 0.9], [0, 0, 0, 0]], np.float32)
    blank = Heatmap(np.zeros((2, 2), np.float32), (0, 0, 1, 1), 1.0)
    drawn = np.asarray(draw_look(Image.new("RGB", (100, 100), "grey"), look(boxes, 1), blank))
    assert drawn[10, 20].tolist() == [255, 255, 255]
    assert drawn[50, 70].tolist() == drawn[51, 70].tolist() == [255, 176, 0]
    assert drawn[49, 70].tolist() == [0, 0, 0]
    assert drawn[70, 70].tolist() == drawn[20, 20].tolist() == drawn[0, 0].tolist() == [128, 128, 128]


def test_of_hundreds_of_regions_the_best_are_outlined() -> None:
    """Each region is a row of its own; the score falls from the top."""
    edges = np.arange(80, dtype=np.float32)[:, None] / 80
    boxes = np.concatenate([0 * edges, edges, 0 * edges + 1, edges + 1 / 80], 1)
    many = Look(np.eye(80, dtype=np.float32), boxes, np.linspace(1, 0, 80, dtype=np.float32), 0, 0)
    blank = Heatmap(np.zeros((2, 2), np.float32), (0, 0, 1, 1), 1.0)
    drawn = np.asarray(draw_look(Image.new("RGB", (240, 240)), many, blank))
    outlined = drawn.reshape(80, -1).max(1) > 0
    assert outlined.tolist() == [True] * 50 + [False] * 30


def test_a_picture_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    picture = Image.new("RGB", (8, 8))
    save_picture(picture, tmp_path / "new" / "heat.png")
    with Image.open(tmp_path / "new" / "heat.png") as opened:
        assert opened.size == (8, 8)
    for name in ("heat.txt", "heat", "heat.hdr"):
        with pytest.raises(ValueError, match=name):
            save_picture(picture, tmp_path / "other" / name)
    with pytest.raises(ValueError, match=r"x\.jpg"):
        save_picture(Image.new("P", (8, 8)).convert("RGBA"), tmp_path / "x.jpg")  # JPEG has no transparency
    assert [p.name for p in tmp_path.iterdir()] == ["new"]
