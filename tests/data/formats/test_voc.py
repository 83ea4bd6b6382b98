from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCDetection  # type: ignore[import-untyped]  # it ships no types

from forclip.data.formats.voc import load_voc
from forclip.location import local_path
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


def test_a_box_that_leaves_the_image_is_kept_beyond_rounding(tmp_path: Path) -> None:
    found = load(tmp_path, xml(HORSE.replace("<xmin>1<", "<xmin>-5<").replace("<ymin>2<", "<ymin>-0.5<")))
    assert found.boxes.tolist() == [[-5, 0, 7.5, 10]]
    size = "<size><width>7</width><height>9</height></size>"
    assert load(tmp_path, xml(size, HORSE)).boxes.tolist() == [[0, 1, 7, 9]]
    assert load(tmp_path, xml(size.replace("9", "4"), HORSE)).boxes.tolist() == [[0, 1, 7, 10]]
    for unknown in ("0", "", "wide", "nan", "1e999"):
        assert load(tmp_path, xml(size.replace("9", unknown), HORSE)).boxes.tolist() == [[0, 1, 7.5, 10]]


BOXES = {
    "corners in any order": (HORSE.replace("7.5", "0").replace("<ymin>2<", "<ymin>12<"), [0, 9, 1, 12]),
    "decimal commas": (HORSE.replace("7.5", "7,5"), [0, 1, 7.5, 10]),
    "none": ("<object><name>horse</name></object>", None),
    "an empty one": ("<object><name>horse</name><bndbox/></object>", None),
    "rotated": (
        "<object><name>horse</name><robndbox><cx>10</cx><cy>20</cy><w>8</w><h>4</h><angle>1.5707963</angle></robndbox></object>",
        [8, 16, 12, 24],
    ),
    "polygon": (
        "<object><name>horse</name><polygon><x1>3</x1><y1>4</y1><x2>9</x2><y2>5</y2><x3>6</x3><y3>8</y3></polygon></object>",
        [3, 4, 9, 8],
    ),
    "polygon of points": (
        "<object><name>horse</name><polygon><pt><x>3</x><y>4</y></pt><pt><x>9</x><y>8</y></pt></polygon></object>",
        [3, 4, 9, 8],
    ),
}


@pytest.mark.parametrize(("element", "box"), BOXES.values(), ids=BOXES.keys())
def test_boxes_as_other_tools_write_them(tmp_path: Path, element: str, box: list[float] | None) -> None:
    """An object without a box labels its image."""
    found = load(tmp_path, xml(element))
    assert (found.class_names, found.labels.tolist(), found.skipped) == (("horse",), [[True]], ())
    np.testing.assert_allclose(found.boxes, np.array([] if box is None else box).reshape(-1, 4), atol=1e-4)


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
DAMAGED = {
    "truncated": (xml(HORSE)[:-20], "unclosed token"),
    "empty": ("", "no element found"),
    "no XML": ("xmin, ymin", "syntax error"),
    "another root": ("<html></html>", "<html>"),
    "billion laughs": (LAUGHS, "DOCTYPE"),
    "file entity": (
        '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + xml(HORSE.replace("horse", "&a;")),
        "DOCTYPE",
    ),
    "DOCTYPE far down": (f"<!--{'x' * 100_000}-->{LAUGHS}", "DOCTYPE"),
    "undeclared entity": (xml(HORSE.replace("horse", "&a;")), "undefined entity"),
}


@pytest.mark.parametrize(("content", "value"), DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_leaves_out_only_itself(tmp_path: Path, content: str, value: str) -> None:
    """Its image stays if there is one, but is not taken for one that shows nothing."""
    write(tmp_path, a=xml(PERSON))
    found = load(tmp_path, content)
    assert found.image_ids == ("a",)
    assert found.verified is None
    assert [s.entry for s in found.skipped] == [str(tmp_path / "Annotations" / "one.xml")]
    assert value in found.skipped[0].value
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "one.jpg").touch()
    found = load(tmp_path, content)
    assert found.image_ids == ("a", "one")
    assert found.labels.tolist() == [[True], [False]]
    assert found.verified_mask.tolist() == [[True], [False]]
    assert [s.entry for s in found.skipped] == [str(tmp_path / "Annotations" / "one.xml")]


BAD_BOXES = {
    "side missing": (HORSE.replace("<xmin>1</xmin>", ""), "[None, '2', '7.5', '10']"),
    "words": (HORSE.replace("7.5", "wide"), "['1', '2', 'wide', '10']"),
    "NaN": (HORSE.replace("7.5", "nan"), "[1.0, 2.0, nan, 10.0]"),
    "infinite": (HORSE.replace("7.5", "1e999"), "[1.0, 2.0, inf, 10.0]"),
    "huge": (HORSE.replace("7.5", "1e10"), "[0.0, 1.0, 10000000000.0, 10.0]"),
    "infinite angle": (BOXES["rotated"][0].replace("1.5707963", "inf"), "[10.0, 20.0, 8.0, 4.0, inf]"),
}


@pytest.mark.parametrize(("element", "value"), BAD_BOXES.values(), ids=BAD_BOXES.keys())
def test_a_bad_box_leaves_its_label(tmp_path: Path, element: str, value: str) -> None:
    found = load(tmp_path, xml(PERSON, element, PERSON))
    assert found.labels.tolist() == [[True, True]]
    assert found.boxes.tolist() == [[173, 100, 349, 351]] * 2
    entry = f"{tmp_path}/Annotations/one.xml: object 2"
    assert [(s.entry, s.value, s.used_in_part) for s in found.skipped] == [(entry, value, True)]


def test_an_object_without_a_name_leaves_out_only_itself(tmp_path: Path) -> None:
    found = load(tmp_path, xml(PERSON, HORSE.replace("horse", " "), "<object/>", PERSON))
    assert found.class_names == ("person",)
    assert len(found.boxes) == 2
    entries = [f"{tmp_path}/Annotations/one.xml: object {number}" for number in (2, 3)]
    assert [(s.entry, s.used_in_part) for s in found.skipped] == [(entry, False) for entry in entries]


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/secret.jpg", "C:\\secret.jpg"])
def test_a_file_name_never_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.jpg").touch()
    found = load(tmp_path / "set", xml(filename=name))
    assert local_path(found.paths[0]).parent == tmp_path / "set" / "JPEGImages"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_no_encoding_hides_a_doctype(tmp_path: Path, encoding: str) -> None:
    write(tmp_path, one="", two=xml(HORSE))
    (tmp_path / "Annotations" / "one.xml").write_bytes(LAUGHS.encode(encoding))
    found = load_voc(tmp_path, None)
    assert found.image_ids == ("two",)
    assert found.class_names == ("horse",)
    assert [s.entry for s in found.skipped] == [str(tmp_path / "Annotations" / "one.xml")]


ENCODINGS = {
    "UTF-8 with a mark": ("", "utf-8-sig"),
    "UTF-16": ("", "utf-16"),
    "declared Latin": ('<?xml version="1.0" encoding="ISO-8859-1"?>', "latin-1"),
    "undeclared Latin": ('<?xml version="1.0"?>', "cp1252"),
    "declared Chinese": ('<?xml version="1.0" encoding="gb18030"?>', "gb18030"),
    "wrongly declared": ('<?xml version="1.0" encoding="utf-16"?>', "utf-8"),
    "unknown": ('<?xml version="1.0" encoding="klingon"?>', "utf-8"),
    "blanks before the declaration": ('\r\n <?xml version="1.0" encoding="utf-8"?>', "utf-8"),
}


@pytest.mark.parametrize(("start", "encoding"), ENCODINGS.values(), ids=ENCODINGS.keys())
def test_encodings(tmp_path: Path, start: str, encoding: str) -> None:
    name = "\u732b" if encoding == "gb18030" else "K\u00e4tzchen"
    write(tmp_path, one="")
    (tmp_path / "Annotations" / "one.xml").write_bytes((start + xml(HORSE.replace("horse", name))).encode(encoding))
    found = load_voc(tmp_path, None)
    assert (found.class_names, found.boxes.tolist()) == ((name,), [[0, 1, 7.5, 10]])


def test_a_file_cut_anywhere_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, a=xml(PERSON))
    content = xml(HORSE)
    for end in range(len(content)):
        found = load(tmp_path, content[:end])
        assert (found.image_ids, len(found.skipped)) == (("a",), 1)


# Paths of an XML file and its image, the set that has them, and the image's id.
LAYOUTS = {
    "flat": ("a.xml", "a.jpg", None, "a"),
    "Roboflow": ("train/a_jpg.rf.0f3c.xml", "train/a_jpg.rf.0f3c.jpg", None, "train/a_jpg.rf.0f3c"),
    "Roboflow, a part": ("valid/a.xml", "valid/a.jpg", "val", "valid/a"),
    "CVAT": ("Annotations/cam2/a.xml", "JPEGImages/cam2/a.PNG", None, "cam2/a"),
    "Kaggle": ("annotations/a.xml", "images/a.png", None, "a"),
    "Kaggle, parts": ("test/annots/../annotations/a.xml", "test/images/a.png", "test", "test/a"),
    "Oxford pets": ("annotations/xmls/a.xml", "images/a.jpg", None, "a"),
    "labels and images": ("labels/a.xml", "images/a.jpg", None, "a"),
    "development kit": ("VOC2007/Annotations/a.xml", "VOC2007/JPEGImages/a.jpg", None, "VOC2007/a"),
    "upper case": ("Annotations/A.XML", "JPEGImages/A.JPG", None, "A"),
    "other case": ("Annotations/a.xml", "JPEGImages/A.JPG", None, "a"),
    "two suffixes": ("Annotations/a.jpg.xml", "JPEGImages/a.jpg", None, "a"),
    "composed": ("caf\u00e9.xml", "cafe\u0301.jpg", None, "caf\u00e9"),
}


@pytest.mark.parametrize(("file", "image", "image_set", "image_id"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_layouts(tmp_path: Path, file: str, image: str, image_set: str | None, image_id: str) -> None:
    (tmp_path / "test" / "annots").mkdir(parents=True)
    for name in (file, image):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(xml(HORSE, filename="something else.jpg"))
    (tmp_path / image).touch()
    (tmp_path / image).with_name(f"._{Path(image).name}").touch()
    (tmp_path / file).with_name(f"._{Path(file).name}").write_bytes(b"Mac OS X")
    found = load_voc(tmp_path, image_set)
    assert (found.image_ids, found.paths, found.skipped) == ((image_id,), (tmp_path / image,), ())


def test_the_folder_of_xml_files_may_be_given(tmp_path: Path) -> None:
    write(tmp_path, a=xml(HORSE), b=xml(HORSE))
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "a.png").touch()
    found = load_voc(tmp_path / "Annotations", None)
    assert found.paths == (tmp_path / "JPEGImages" / "a.png", tmp_path / "JPEGImages" / "b.jpg")


def test_images_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, a=xml(HORSE), b=xml(HORSE, filename="c.png"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    found = load_voc(tmp_path / "Annotations", None, tmp_path / "photos")
    assert found.paths == (tmp_path / "photos" / "a.png", tmp_path / "photos" / "c.png")


NAMED = {
    "renamed": ("x.jpg", "x.jpg"),
    "without a suffix": ("x", "x.jpg"),
    "with another suffix": ("x.png", "x.jpg"),
    "in a folder": ("cam/y.jpg", "cam/y.jpg"),
    "of Windows": ("C:\\set\\cam\\y.jpg", "cam/y.jpg"),
    "of another file": ("b.jpg", "a.jpg"),
    "gone": ("gone.jpg", "gone.jpg"),
    "the end is in another folder": ("/home/anna/y.jpg", "y.jpg"),
}


@pytest.mark.parametrize(("filename", "image"), NAMED.values(), ids=NAMED.keys())
def test_an_image_that_only_the_file_names(tmp_path: Path, filename: str, image: str) -> None:
    write(tmp_path, a=xml(HORSE, filename=filename), b=xml())
    for name in ("x.jpg", "cam/y.jpg", "b.jpg"):
        (tmp_path / "JPEGImages" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "JPEGImages" / name).touch()
    expected = "b.jpg" if image == "a.jpg" else image
    assert load_voc(tmp_path, None).paths[0] == tmp_path / "JPEGImages" / expected


def test_the_only_image_of_a_name_in_another_folder(tmp_path: Path) -> None:
    """Where an image of the same folder is missing, one of another folder is none."""
    for name in ("photos/a.jpg", "photos/c.jpg", "more/c.jpg", "more/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("xml/a.xml", "xml/c.xml", "xml/photos/d.xml"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(xml(HORSE))
    paths = dict(zip((found := load_voc(tmp_path, None)).image_ids, found.paths, strict=True))
    assert paths["a"] == tmp_path / "photos" / "a.jpg"
    assert not local_path(paths["c"]).exists()
    assert not local_path(paths["photos/d"]).exists()


def test_a_sub_folder_as_a_set(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for name in ("a.jpg", "b.jpg", "renamed.jpg"):
        (tmp_path / "train" / name).touch()
    (tmp_path / "train" / "a.xml").write_text(xml(HORSE))
    (tmp_path / "train" / "c.xml").write_text(xml(HORSE, filename="renamed.jpg"))
    found = load_voc(tmp_path, "train")
    assert found.image_ids == ("train/a", "train/b", "train/c")
    assert found.paths[2] == tmp_path / "train" / "renamed.jpg"
    assert found.verified_mask.ravel().tolist() == [True, False, True]


def test_images_without_a_file_are_unknown(tmp_path: Path) -> None:
    """Masks in other folders are no images of the set."""
    write(tmp_path, a=xml(HORSE))
    for name in ("JPEGImages/a.jpg", "JPEGImages/b.jpg", "SegmentationClass/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = load_voc(tmp_path, None)
    assert found.image_ids == ("a", "b")
    assert found.verified_mask.tolist() == [[True], [False]]
    assert [(s.entry, s.used_in_part) for s in found.skipped] == [(str(tmp_path / "JPEGImages" / "b.jpg"), True)]


def test_files_that_share_a_name_are_listed(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    for name in ("a.xml", "labels/a.xml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(xml(HORSE))
    found = load_voc(tmp_path, None)
    assert found.paths == (tmp_path / "a.jpg",)
    assert sorted(s.entry for s in found.skipped) == [str(tmp_path / "a.png"), str(tmp_path / "labels" / "a.xml")]


def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    for name in ("a.jpg", "A.jpg", "b.jpg", "C.jpg", "c.jpg"):
        (tmp_path / name).touch()
    for name in ("a.xml", "B.xml", "b.xml", "c.xml"):
        (tmp_path / name).write_text(xml(HORSE))
    found = load_voc(tmp_path, None)
    # B.xml has no image: b.jpg belongs to b.xml.
    names = {image_id: path.name for image_id, path in zip(found.image_ids, found.paths, strict=True)}
    assert names == {"a": "a.jpg", "A": "A.jpg", "b": "b.jpg", "B": "B.jpg", "c": "c.jpg", "C": "C.jpg"}
    unknown = [i for i, known in zip(found.image_ids, found.verified_mask[:, 0], strict=True) if not known]
    assert unknown == ["A", "C"]


def test_names_of_an_image_set(tmp_path: Path) -> None:
    """With suffix, folder, path or flag, and one that has an image only. Others are listed."""
    files = {stem: xml(HORSE) for stem in ("a", "b", "c", "d e", "f")}
    write(tmp_path, **files)
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "g.jpg").touch()
    lines = ["a.jpg", "JPEGImages/b.jpg Annotations/b.xml", "/data/VOC/JPEGImages/c.jpg", "d e  1", "g -1", "gone"]
    write_set(tmp_path, "horse_train", *lines, "../Annotations/f", "x" * 300)
    found = load_voc(tmp_path, "horse_train")
    assert found.image_ids == ("a", "b", "c", "d e", "g")
    assert found.verified_mask.ravel().tolist() == [True] * 4 + [False]
    entries = {s.entry.rpartition(": ")[2]: s.value[:7] for s in found.skipped if "horse_train.txt" in s.entry}
    assert entries == {"line 6": "gone", "line 7": "../Anno", "line 8": "xxxxxxx"}


def test_an_image_set_of_several_years(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write(tmp_path / year, a=xml(HORSE), b=xml(HORSE))
        write_set(tmp_path / year, "train", "a")
    assert load_voc(tmp_path, "train").image_ids == ("VOC2007/a", "VOC2012/a")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no XML files found"):
        load_voc(tmp_path, None)
    write(tmp_path, a=xml())
    with pytest.raises(ValueError, match="no such image set or sub-folder: 'val'"):
        load_voc(tmp_path, "val")
    write_set(tmp_path, "val", "")
    for line in ("", "b", "../Annotations/a"):
        write_set(tmp_path, "val", line)
        with pytest.raises(ValueError, match=r"val\.txt: lists no image that exists"):
            load_voc(tmp_path, "val")
    with pytest.raises(ValueError, match=r"no such image set or sub-folder: '\.\./\.\./val'; it has val"):
        load_voc(tmp_path, "../../val")
    write(tmp_path, a="")
    with pytest.raises(ValueError, match=r"no image has an XML file that can be read; the first: .*a\.xml"):
        load_voc(tmp_path, None)
