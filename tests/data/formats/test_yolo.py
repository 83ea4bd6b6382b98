import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from forclip.data.formats.yolo import label_file, load_yolo
from forclip.types import Annotations


def picture(path: Path, width: int = 200, height: int = 100, orientation: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("L", (width, height)).save(path, exif=exif)


def labels(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def described(folder: Path, content: object) -> Path:
    file = folder / "data.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two training pictures of 200 x 100 and one of 40 x 80 for validation, with classes in no alphabetical order."""
    picture(tmp_path / "images" / "train" / "b.png")
    picture(tmp_path / "images" / "train" / "a.png")
    picture(tmp_path / "images" / "val" / "c.png", 40, 80)
    labels(tmp_path / "labels" / "train" / "b.txt", "1 0.5 0.5 0.25 0.5", "", "0 0.1 0.2 0.2 0.4")
    labels(tmp_path / "labels" / "val" / "c.txt", "2 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75")
    return tmp_path


CONTENT = {"path": ".", "train": "images/train", "val": "images/val", "names": {0: "dog", 1: "cat", 2: "ant"}}


def load_line(folder: Path, *lines: str) -> Annotations:
    labels(folder / "labels" / "val" / "c.txt", *lines)
    return load_yolo(described(folder, CONTENT), "val")


def test_boxes(folder: Path) -> None:
    """a.png has no label file: it is there and shows nothing. Worked by hand for 200 x 100 pixels."""
    found = load_yolo(described(folder, CONTENT), "train")
    assert found.image_ids == ("images/train/a.png", "images/train/b.png")
    assert found.paths == tuple(folder / i for i in found.image_ids)
    assert found.class_names == ("dog", "cat", "ant")
    assert found.labels.tolist() == [[False] * 3, [True, True, False]]
    np.testing.assert_allclose(found.boxes, [[75, 25, 125, 75], [0, 0, 40, 40]], atol=1e-4)
    assert found.box_images.tolist() == [1, 1]
    assert found.box_classes.tolist() == [1, 0]
    assert found.verified is None


def test_polygons_become_their_bounds(folder: Path) -> None:
    found = load_yolo(described(folder, CONTENT), "val")
    assert found.boxes.tolist() == [[10, 20, 30, 60]]
    assert found.box_classes.tolist() == [2]


def test_names_in_a_list_or_with_gaps(folder: Path) -> None:
    listed = load_yolo(described(folder, CONTENT | {"names": ["dog", "cat", "ant"]}), "val")
    assert listed.class_names == ("dog", "cat", "ant")
    gaps = load_yolo(described(folder, CONTENT | {"names": {7: "cow", 2: "ant", 0: 9}}), "val")
    assert gaps.class_names == ("9", "ant", "cow")
    assert gaps.labels.tolist() == [[False, True, False]]


def test_several_folders_and_one_twice(folder: Path) -> None:
    found = load_yolo(described(folder, CONTENT | {"train": ["images/val", "images/train", "images"]}), "train")
    assert found.image_ids == ("images/train/a.png", "images/train/b.png", "images/val/c.png")
    assert found.labels.sum(axis=1).tolist() == [0, 2, 1]


def test_a_list_of_images(folder: Path) -> None:
    """./ is relative to the list, other names to the dataset's folder, and absolute ones may lie in it."""
    (folder / "lists").mkdir()
    picture(folder / "lists" / "images" / "d.png")
    labels(folder / "lists" / "labels" / "d.txt", "0 0.5 0.5 1 1")
    lines = ["\ufeffimages/train/b.png", "", f"{folder}/images/val/c.png\r", "./images/d.png", "images/gone.png"]
    (folder / "lists" / "some.txt").write_text("\n".join(lines))
    found = load_yolo(described(folder, CONTENT | {"train": "lists/some.txt"}), "train")
    assert found.image_ids == ("images/gone.png", "images/train/b.png", "images/val/c.png", "lists/images/d.png")
    assert found.labels.sum(axis=1).tolist() == [0, 2, 1, 1]


def test_a_list_of_names_that_are_not_utf8(folder: Path) -> None:
    name = b"images/train/caf\xe9.png"
    (folder / "some.txt").write_bytes(name)
    found = load_yolo(described(folder, CONTENT | {"train": "some.txt"}), "train")
    assert os.fsencode(found.paths[0]).endswith(name)


def test_roboflow_exports(folder: Path) -> None:
    """Roboflow writes ../train/images for a folder next to the YAML file, and no path."""
    picture(folder / "train" / "images" / "e.png")
    labels(folder / "train" / "labels" / "e.txt", "2 0.5 0.5 1 1")
    found = load_yolo(described(folder, {"train": "../train/images", "names": ["dog", "cat", "ant"]}), "train")
    assert found.image_ids == ("train/images/e.png",)
    assert found.boxes.tolist() == [[0, 0, 200, 100]]


def test_the_path_is_relative_to_the_file_or_absolute(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for said in (str(folder), os.path.relpath(folder, elsewhere)):
        assert len(load_yolo(described(elsewhere, CONTENT | {"path": said}), "train")) == 2


def test_the_path_of_a_label_file() -> None:
    assert label_file(Path("/data/images/train/a.b.jpg")) == Path("/data/labels/train/a.b.txt")
    assert label_file(Path("/images/x/images/images.jpg")) == Path("/images/x/labels/images.txt")
    assert label_file(Path("/data/train/a.jpg")) == Path("/data/train/a.txt")
    assert label_file(Path("images/a.jpg")) == Path.cwd() / "labels" / "a.txt"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_changes_no_box(tmp_path: Path, orientation: int) -> None:
    """Boxes are in the frame of the stored pixels."""
    picture(tmp_path / "images" / "a.jpg", orientation=orientation)
    labels(tmp_path / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5")
    found = load_yolo(described(tmp_path, {"train": "images", "names": ["dog"]}), "train")
    assert found.boxes.tolist() == [[50, 25, 150, 75]]


def test_an_unreadable_image_keeps_its_labels_only(folder: Path) -> None:
    (folder / "images" / "train" / "b.png").write_bytes(b"no picture")
    found = load_yolo(described(folder, CONTENT), "train")
    assert found.image_ids == ("images/train/a.png", "images/train/b.png")
    assert found.labels.tolist() == [[False] * 3, [True, True, False]]
    assert found.boxes.shape == (0, 4)


def test_the_header_is_enough(folder: Path) -> None:
    whole = folder / "images" / "val" / "c.png"
    Image.effect_noise((40, 80), 50).save(whole)
    whole.write_bytes(whole.read_bytes()[:200])
    assert len(load_yolo(described(folder, CONTENT), "val").boxes) == 1


def test_rounding_beyond_the_edge_is_forgiven(folder: Path) -> None:
    found = load_line(folder, "0 0.5 0.5 1.0005 1.0 ", "1 -0.0005 0 1 0 1 1.001")
    np.testing.assert_allclose(found.boxes, [[0, 0, 40, 80], [0, 0, 40, 80]])


BAD_LINES = {
    "class out of range": ("3 0.5 0.5 0.1 0.1", "names class 3, which is not among the 3 names"),
    "negative class": ("-1 0.5 0.5 0.1 0.1", "names class -1,"),
    "half a class": ("1.5 0.5 0.5 0.1 0.1", "names class 1.5,"),
    "class NaN": ("nan 0.5 0.5 0.1 0.1", "names class nan,"),
    "class by name": ("dog 0.5 0.5 0.1 0.1", "is 'dog 0.5 0.5 0.1 0.1', not numbers"),
    "words": ("0 0.5 0.5 0.1 wide", "is '0 0.5 0.5 0.1 wide', not numbers"),
    "commas": ("0,0.5,0.5,0.1,0.1", "is '0,0.5,0.5,0.1,0.1', not numbers"),
    "NaN": ("0 0.5 nan 0.1 0.1", "has the value nan, not a fraction"),
    "infinite": ("0 0.5 0.5 1e999 0.1", "has the value 1e999, not a fraction"),
    "pixels": ("0 100 50 20 20", "has the value 100, not a fraction"),
    "above 1": ("0 0.5 0.5 1.0011 1", "has the value 1.0011, not a fraction"),
    "below 0": ("0 0.5 0.5 0.1 -0.0011", "has the value -0.0011, not a fraction"),
    "polygon above 1": ("0 0 0 1 0 1 2", "has the value 2, not a fraction"),
    "class alone": ("0", "has 0 numbers after the class"),
    "three numbers": ("0 0.5 0.5 0.1", "has 3 numbers after the class"),
    "a score behind the box": ("0 0.5 0.5 0.1 0.1 0.9", "has 5 numbers after the class"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_bad_lines_are_refused_by_file_and_line(folder: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"labels/val/c\.txt: line 3 {message}"):
        load_line(folder, "0 0.5 0.5 0.1 0.1", "", line)


def test_a_label_file_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "labels" / "val" / "c.txt").write_bytes(b"0 .5 .5 1 1\n\xff\xd8")
    with pytest.raises(ValueError, match=r"c\.txt: line 2 is not UTF-8"):
        load_yolo(described(folder, CONTENT), "val")
    (folder / "labels" / "val" / "c.txt").unlink()
    (folder / "labels" / "val" / "c.txt").mkdir()
    with pytest.raises(ValueError, match=r"c\.txt: not readable as text"):
        load_yolo(described(folder, CONTENT), "val")


LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 100))
BAD_FILES: dict[str, tuple[object, str]] = {
    "truncated": ("path: .\nnames: [dog, c", "not readable as YAML"),
    "empty": ("", "a YOLO data file holds keys and values, not a NoneType"),
    "a list": ("[1]", "a YOLO data file holds keys and values, not a list"),
    "code": ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
    "tag that does not fit": ("names: !!int ''", "not readable as YAML"),
    "tag that does not fit either": ("names: !!timestamp yesterday", "not readable as YAML"),
    "path a list": (CONTENT | {"path": ["."]}, r"path is \['\.'\], not a folder"),
    "path nowhere": (CONTENT | {"path": "nowhere"}, "path is 'nowhere', but there is no folder"),
    "no names": ({"train": "images/train", "val": "images/val"}, "names is None, not a list of class names"),
    "names empty": (CONTENT | {"names": []}, r"names is \[\], not a list"),
    "names a word": (CONTENT | {"names": "dog"}, "names is 'dog', not a list"),
    "index a word": (CONTENT | {"names": {"zero": "dog"}}, "names has the index 'zero', not a whole number"),
    "index true": (CONTENT | {"names": {True: "dog"}}, "names has the index True, not a whole number"),
    "index negative": (CONTENT | {"names": {-1: "dog"}}, "names has the index -1, not a whole number"),
    "a name that YAML takes for false": ("val: images/val\nnames: [yes, no]", "class 0 is called True"),
    "a name of blanks": (CONTENT | {"names": ["dog", " "]}, "class 1 is called ' ';"),
    "an index twice": (
        "val: images/val\nnames:\n  0: dog\n  1: cat\n  0: ant",
        "not readable as YAML: line 5 has the key '0' a second time",
    ),
    "a name twice": (CONTENT | {"names": ["dog", "cat", "dog"]}, "class 2 is called 'dog', as another is"),
    "billion laughs": (LAUGHS + "names: *a99\n", r"class 0 is called \[\[\["),
    "no such split": ({"names": ["dog"]}, "val is None, not a folder"),
    "split a number": (CONTENT | {"val": [1]}, r"val is \[1\], not a folder"),
    "split nowhere": (CONTENT | {"val": "images/test"}, "val names 'images/test', but there is no such folder or list"),
    "split too long": (CONTENT | {"val": "x" * 300}, "val names 'xxx"),
    "path too long": (CONTENT | {"path": "x" * 300}, "path is 'xxx"),
    "split a picture": (CONTENT | {"val": "images/val/c.png"}, "val names 'images/val/c.png', but there is no such"),
    "path traversal": (CONTENT | {"val": "images/../../val"}, "val has a file name outside the folder .*: 'images/"),
    "absolute split": (CONTENT | {"val": "/etc"}, "val has a file name outside the folder .*: '/etc'"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_are_refused_by_file_and_entry(folder: Path, content: object, message: str) -> None:
    with pytest.raises(ValueError, match=rf"data\.yaml: {message}"):
        load_yolo(described(folder, content), "val")


@pytest.mark.parametrize("line", ["../secret.png", "./../../secret.png", "/etc/secret.png", "C:\\secret.png"])
def test_path_traversal_by_a_list(folder: Path, line: str) -> None:
    (folder / "some.txt").write_text(f"images/train/a.png\n{line}\n")
    with pytest.raises(ValueError, match=r"some\.txt: line 2 has a file name outside the folder"):
        load_yolo(described(folder, CONTENT | {"val": "some.txt"}), "val")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml: no such file"):
        load_yolo(tmp_path / "nowhere.yaml", "train")
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="images: no images"):
        load_yolo(described(tmp_path, {"train": "images", "names": ["dog"]}), "train")
