"""Exports for CVAT, Label Studio and YOLO, read back by the tools' own readers and by what their formats define."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from forclip.data.formats.yolo import load_yolo
from forclip.search.export import export
from forclip.search.selection import Item, Selection
from forclip.types import Doubles

BOXES = ((0.25, 0.2, 0.5, 0.6), (-0.1, 0.0, 1.1, 0.5), (0.5, 0.5, 1.0, 1.0))


@pytest.fixture
def selection(tmp_path: Path) -> Selection:
    """Three pictures of 200 x 100 pixels, in two folders, two with one name, and names that need escapes."""
    items = []
    for k, name in enumerate(("a & b/ä 1.png", "c/x.png", "d/x.png")):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (200, 100), (40 * k, 0, 0)).save(path)
        items.append(Item(f"id-{k}", path, 200, 100, score=0.3 - k / 100, box=BOXES[k]))
    items[1] = replace(items[1], probability=0.75)
    return Selection(tuple(items), "traffic <light>", tmp_path / "photos")


def expected(k: int, sides: tuple[float, float]) -> Doubles:
    """The corners of box k, clipped to the image, as [4] xyxy."""
    corners: Doubles = np.clip(BOXES[k], 0, 1) * np.array([*sides, *sides])
    return corners


def test_yolo_has_a_label_file_for_each_picture(selection: Selection, tmp_path: Path) -> None:
    export(selection, "yolo", tmp_path / "out")
    content = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert content["names"] == {0: "traffic <light>"}
    assert "path" not in content, "Ultralytics takes a relative path from the working folder"
    pictures = sorted((tmp_path / "out" / content["train"]).iterdir())
    assert [p.read_bytes() for p in pictures] == [
        i.path.read_bytes() for i in selection.items if isinstance(i.path, Path)
    ]
    for k, picture in enumerate(pictures):
        number, x, y, width, height = map(
            float, (tmp_path / "out/labels/train" / f"{picture.stem}.txt").read_text().split()
        )
        corners = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        assert number == 0
        assert corners == pytest.approx(expected(k, (1, 1)), abs=1e-5)
    loaded = load_yolo(tmp_path / "out", None)
    assert loaded.class_names == ("traffic <light>",)
    assert loaded.labels.all()
    assert not loaded.skipped
    assert loaded.boxes == pytest.approx(np.stack([expected(k, (200, 100)) for k in range(3)]), abs=0.01)


def test_yolo_is_read_by_ultralytics(selection: Selection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "settings"))
    data = pytest.importorskip("ultralytics.data")
    utils = pytest.importorskip("ultralytics.data.utils")
    export(selection, "yolo", tmp_path / "out", split=0.4)
    monkeypatch.chdir(tmp_path)
    content = utils.check_det_dataset(tmp_path / "out" / "data.yaml", autodownload=False)
    assert content["names"] == {0: "traffic <light>"}
    found = []
    for part in ("train", "val"):
        dataset = data.YOLODataset(img_path=content[part], data=content, augment=False, imgsz=64)
        found += [(Path(label["im_file"]).name[:6], label["bboxes"][0]) for label in dataset.labels]
    assert [name for name, _ in sorted(found, key=lambda one: one[0])] == ["000001", "000002", "000003"]
    for k, (_, (x, y, width, height)) in enumerate(sorted(found, key=lambda one: one[0])):
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        assert corners == pytest.approx(expected(k, (1, 1)), abs=1e-5)


def test_yolo_needs_a_name_and_a_region(selection: Selection, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name"):
        export(replace(selection, label=""), "yolo", tmp_path / "out")
    without = replace(selection, items=(*selection.items[:2], replace(selection.items[2], box=None)))
    with pytest.raises(ValueError, match="id-2"):
        export(without, "yolo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_cvat_xml_names_pictures_and_declares_labels(selection: Selection, tmp_path: Path) -> None:
    selection = replace(selection, items=(*selection.items[:2], replace(selection.items[2], box=None)))
    export(selection, "cvat", tmp_path / "out.xml")
    root = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    assert [e.text for e in root.findall("meta/task/labels/label/name")] == ["traffic <light>"]
    declared = {e.text for e in root.findall("meta/task/labels/label/attributes/attribute/name")}
    images = root.findall("image")
    assert [i.get("name") for i in images] == ["a & b/ä 1.png", "c/x.png", "d/x.png"]
    assert [(i.get("id"), i.get("width"), i.get("height")) for i in images] == [
        (str(k), "200", "100") for k in range(3)
    ]
    for k, image in enumerate(images[:2]):
        (box,) = image.findall("box")
        edges = [float(box.attrib[edge]) for edge in ("xtl", "ytl", "xbr", "ybr")]
        assert edges == pytest.approx(expected(k, (200, 100)), abs=0.02)
        assert (box.get("label"), box.get("source")) == ("traffic <light>", "auto")
        assert {e.get("name") for e in box.findall("attribute")} <= declared
    assert [a.text for a in images[1].findall("box/attribute")] == ["0.2900", "0.7500"]
    assert [e.get("label") for e in images[2]] == ["traffic <light>"]
    assert images[2][0].tag == "tag"
    with pytest.raises(ValueError, match="XML"):
        export(replace(selection, label="a\x01b"), "cvat", tmp_path / "bad.xml")


@pytest.mark.parametrize("split", [None, 0.4])
def test_a_cvat_folder_is_read_by_datumaro(selection: Selection, tmp_path: Path, split: float | None) -> None:
    """CVAT imports datasets into a project through Datumaro."""
    datumaro = pytest.importorskip("datumaro")
    export(selection, "cvat", tmp_path / "out", split=split)
    dataset = datumaro.Dataset.import_from(str(tmp_path / "out"), "cvat")
    items = sorted(dataset, key=lambda item: item.id.rpartition("/")[2])
    names = [label.name for label in dataset.categories()[datumaro.AnnotationType.label]]
    assert len(items) == 3
    for k, item in enumerate(items):
        (box,) = item.annotations
        assert names[box.label] == "traffic <light>"
        assert box.points == pytest.approx(expected(k, (200, 100)), abs=0.02)
        assert item.media.data.shape[:2] == (100, 200)


def test_label_studio_tasks_have_boxes_as_predictions(selection: Selection, tmp_path: Path) -> None:
    selection = replace(selection, items=(*selection.items[:2], replace(selection.items[2], box=None)))
    export(selection, "labelstudio", tmp_path / "out.json")
    tasks = json.loads((tmp_path / "out.json").read_text())
    urls = [urlsplit(task["data"]["image"]) for task in tasks]
    assert {url.path for url in urls} == {"/data/local-files/"}
    # parse_qs does what Label Studio's server does with the query.
    names = [parse_qs(url.query)["d"][0] for url in urls]
    assert names == ["a & b/ä 1.png", "c/x.png", "d/x.png"]
    for k, task in enumerate(tasks[:2]):
        (prediction,) = task["predictions"]
        (region,) = prediction["result"]
        value = region["value"]
        assert (region["from_name"], region["to_name"], region["type"]) == ("label", "image", "rectanglelabels")
        assert (region["original_width"], region["original_height"]) == (200, 100)
        assert value["rectanglelabels"] == ["traffic <light>"]
        corners = (value["x"], value["y"], value["x"] + value["width"], value["y"] + value["height"])
        assert corners == pytest.approx(expected(k, (100, 100)))
    assert [task["predictions"][0]["score"] for task in tasks[:2]] == [0.3, 0.75]
    assert "predictions" not in tasks[2]


def test_label_studio_tasks_fit_its_template(selection: Selection, tmp_path: Path) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    template = """<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">
        <Label value="traffic &lt;light&gt;"/></RectangleLabels></View>"""
    labels = interface.LabelInterface(template)
    export(selection, "labelstudio", tmp_path / "out.json")
    for task in json.loads((tmp_path / "out.json").read_text()):
        assert labels.validate_task({"data": task["data"]})
        assert labels.validate_prediction(task["predictions"][0])


def test_an_image_is_in_the_same_part_of_every_export(selection: Selection, tmp_path: Path) -> None:
    many = tuple(replace(selection.items[0], image_id=f"{k}.png") for k in range(1000))
    exported = export(replace(selection, items=many), "csv", tmp_path / "many.csv", split=0.8)
    assert 740 < exported.parts["train"] < 860
    assert sum(exported.parts.values()) == 1000
    later = export(replace(selection, items=many[::-7]), "coco", tmp_path / "few.json", split=0.8)

    def lines(part: str) -> set[str]:
        return {line.rpartition(",")[2] for line in (tmp_path / f"many_{part}.csv").read_text().splitlines()[1:]}

    assert not lines("train") & lines("val")
    assert later.counts == {
        tmp_path / f"few_{part}.json": len(lines(part) & {i.image_id for i in many[::-7]}) for part in ("train", "val")
    }


@pytest.mark.parametrize("format", ["coco", "csv", "cvat", "fiftyone", "files", "labelstudio", "yolo"])
def test_a_split_export_holds_each_image_once(format: str, selection: Selection, tmp_path: Path) -> None:
    exported = export(selection, format, tmp_path / "out" / "cat", split=0.4)
    assert sum(exported.counts.values()) == 3
    assert all(path.exists() for path in exported.counts)
    assert min(exported.parts.values()) >= 1, "of these ids, some are in each part"
    with pytest.raises(ValueError, match="exists"):
        export(selection, format, tmp_path / "out" / "cat", split=0.4)
    for share in (0, 1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            export(selection, format, tmp_path / "other", split=share)


@pytest.mark.parametrize("format", ["coco", "fiftyone", "yolo"])
@pytest.mark.parametrize("split", [None, 0.4])
def test_only_new_images_are_exported(format: str, split: float | None, selection: Selection, tmp_path: Path) -> None:
    to, first = tmp_path / "cat.out", replace(selection, items=selection.items[:2])
    assert sum(export(first, format, to, split=split).counts.values()) == 2
    exported = export(selection, format, to, split=split, new=True)
    assert sum(exported.counts.values()) == 1
    assert all("cat-2" in str(path) for path in exported.counts)
    assert export(selection, format, to, split=split, new=True).counts == {}
    assert str(export(selection, format, to, new=True)) == "no image is new"


def test_a_target_that_was_moved_away_is_used_again(selection: Selection, tmp_path: Path) -> None:
    to = tmp_path / "cat.csv"
    export(replace(selection, items=selection.items[:1]), "csv", to, new=True)
    to.rename(tmp_path / "labelled.csv")
    assert export(selection, "csv", to, new=True).counts == {to: 2}
    # Without `new`, the record starts again.
    to.unlink()
    export(replace(selection, items=selection.items[2:]), "csv", to)
    assert export(selection, "csv", to, new=True).counts == {tmp_path / "cat-2.csv": 2}


def test_a_target_without_a_record_is_refused(selection: Selection, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("image\n")
    with pytest.raises(ValueError, match="record"):
        export(selection, "csv", tmp_path / "old.csv", new=True)


@pytest.mark.parametrize("format", ["cvat", "fiftyone", "yolo"])
def test_a_folder_can_be_a_zip_file(format: str, selection: Selection, tmp_path: Path) -> None:
    export(selection, format, tmp_path / "folder")
    export(selection, format, tmp_path / "out.zip")
    folder = tmp_path / "folder"
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with zipfile.ZipFile(tmp_path / "out.zip") as zipped:
        assert {name: zipped.read(name) for name in zipped.namelist() if not name.endswith("/")} == files
