from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCDetection  # type: ignore[import-untyped]  # it ships no types

from forclip.data.formats.voc import load_voc
from forclip.types import Annotations

PERSON = """<object>
  <part><name>head</name><bndbox><xmin>169</xmin><ymin>104</ymin><xmax>209</xmax><ymax>146</ymax></bndbox></part>
  <name>person</name><pose>Left</pose><truncated>1</truncated><difficult>1</difficult>
  <bndbox><xmin>174</xmin><ymin>101</ymin><xmax>349</xmax><ymax>351</ymax></bndbox>
</object>"""
HORSE = """<object><name>horse</name><difficult>0</difficult>
  <bndbox><ymax>10</ymax><xmax>7.5</xmax><ymin>2</ymin><xmin>1</xmin></bndbox></object>"""


def xml(*objects: str, filename: str = "") -> str:
    return f"<annotation><folder>VOC2012</folder><filename>{filename}</filename>{''.join(objects)}</annotation>"


def write(folder: Path, **files: str) -> None:
    (folder / "Annotations").mkdir(parents=True, exist_ok=True)
    for stem, content in files.items():
        (folder / "Annotations" / f"{stem}.xml").write_text(content)


def write_set(folder: Path, name: str, *lines: str) -> None:
    (folder / "ImageSets" / "Main").mkdir(parents=True, exist_ok=True)
    (folder / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(lines))


def load(folder: Path, content: str) -> Annotations:
    write(folder, one=content)
    return load_voc(folder, None)


def test_a_small_folder(tmp_path: Path) -> None:
    """Boxes counted from 1 become boxes from 0; a difficult object counts; a person's parts are no objects."""
    write(tmp_path, b=xml(PERSON, HORSE), a=xml(HORSE), c=xml())
    found = load_voc(tmp_path, None)
    assert found.image_ids == ("a", "b", "c")
    assert found.paths == tuple(tmp_path / "JPEGImages" / f"{stem}.jpg" for stem in "abc")
    assert found.class_names == ("horse", "person")
    assert found.labels.tolist() == [[True, False], [True, True], [False, False]]
    assert found.boxes.tolist() == [[0, 1, 7.5, 10], [173, 100, 349, 351], [0, 1, 7.5, 10]]
    assert found.box_images.tolist() == [0, 1, 1]
    assert found.box_classes.tolist() == [0, 1, 0]
    assert found.verified is None


def test_an_image_set(tmp_path: Path) -> None:
    write(tmp_path, a=xml(HORSE), b=xml(PERSON), c=xml())
    write_set(tmp_path, "val", "c", "", "b ", "c")
    found = load_voc(tmp_path, "val")
    assert found.image_ids == ("b", "c")
    assert found.class_names == ("person",)


def test_counting_from_zero_leaves_no_negative_box(tmp_path: Path) -> None:
    found = load(tmp_path, xml(HORSE.replace("<xmin>1<", "<xmin>0<")))
    assert found.boxes.tolist() == [[0, 1, 7.5, 10]]


def test_a_box_that_leaves_the_image_is_kept(tmp_path: Path) -> None:
    found = load(tmp_path, xml(HORSE.replace("<xmin>1<", "<xmin>-5<").replace("<ymin>2<", "<ymin>-0.5<")))
    assert found.boxes.tolist() == [[-5, -0.5, 7.5, 10]]


def test_pictures_that_are_no_jpegs(tmp_path: Path) -> None:
    """The XML file's name comes first, as in VOC's kit; `filename` counts only if there is no such JPEG."""
    write(tmp_path, a=xml(filename="a.png"), b=xml(filename="renamed.png"), c=xml(filename="c"))
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "b.jpg").touch()
    assert [path.name for path in load_voc(tmp_path, None).paths] == ["a.png", "b.jpg", "c.jpg"]


def test_generated_files_as_torchvision_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    rng = np.random.default_rng(0)
    files = {}
    for k in range(12):
        objects = []
        for _ in range(rng.integers(1, 5)):
            x, y, width, height = rng.integers(1, 200, 4)
            sides = {"xmin": x, "ymin": y, "xmax": x + width, "ymax": y + height}
            box = "".join(f"<{side}>{sides[side]}</{side}>" for side in rng.permutation(list(sides)))
            name = rng.choice(["cat", "dog", "potted plant"])
            objects.append(f"<object><name>{name}</name><bndbox>{box}</bndbox></object>")
        files[f"2008_{k:06}"] = xml(*objects)
    write(folder, **files)
    (folder / "JPEGImages").mkdir()
    for stem in files:
        Image.new("RGB", (4, 4)).save(folder / "JPEGImages" / f"{stem}.jpg")
    write_set(folder, "trainval", *sorted(files))
    found = load_voc(folder, "trainval")
    peer = VOCDetection(str(tmp_path), year="2012", image_set="trainval")
    assert [str(path) for path in found.paths] == peer.images
    for row in range(len(peer)):
        expected = peer[row][1]["annotation"]["object"]
        mine = np.flatnonzero(found.box_images == row)
        assert [found.class_names[found.box_classes[k]] for k in mine] == [o["name"] for o in expected]
        boxes = [[int(o["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")] for o in expected]
        assert (found.boxes[mine] + [1, 1, 0, 0]).tolist() == boxes
        assert {found.class_names[k] for k in np.flatnonzero(found.labels[row])} == {o["name"] for o in expected}


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>' + xml(HORSE.replace("horse", "&b;"))
MALFORMED = {
    "truncated": (xml(HORSE)[:-20], "not readable as XML"),
    "empty": ("", "not readable as XML"),
    "no XML": ("xmin, ymin", "not readable as XML"),
    "another root": ("<html></html>", "holds <html>, not a VOC <annotation>"),
    "billion laughs": (LAUGHS, "not readable as XML: it has a DOCTYPE"),
    "file entity": (
        '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + xml(HORSE.replace("horse", "&a;")),
        "not readable as XML: it has a DOCTYPE",
    ),
    "DOCTYPE far down": (f"<!--{'x' * 100_000}-->{LAUGHS}", "not readable as XML: it has a DOCTYPE"),
    "undeclared entity": (xml(HORSE.replace("horse", "&a;")), "not readable as XML"),
    "object without name": (xml(HORSE, HORSE.replace("horse", " ")), "object 2 has no name"),
    "object without box": (xml("<object><name>cat</name></object>"), r"object 1 \(cat\) has no bndbox"),
    "side missing": (xml(HORSE.replace("<xmin>1</xmin>", "")), r"object 1 \(horse\) has the box \[None, '2',"),
    "words": (xml(HORSE.replace("7.5", "wide")), r"object 1 \(horse\) has the box .*'wide'.*, not four numbers"),
    "NaN": (xml(HORSE.replace("7.5", "nan")), r"object 1 \(horse\) has the box .*nan"),
    "infinite": (xml(HORSE.replace("7.5", "1e999")), r"object 1 \(horse\) has the box .*inf"),
    "inside out": (xml(HORSE.replace("7.5", "0")), r"object 1 \(horse\) has the box \[1.0, 2.0, 0.0, 10.0\]"),
    "path traversal": (xml(filename="../../secret.jpg"), "<filename> has a file name outside the folder .*secret.jpg"),
    "absolute path": (xml(filename="/etc/secret.jpg"), "<filename> has a file name outside the folder .*secret.jpg"),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_files_are_refused_by_file_and_entry(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"one\.xml: .*{message}"):
        load(tmp_path, content)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_no_encoding_hides_a_doctype(tmp_path: Path, encoding: str) -> None:
    write(tmp_path, one="")
    (tmp_path / "Annotations" / "one.xml").write_bytes(LAUGHS.encode(encoding))
    with pytest.raises(ValueError, match=r"one\.xml: not readable as XML"):
        load_voc(tmp_path, None)


def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path: Path) -> None:
    content = xml(HORSE)
    for end in range(len(content)):
        with pytest.raises(ValueError, match=r"one\.xml: not readable as XML"):
            load(tmp_path, content[:end])


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Annotations: no XML files found"):
        load_voc(tmp_path, None)
    write(tmp_path, a=xml())
    with pytest.raises(ValueError, match=r"val\.txt: no such image set"):
        load_voc(tmp_path, "val")
    write_set(tmp_path, "val", "a", "b")
    with pytest.raises(ValueError, match=r"val\.txt: line 2 names 'b', but there is no Annotations/b\.xml"):
        load_voc(tmp_path, "val")
    write_set(tmp_path, "val", "a", "b" * 300)
    with pytest.raises(ValueError, match=r"val\.txt: line 2 names 'bbb"):
        load_voc(tmp_path, "val")
    write_set(tmp_path, "val", "")
    with pytest.raises(ValueError, match=r"val\.txt: lists no image"):
        load_voc(tmp_path, "val")


def test_path_traversal_by_an_image_set(tmp_path: Path) -> None:
    write(tmp_path, a=xml())
    write_set(tmp_path, "val", "a", "../Annotations/a")
    with pytest.raises(ValueError, match=r"val\.txt: line 2 has a file name outside the folder"):
        load_voc(tmp_path, "val")
    with pytest.raises(ValueError, match=r"Main: the image set has a file name outside the folder"):
        load_voc(tmp_path, "../../../val")
