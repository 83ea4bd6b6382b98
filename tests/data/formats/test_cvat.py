"""CVAT's XML: shapes, names, subsets, and what can't be used."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forclip.data.formats.cvat import load_cvat
from forclip.search.export import export
from forclip.search.selection import Item, Selection

META = "<meta><task><labels><label><name>dog</name></label><label><name>cat</name></label></labels></task></meta>"


def write(folder: Path, images: str, meta: str = META) -> Path:
    (folder / "annotations.xml").write_text(f"<annotations><version>1.1</version>{meta}{images}</annotations>")
    return folder / "annotations.xml"


def image(name: str, *shapes: str, more: str = "") -> str:
    return f'<image id="0" name="{name}" width="200" height="100" {more}>{"".join(shapes)}</image>'


SHAPES = {
    '<box label="cat" xtl="10" ytl="20" xbr="30.5" ybr="60"/>': (10, 20, 30.5, 60),
    # Turned by a quarter around its centre (30, 40): 20 x 40 becomes 40 x 20.
    '<box label="cat" xtl="20" ytl="20" xbr="40" ybr="60" rotation="90"/>': (10, 30, 50, 50),
    '<polygon label="cat" points="10,20;30,25;15,60"/>': (10, 20, 30, 60),
    '<ellipse label="cat" cx="50" cy="40" rx="20" ry="10"/>': (30, 30, 70, 50),
    '<ellipse label="cat" cx="50" cy="40" rx="20" ry="10" rotation="90"/>': (40, 20, 60, 60),
    '<mask label="cat" rle="1" left="5" top="6" width="7" height="8"/>': (5, 6, 12, 14),
    '<cuboid label="cat" xtl1="1" ytl1="2" xbl1="1" ybl1="9" xtr1="5" ytr1="2" xbr1="8" ybr1="9"/>': (1, 2, 8, 9),
    '<points label="cat" points="1,2;3,4"/>': None,
    '<tag label="cat"/>': None,
    '<skeleton label="cat"><points label="head" points="1,2"/></skeleton>': None,
}


@pytest.mark.parametrize(("shape", "box"), SHAPES.items(), ids=[s.split()[0][1:] for s in SHAPES])
def test_shapes_become_labels_and_bounding_boxes(shape: str, box: tuple[float, ...] | None, tmp_path: Path) -> None:
    loaded = load_cvat(write(tmp_path, image("a.jpg", shape) + image("b.jpg")), None)
    assert loaded.class_names == ("dog", "cat")
    assert loaded.labels.tolist() == [[False, True], [False, False]]
    assert loaded.verified is None, "an image without a shape shows nothing"
    assert loaded.box_sizes is not None
    assert loaded.box_sizes.tolist() == [[200, 100], [200, 100]]
    assert loaded.boxes.tolist() == ([] if box is None else [pytest.approx(box, abs=1e-4)])
    assert loaded.skipped == ()


@pytest.mark.parametrize(
    ("content", "reason", "labels"),
    [
        (image("a.jpg", '<box label="cat" xtl="x" ytl="0" xbr="1" ybr="1"/>'), "numbers", 1),
        (image("a.jpg", '<box label="cat" xtl="nan" ytl="0" xbr="1" ybr="1"/>'), "finite", 1),
        (image("a.jpg", '<polygon label="cat" points="1;2"/>'), "pairs", 1),
        (image("a.jpg", '<box xtl="0" ytl="0" xbr="1" ybr="1"/>'), "no label", 0),
        (image("a.jpg", '<blob label="cat"/>'), "unknown kind", 0),
        (image("a.jpg") + image(""), "no file name", 0),
        (image("a.jpg") + '<track id="3" label="cat"/>', "track", 0),
    ],
)
def test_what_cannot_be_used_is_listed_and_the_rest_is_read(
    content: str, reason: str, labels: int, tmp_path: Path
) -> None:
    loaded = load_cvat(write(tmp_path, content), None)
    (skipped,) = loaded.skipped
    assert reason in skipped.reason
    assert skipped.used_in_part == bool(labels)
    assert (loaded.image_ids, int(loaded.labels.sum()), len(loaded.boxes)) == (("a.jpg",), labels, 0)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("<annotations>", "annotations.xml"),
        ("<annotation/>", "<annotation>"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "DOCTYPE"),
        ("<annotations><track/></annotations>", "CVAT for images"),
        ("<annotations><version>1.1</version></annotations>", "no image"),
        ("<annotations><image/></annotations>", "none of its 1 images"),
    ],
)
def test_a_file_of_which_nothing_can_be_used_is_refused(content: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "annotations.xml").write_text(content)
    with pytest.raises(ValueError, match=named) as error:
        load_cvat(tmp_path, None)
    assert "annotations.xml" in str(error.value)


def test_pictures_are_found_next_to_the_file_in_images_and_in_subsets(tmp_path: Path) -> None:
    content = image("a.jpg", more='subset="Train"') + image("sub/b.jpg", more='subset="Val"') + image("c.jpg")
    file = write(tmp_path, content)
    assert load_cvat(tmp_path, None).paths[0] == tmp_path / "a.jpg"
    for name in ("Train/a.jpg", "sub/b.jpg", "c.jpg"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).touch()
    loaded = load_cvat(file, None)
    assert loaded.image_ids == ("Train/a.jpg", "c.jpg", "sub/b.jpg")
    assert load_cvat(tmp_path, "train").image_ids == ("Train/a.jpg",)
    assert load_cvat(file, "Val", tmp_path / "images").image_ids == ("sub/b.jpg",)
    with pytest.raises(ValueError, match="Train, Val"):
        load_cvat(file, "test")


@pytest.mark.parametrize("split", [None, 0.5])
def test_an_export_comes_back(split: float | None, tmp_path: Path) -> None:
    items = []
    for k in range(6):
        Image.new("RGB", (40, 20)).save(tmp_path / f"{k}.png")
        box = (0.1 * k, 0.2, 0.1 * k + 0.3, 0.9) if k else None
        items.append(Item(str(k), tmp_path / f"{k}.png", 40, 20, 0.5, box=box))
    export(Selection(tuple(items), "cat"), "cvat", tmp_path / "out", split=split)
    loaded = load_cvat(tmp_path / "out", None)
    assert loaded.labels.all()
    order = np.argsort([path.name for path in loaded.paths if isinstance(path, Path)])
    by_row = {int(row): box for row, box in zip(loaded.box_images, loaded.boxes, strict=True)}
    for k, row in enumerate(order):
        assert loaded.paths[row].exists()
        if k:
            assert by_row[int(row)] == pytest.approx(np.array(items[k].box) * [40, 20, 40, 20], abs=0.02)
    assert len(by_row) == 5
