"""Boxes of label files in the frame of the upright images, compared with the turned pixels themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forclip.data.formats.coco import load_coco
from forclip.data.formats.voc import load_voc
from forclip.data.images.box_frames import sizes_of, turn_boxes, upright_boxes
from forclip.data.images.decode import read_image

BOX = (4, 6, 20, 14)  # in 40 x 30 stored pixels
ORIENTATION = 0x0112


def stored(path: Path, orientation: int, size: tuple[int, int] = (40, 30)) -> Path:
    """Save a black picture with a white box, and an orientation."""
    image = Image.new("L", size)
    image.paste(255, BOX)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(path, exif=exif)
    return path


def white_box(path: Path) -> list[float]:
    """Where the box is when the picture is looked at."""
    rows, columns = np.nonzero(np.asarray(read_image(path).convert("L")) > 128)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def coco(folder: Path, images: dict[str, tuple[object, object]], box: tuple[float, float, float, float] = BOX) -> Path:
    """Write a COCO file with this box, xyxy, in every image. images: width and height by file name."""
    x, y, right, bottom = box
    content = {
        "images": [{"id": k, "file_name": n, "width": w, "height": h} for k, (n, (w, h)) in enumerate(images.items())],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 1, "bbox": [x, y, right - x, bottom - y]}
            for k in range(len(images))
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_pixels(tmp_path: Path, orientation: int) -> None:
    path = stored(tmp_path / "a.png", orientation)
    assert turn_boxes(np.array([BOX], np.float32), orientation, (40, 30)).tolist() == [white_box(path)]
    file = coco(tmp_path, {"a.png": (40, 30)})
    assert upright_boxes(load_coco(file, tmp_path)).boxes.tolist() == [white_box(path)]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_file_with_the_size_of_the_upright_picture(tmp_path: Path, orientation: int) -> None:
    """Tools that show pictures in a browser label what they show."""
    path = stored(tmp_path / "a.jpg", orientation)
    file = coco(tmp_path, {path.name: (30, 40)})
    assert upright_boxes(load_coco(file, tmp_path)).boxes.tolist() == [list(BOX)]


@pytest.mark.parametrize(("width", "height"), [(None, None), ("wide", []), (0, 0), (70, 60), (-40, 30)])
def test_sizes_that_say_nothing_mean_stored_pixels(tmp_path: Path, width: object, height: object) -> None:
    path = stored(tmp_path / "a.png", 6)
    file = coco(tmp_path, {path.name: (width, height)})
    assert upright_boxes(load_coco(file, tmp_path)).boxes.tolist() == [white_box(path)]


def test_pictures_whose_size_does_not_tell_follow_the_others(tmp_path: Path) -> None:
    """A half turn keeps the size, and a square has one for both."""
    stored(tmp_path / "quarter.png", 6)
    half, square = stored(tmp_path / "half.png", 3), stored(tmp_path / "square.png", 8, (40, 40))
    same = {"half.png": (40, 30), "square.png": (40, 40)}
    upright = upright_boxes(load_coco(coco(tmp_path, {"quarter.png": (30, 40), **same}), tmp_path))
    assert upright.boxes.tolist() == [list(BOX)] * 3
    plain = upright_boxes(load_coco(coco(tmp_path, {"quarter.png": (40, 30), **same}), tmp_path))
    assert plain.boxes.tolist()[1:] == [white_box(half), white_box(square)]


def test_voc_gives_a_size(tmp_path: Path) -> None:
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / name).mkdir()
    path = stored(tmp_path / "JPEGImages" / "a.jpg", 6)
    x, y, right, bottom = BOX
    corners = f"<xmin>{x + 1}</xmin><ymin>{y + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax>"
    for size, expected in (((40, 30), white_box(path)), ((30, 40), list(BOX))):
        xml = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
        xml += f"<object><name>cat</name><bndbox>{corners}</bndbox></object>"
        (tmp_path / "Annotations" / "a.xml").write_text(f"<annotation>{xml}</annotation>")
        found = upright_boxes(load_voc(tmp_path, None)).boxes[0]
        np.testing.assert_allclose(found, expected, atol=1)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("size", [(160, 120), (20, 15), (121, 90)])
def test_boxes_of_pictures_that_were_resized_since_are_resized(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    """121 x 90, because tools round."""
    path = stored(tmp_path / "a.png", orientation)
    scale = np.array([*size, *size]) / (40, 30, 40, 30)
    file = coco(tmp_path, {path.name: size}, tuple((np.array(BOX) * scale).tolist()))
    np.testing.assert_allclose(upright_boxes(load_coco(file, tmp_path)).boxes, [white_box(path)], atol=1e-4)
    if orientation == 6:
        file = coco(tmp_path, {path.name: size[::-1]}, tuple((np.array(BOX) * scale[[1, 0, 1, 0]]).tolist()))
        np.testing.assert_allclose(upright_boxes(load_coco(file, tmp_path)).boxes, [BOX], atol=1e-4)


def test_pictures_that_cannot_be_read_keep_their_boxes(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    file = coco(tmp_path, {"broken.jpg": (40, 30), "missing.jpg": (40, 30)})
    assert upright_boxes(load_coco(file, tmp_path)).boxes.tolist() == [list(BOX)] * 2


def test_sizes_may_be_numbers_or_texts() -> None:
    given = [(40, 30), ("40", " 30 "), (40.0, 30.2), (40, None), (float("nan"), 30), (True, "x"), (10**400, 1)]
    assert sizes_of(given).tolist() == [[40, 30], [40, 30], [40, 30], [0, 0], [0, 0], [0, 0], [0, 0]]
    assert sizes_of([]).shape == (0, 2)
