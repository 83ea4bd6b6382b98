import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from forclip.data.formats.yolo import label_file, load_yolo
from forclip.data.images.box_frames import upright_boxes
from forclip.location import local_path
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
    assert os.fsencode(local_path(found.paths[0])).endswith(name)


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "a.png").rename(tmp_path / "images" / f"{name}.png")
    labels(tmp_path / "labels" / f"{name}.txt", "0 0.5 0.5 1 1", "9 0.5 0.5 1 1")
    found = load_yolo(described(tmp_path, {"train": "images", "names": ["dog"]}), "train")
    assert (found.image_ids, found.labels.tolist()) == ((f"images/{name}.png",), [[True]])
    assert [s.entry for s in found.skipped] == [f"{tmp_path}/labels/{name}.txt: line 2"]


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
def test_boxes_refer_to_the_upright_image(tmp_path: Path, orientation: int) -> None:
    """As in Ultralytics' own loader."""
    picture(tmp_path / "images" / "a.jpg", orientation=orientation)
    labels(tmp_path / "labels" / "a.txt", "0 0.5 0.25 0.5 0.5")
    found = upright_boxes(load_yolo(described(tmp_path, {"train": "images", "names": ["dog"]}), "train"))
    assert found.boxes.tolist() == ([[50, 0, 150, 50]] if orientation < 5 else [[25, 0, 75, 100]])


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


def test_rounding_beyond_the_edge_is_clipped(folder: Path) -> None:
    found = load_line(folder, "0 0.5 0.5 1.0021 1.0 ", "1 -0.0005 0 1 0 1 1.001", "2 0.996 0.5 0.01 1")
    expected = np.array([[0, 0, 40, 80], [0, 0, 40, 80], [39.64, 0, 40, 80]])
    np.testing.assert_allclose(found.boxes, expected, atol=1e-5)
    assert found.skipped == ()


def test_a_box_that_leaves_the_image_is_kept(folder: Path) -> None:
    np.testing.assert_allclose(load_line(folder, "0 1 0.5 0.5 1").boxes, [[30, 0, 50, 80]])


GOOD_LINES = {
    "tabs": "1\t0.5\t0.5\t0.25\t0.5",
    "commas": "1,0.5,0.5,0.25,0.5",
    "commas and blanks": "1, 0.5, 0.5, 0.25, 0.5",
    "semicolons": "1;0.5;0.5;0.25;0.5;",
    "decimal commas": "1 0,5 0,5 0,25 0,5",
    "class as a fraction": "1.0 0.5 0.5 0.25 0.5",
    "exponents": "1e0 5e-1 .5 2.5e-1 +0.5",
    "confidence": "1 0.5 0.5 0.25 0.5 0.987",
    "polygon": "1 0.375 0.25 0.625 0.25 0.625 0.75 0.375 0.75 0.5 0.5",
    "polygon with a confidence": "1 0.375 0.25 0.625 0.25 0.625 0.75 0.375 0.75 0.9",
    "rotated box": "1 0.5 0.25 0.625 0.5 0.5 0.75 0.375 0.5",
}


@pytest.mark.parametrize("line", GOOD_LINES.values(), ids=GOOD_LINES.keys())
def test_lines_as_other_tools_write_them(folder: Path, line: str) -> None:
    found = load_line(folder, line)
    np.testing.assert_allclose(found.boxes, [[15, 20, 25, 60]], atol=1e-5)
    assert found.box_classes.tolist() == [1]
    assert found.skipped == ()


@pytest.mark.parametrize("keypoints", ["0.1 0.2 2 0.3 0.4 1", "0.1 0.2 2 0 0 0 0.9"], ids=["plain", "confidence"])
def test_keypoints_are_no_polygon(folder: Path, keypoints: str) -> None:
    labels(folder / "labels" / "val" / "c.txt", f"1 0.5 0.5 0.25 0.5 {keypoints}")
    found = load_yolo(described(folder, CONTENT | {"kpt_shape": [2, 3]}), "val")
    assert found.boxes.tolist() == [[15, 20, 25, 60]]


BAD_LINES = {
    "class out of range": ("3 0.5 0.5 0.1 0.1", "3"),
    "negative class": ("-1 0.5 0.5 0.1 0.1", "-1"),
    "half a class": ("1.5 0.5 0.5 0.1 0.1", "1.5"),
    "class NaN": ("nan 0.5 0.5 0.1 0.1", "nan"),
    "class by name": ("dog 0.5 0.5 0.1 0.1", "dog 0.5 0.5 0.1 0.1"),
    "words": ("0 0.5 0.5 0.1 wide", "0 0.5 0.5 0.1 wide"),
    "class alone": ("0", "0"),
    "three numbers": ("0 0.5 0.5 0.1", "0 0.5 0.5 0.1"),
    "XML": ("<annotation>", "<annotation>"),
}


@pytest.mark.parametrize(("line", "value"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_leaves_out_only_itself(folder: Path, line: str, value: str) -> None:
    found = load_line(folder, "0 0.5 0.5 0.1 0.1", "", line, "1 0.5 0.5 1 1")
    assert found.labels.tolist() == [[True, True, False]]
    np.testing.assert_allclose(found.boxes, [[18, 36, 22, 44], [0, 0, 40, 80]], atol=1e-5)
    assert [(s.entry, s.value) for s in found.skipped] == [(f"{folder}/labels/val/c.txt: line 3", value)]
    assert found.verified is None


BAD_BOXES = {
    "NaN": "0.5 nan 0.1 0.1",
    "infinite": "0.5 0.5 1e999 0.1",
    "pixels": "100 50 20 20",
    "far above 1": "0.5 1.0371 0.1 0.1",
    "far below 0": "0.5 0.5 0.1 -0.011",
    "polygon above 1": "0 0 1 0 1 2",
}


@pytest.mark.parametrize("numbers", BAD_BOXES.values(), ids=BAD_BOXES.keys())
def test_a_bad_box_leaves_its_label(folder: Path, numbers: str) -> None:
    found = load_line(folder, f"0 {numbers}", "1 0.5 0.5 1 1")
    assert found.labels.tolist() == [[True, True, False]]
    np.testing.assert_allclose(found.boxes, [[0, 0, 40, 80]], atol=1e-5)
    value = str([float(number) for number in numbers.split()])
    entry = f"{folder}/labels/val/c.txt: line 1"
    assert [(s.entry, s.value, s.used_in_part) for s in found.skipped] == [(entry, value, True)]


def test_the_reason_is_the_same_for_all_lines_of_a_kind(folder: Path) -> None:
    found = load_line(folder, "7 .5 .5 1 1", "8 .5 .5 1 1", "0 9 .5 1 1", "0 .5 -9 1 1")
    first, second, third, fourth = (skipped.reason for skipped in found.skipped)
    assert first == second != third == fourth


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(folder: Path, encoding: str, line_end: str) -> None:
    text = line_end.join(["0 0.5 0.5 0.25 0.5", " ", "9 0.5 0.5 0.25 0.5", "1 0.5 0.5 0.25 0.5"])
    (folder / "labels" / "val" / "c.txt").write_bytes(text.encode(encoding))
    found = load_yolo(described(folder, CONTENT), "val")
    assert found.box_classes.tolist() == [0, 1]
    assert [s.entry for s in found.skipped] == [f"{folder}/labels/val/c.txt: line 3"]


def test_labels_in_a_file_that_is_no_text_are_unknown(folder: Path) -> None:
    """The image stays, but it is not taken for one that shows nothing."""
    file = folder / "labels" / "train" / "b.txt"
    file.write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF")
    found = load_yolo(described(folder, CONTENT), "train")
    assert found.verified_mask.tolist() == [[True] * 3, [False] * 3]
    assert [s.entry for s in found.skipped] == [str(file)]
    file.unlink()
    file.mkdir()
    found = load_yolo(described(folder, CONTENT), "train")
    assert found.verified_mask.tolist() == [[True] * 3, [False] * 3]


def test_label_files_without_an_image_are_listed(folder: Path) -> None:
    """Of the split's own folder, without files that are no labels, and those of macOS."""
    for name in ("gone.txt", "classes.txt", "README.roboflow.txt", "._b.txt", "deep/gone.txt"):
        labels(folder / "labels" / "train" / name, "0 0.5 0.5 1 1")
    (folder / "images" / "train" / "._b.png").write_bytes(b"Mac OS X")
    found = load_yolo(described(folder, CONTENT), "train")
    assert found.image_ids == ("images/train/a.png", "images/train/b.png")
    expected = [str(folder / "labels" / "train" / name) for name in ("deep/gone.txt", "gone.txt")]
    assert [s.entry for s in found.skipped] == expected


def test_text_files_beside_images_are_no_labels(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    for name, line in (
        ("a", "0 .5 .5 1 1"),
        ("b", "0 .5 .5 1 1"),
        ("my_list", "a.png"),
        ("log", ""),
        ("notes_2", "Hi"),
    ):
        labels(tmp_path / f"{name}.txt", line)
    found = load_yolo(described(tmp_path, {"train": ".", "names": ["dog"]}), "train")
    assert [s.entry for s in found.skipped] == [str(tmp_path / "b.txt")]


def test_a_set_without_any_label_file_says_so(folder: Path) -> None:
    (folder / "labels").rename(folder / "label files")
    found = load_yolo(described(folder, CONTENT), "train")
    assert len(found) == 2
    assert "labels/train/a.txt" in found.skipped[0].value


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("Images/train/A.PNG", "Labels/train/A.txt"),
        ("images/train/a.png", "labels/train/A.TXT"),
        ("images/train/a.png", "images/train/a.txt"),
        ("train/a.png", "train/a.txt"),
        ("JPEGImages/a.png", "labels/a.txt"),
        ("images/caf\u00e9.png", "labels/cafe\u0301.txt"),
    ],
)
def test_label_files_are_found(tmp_path: Path, image: str, label: str) -> None:
    picture(tmp_path / image)
    labels(tmp_path / label, "0 0.5 0.5 1 1")
    found = load_yolo(described(tmp_path, {"train": ".", "names": ["dog"]}), "train")
    assert (found.labels.tolist(), found.skipped) == ([[True]], ())


NAMES = {
    "numbers": ({"names": [7, "cat", "ant"]}, ("7", "cat", "ant")),
    "text keys": ({"names": {"0": "dog", "1": "cat", "2": "ant"}}, ("dog", "cat", "ant")),
    "fractions as keys": ({"names": {0.0: "dog", 1.0: "cat"}}, ("dog", "cat")),
    "YAML's own words": ("path: .\ntrain: images/train\nnames: [no, on, null]", ("no", "on", "null")),
    "more than nc": ({"names": ["dog", "cat", "ant"], "nc": 2}, ("dog", "cat", "ant")),
    "a name twice": ({"names": ["dog", "cat", "dog"]}, ("dog", "cat")),
    "a name that is missing": ({"names": ["dog", "cat", ""]}, ("dog", "cat")),
    "a negative number": ({"names": {-1: "none", 0: "dog", 1: "cat"}}, ("dog", "cat")),
    "a file": ({"names": "my.names"}, ("dog", "cat")),
    "a file of another machine": ({"names": "C:\\yolo\\my.names"}, ("dog", "cat")),
    "nothing but a number of classes": ({"nc": 2}, ("cow", "pig")),
}


@pytest.mark.parametrize(("change", "names"), NAMES.values(), ids=NAMES.keys())
def test_class_names(folder: Path, change: dict[str, object] | str, names: tuple[str, ...]) -> None:
    (folder / "my.names").write_text("dog\ncat\n")
    (folder / "classes.txt").write_text("\ufeffcow\r\npig\r\n")
    content = {key: value for key, value in CONTENT.items() if key != "names"}
    found = load_yolo(described(folder, change if isinstance(change, str) else content | change), "train")
    assert found.class_names == names
    assert found.labels[1, :2].tolist() == [True, True]


def test_odd_class_names_are_listed(folder: Path) -> None:
    names = "names: {0: dog, 1: dog, x: cow, 2: '', 3: [pig]}"
    found = load_yolo(described(folder, f"train: images/train\n{names}"), "train")
    assert found.class_names == ("dog",)
    assert [s.entry.rpartition(": ")[2] for s in found.skipped] == ["class x", "class 2", "class 3", "class 1"]
    assert [s.used_in_part for s in found.skipped] == [False, False, False, True]
    assert len(found.boxes) == 2


PLACES: dict[str, dict[str, object]] = {
    "Colab": {"path": "/content/datasets/animals"},
    "Ultralytics": {"path": "../datasets/coco8"},
    "Windows": {"path": "C:\\data", "train": "C:\\data\\images\\train"},
    "Windows, relative": {"train": ".\\images\\train"},
    "absolute": {"path": None, "train": "/kaggle/input/animals/images/train"},
    "a name in the path": {"path": "/content/set"},
    "a slash at the end": {"train": "images/train/"},
    "another word for the split": {"train": "images/training"},
}


@pytest.mark.parametrize("change", PLACES.values(), ids=PLACES.keys())
def test_places_of_another_machine(folder: Path, change: dict[str, object]) -> None:
    found = load_yolo(described(folder, CONTENT | change), "train")
    assert found.paths == (folder / "images" / "train" / "a.png", folder / "images" / "train" / "b.png")
    assert len(found.boxes) == 2


def test_a_path_that_ends_in_a_folder_beside_the_file(folder: Path) -> None:
    (folder / "images").rename(folder / "moved")
    picture(folder / "set" / "images" / "train" / "x.png")
    found = load_yolo(described(folder, CONTENT | {"path": "/content/set"}), "train")
    assert found.image_ids == ("images/train/x.png",)


def test_images_in_an_absolute_folder_elsewhere(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    found = load_yolo(
        described(elsewhere, {"train": f"{folder}/images/train", "names": ["dog", "cat", "ant"]}), "train"
    )
    assert found.image_ids == (f"{folder}/images/train/a.png", f"{folder}/images/train/b.png")
    assert len(found.boxes) == 2


@pytest.mark.parametrize(("key", "asked"), [("valid", "val"), ("val", "valid"), ("validation", "val")])
def test_words_for_the_validation_split(folder: Path, key: str, asked: str) -> None:
    content = {k: v for k, v in CONTENT.items() if k != "val"}
    assert load_yolo(described(folder, content | {key: "images/val"}), asked).image_ids == ("images/val/c.png",)


def test_cvat_exports(tmp_path: Path) -> None:
    """A darknet data file whose names start with a folder that the export does not have."""
    for k in range(2):
        picture(tmp_path / "obj_train_data" / "cam" / f"{k}.PNG")
        labels(tmp_path / "obj_train_data" / "cam" / f"{k}.txt", f"{k} 0.5 0.5 1 1")
    (tmp_path / "obj.names").write_text("dog\ncat\n")
    (tmp_path / "train.txt").write_text("".join(f"data/obj_train_data/cam/{k}.PNG\n" for k in range(2)))
    lines = ["classes = 2", "train = data/train.txt", "names = data/obj.names", "backup = backup/"]
    (tmp_path / "obj.data").write_text("\n".join(lines))
    for source in (tmp_path / "obj.data", tmp_path):
        found = load_yolo(source, None)
        assert found.image_ids == ("obj_train_data/cam/0.PNG", "obj_train_data/cam/1.PNG")
        assert found.labels.tolist() == [[True, False], [False, True]]
        assert found.class_names == ("dog", "cat")
        assert found.skipped == ()


@pytest.fixture
def label_studio(tmp_path: Path) -> Path:
    folder = tmp_path / "project-1"
    picture(folder / "images" / "ab12cd34-a.jpg")
    labels(folder / "labels" / "ab12cd34-a.txt", "1 0.5 0.5 1 1")
    (folder / "classes.txt").write_text("dog\ncat\n")
    (folder / "notes.json").write_text('{"categories": []}')
    return folder


def test_label_studio_exports(label_studio: Path) -> None:
    found = load_yolo(label_studio, None)
    assert found.image_ids == ("images/ab12cd34-a.jpg",)
    assert found.labels.tolist() == [[False, True]]
    assert found.skipped == ()


def test_label_studio_exports_without_images(label_studio: Path, tmp_path: Path) -> None:
    """The images are elsewhere, by their original names, and the labels have a prefix."""
    (label_studio / "images" / "ab12cd34-a.jpg").unlink()
    (label_studio / "images").rmdir()
    labels(label_studio / "labels" / "00000000-gone.txt", "1 0.5 0.5 1 1")
    picture(tmp_path / "photos" / "a.jpg")
    found = load_yolo(label_studio, None, tmp_path / "photos")
    assert found.image_ids == ("a.jpg",)
    assert found.labels.tolist() == [[False, True]]
    assert [s.entry for s in found.skipped] == [str(label_studio / "labels" / "00000000-gone.txt")]
    (label_studio / "classes.txt").unlink()
    (label_studio / "data.yaml").write_text("names: [dog, cat]\ntrain: images\n")
    assert load_yolo(label_studio, None, tmp_path / "photos").labels.tolist() == [[False, True]]


def test_a_folder_with_a_data_file_or_with_splits(folder: Path) -> None:
    described(folder, CONTENT)
    assert load_yolo(folder, None).image_ids == load_yolo(folder / "data.yaml", "train").image_ids
    (folder / "data.yaml").unlink()
    (folder / "labels" / "classes.txt").write_text("dog\ncat\nant")
    assert len(load_yolo(folder, None)) == 3
    assert load_yolo(folder, "valid").image_ids == ("images/val/c.png",)
    with pytest.raises(ValueError, match="'test'"):
        load_yolo(folder, "test")


def test_a_folder_with_several_data_files(folder: Path) -> None:
    described(folder, CONTENT).rename(folder / "a.yaml")
    described(folder, CONTENT | {"train": "images/val"}).rename(folder / "b.yaml")
    with pytest.raises(ValueError, match=r"several data files; give one of them: a\.yaml, b\.yaml"):
        load_yolo(folder, None)
    described(folder, CONTENT)
    assert len(load_yolo(folder, None)) == 2


def test_a_data_file_in_a_folder_of_its_own(folder: Path) -> None:
    (folder / "cfg").mkdir()
    (folder / "train.txt").write_text("images/train/a.png\nimages/train/b.png\n")
    (folder / "my.names").write_text("dog\ncat\nant\n")
    (folder / "cfg" / "my.data").write_text("classes = 3\ntrain = train.txt\nnames = my.names\n")
    found = load_yolo(folder / "cfg" / "my.data", None)
    assert (found.image_ids, len(found.boxes)) == (("images/train/a.png", "images/train/b.png"), 2)


def test_a_folder_without_class_names_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no list of class names \(classes\.txt"):
        load_yolo(folder, None)


LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 100))
BAD_FILES: dict[str, tuple[object, str]] = {
    "truncated": ("path: .\nnames: [dog, c", "not readable as YAML"),
    "empty": ("", "a YOLO data file holds keys and values, not None"),
    "a list": ("[1]", r"a YOLO data file holds keys and values, not \['1'\]"),
    "code": ("!!python/object/apply:os.system ['true']", "a YOLO data file holds keys and values"),
    "path a list": (CONTENT | {"path": ["."]}, r"path is \['\.'\], not a folder"),
    "no names": ({"train": "images/train", "val": "images/val"}, "names is None, not a list of class names"),
    "names empty": (CONTENT | {"names": []}, r"names is \[\], not a list"),
    "names a word": (CONTENT | {"names": "dog"}, "names is 'dog', which is neither a list nor a file"),
    "no name of use": (CONTENT | {"names": {"zero": "dog", "-1": "cat"}}, "names no class"),
    "an index twice": (
        "val: images/val\nnames:\n  0: dog\n  1: cat\n  0: ant",
        "not readable as YAML: line 5 has the key '0' a second time",
    ),
    "billion laughs": (LAUGHS + "names: *a99\n", "names no class"),
    "keypoints": (CONTENT | {"kpt_shape": "many"}, "kpt_shape is 'many'"),
    "no such split": ({"names": ["dog"], "train": "images/train"}, "has no images for 'val', only for train"),
    "split a number": (CONTENT | {"val": [[1]]}, r"val is \[\['1'\]\], not a folder"),
    "split nowhere": (CONTENT | {"val": "images/test"}, "val names 'images/test', but there is no such folder or list"),
    "path and split nowhere": (
        CONTENT | {"path": "gone", "val": "no"},
        "val names 'no', but there is no such folder or list in the path 'gone'",
    ),
    "split too long": (CONTENT | {"val": "x" * 300}, "val names 'xxx"),
    "split a picture": (CONTENT | {"val": "images/val/c.png"}, "val names 'images/val/c.png', but there is no such"),
    "split without images": (CONTENT | {"val": "labels"}, "val has no images below .*labels"),
    "list of images elsewhere": (
        CONTENT | {"val": "far.txt"},
        "val has no images below .*far.txt; .*line 1: .*/far/a.png",
    ),
    "list without images": (CONTENT | {"val": "empty.txt"}, "val has no images below .*empty.txt"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_are_refused_by_file_and_entry(folder: Path, content: object, message: str) -> None:
    (folder / "empty.txt").touch()
    (folder / "far.txt").write_text("/far/a.png")
    with pytest.raises(ValueError, match=rf"data\.yaml: {message}"):
        load_yolo(described(folder, content), "val")


@pytest.mark.parametrize("line", ["../secret.png", "./../../secret.png", "/etc/secret.png", "C:\\secret.png"])
def test_path_traversal_by_a_list(folder: Path, line: str) -> None:
    (folder / "some.txt").write_text(f"images/train/b.png\n{line}\n")
    found = load_yolo(described(folder, CONTENT | {"val": "some.txt"}), "val")
    assert found.image_ids == ("images/train/b.png",)
    assert [(s.entry, s.value) for s in found.skipped] == [(f"{folder}/some.txt: line 2", line)]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.yaml: no such file"):
        load_yolo(tmp_path / "nowhere.yaml", "train")
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"train has no images below .*images"):
        load_yolo(described(tmp_path, {"train": "images", "names": ["dog"]}), "train")


def test_all_splits(folder: Path) -> None:
    """Of the test set, which Roboflow names without exporting it, only the name is left."""
    found = load_yolo(described(folder, CONTENT | {"test": "../test/images"}), "all")
    assert found.image_ids == ("images/train/a.png", "images/train/b.png", "images/val/c.png")
    assert found.labels.tolist() == [[False] * 3, [True, True, False], [False, False, True]]
    assert [(s.entry, s.value) for s in found.skipped] == [(f"{folder / 'data.yaml'}: test", "'../test/images'")]
    with pytest.raises(ValueError, match="gone"):
        load_yolo(described(folder, CONTENT | {"train": "gone", "val": "gone"}), "all")
