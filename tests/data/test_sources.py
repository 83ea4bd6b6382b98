"""How the gallery is chosen, and how formats are detected."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from forclip.config import DataConfig, GalleryRule, SourceConfig
from forclip.data.source_format import format_of
from forclip.data.sources import load_sets, load_source
from forclip.data.splits import choose_classes


def coco_file(folder: Path, count: int, **extra: Any) -> Path:
    images = [{"id": k, "file_name": f"{k}.jpg", **extra} for k in range(count)]
    content = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    file = folder / "all.json"
    file.write_text(json.dumps(content))
    return file


def ids(folder: Path, gallery: GalleryRule | None, count: int = 10) -> tuple[list[str], list[str]]:
    train, searched = load_sets(DataConfig(SourceConfig(coco_file(folder, count)), gallery=gallery))
    assert set(train.image_ids).isdisjoint(searched.image_ids)
    assert len(train) + len(searched) == count
    return list(train.image_ids), list(searched.image_ids)


def test_every_second_image_without_a_rule(tmp_path: Path) -> None:
    assert ids(tmp_path, None) == ([str(k) for k in range(0, 10, 2)], [str(k) for k in range(1, 10, 2)])


def test_a_fraction_is_drawn_with_the_seed(tmp_path: Path) -> None:
    drawn = [ids(tmp_path, GalleryRule(fraction=0.3, seed=seed))[1] for seed in range(5)]
    assert {len(gallery) for gallery in drawn} == {3}
    assert drawn[2] == ids(tmp_path, GalleryRule(fraction=0.3, seed=2))[1]
    assert len({tuple(gallery) for gallery in drawn}) > 1
    assert len(ids(tmp_path, GalleryRule(fraction=0.01))[1]) == 1
    assert len(ids(tmp_path, GalleryRule(fraction=0.999))[0]) == 1


def test_a_list_of_ids(tmp_path: Path) -> None:
    listed = tmp_path / "gallery.txt"
    listed.write_text("7\n\n 2 \n7\n")
    assert ids(tmp_path, GalleryRule(image_ids=listed))[1] == ["2", "7"]
    listed.write_text("7\n99\n")
    with pytest.raises(ValueError, match=r"gallery\.txt: no image has the id '99'"):
        ids(tmp_path, GalleryRule(image_ids=listed))
    listed.write_text("\n".join(map(str, range(10))))
    with pytest.raises(ValueError, match="lists 10 of 10 images"):
        ids(tmp_path, GalleryRule(image_ids=listed))


def test_sub_folders_that_may_be_classes_are_pointed_out(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.jpg")
    data = DataConfig(SourceConfig(tmp_path))
    with pytest.raises(ValueError, match=r"cat, dog.*cat/a\.jpg,cat"):
        choose_classes(data, *load_sets(data))
    Image.new("RGB", (4, 4)).save(tmp_path / "b.jpg")
    with pytest.raises(ValueError, match="no image has a label") as refused:
        choose_classes(data, *load_sets(data))
    assert "dog" not in str(refused.value)


def test_classes_below_splits_are_pointed_out(tmp_path: Path) -> None:
    for folder in ("train/cat", "val/dog"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "a.jpg")
    data = DataConfig(SourceConfig(tmp_path))
    with pytest.raises(ValueError, match=r"cat, dog.*train/cat/a\.jpg,cat"):
        choose_classes(data, *load_sets(data))


def test_an_error_after_loading_says_what_is_left_out(tmp_path: Path) -> None:
    file = coco_file(tmp_path, 4)
    content = json.loads(file.read_text())
    content["categories"] = ["cat"]
    file.write_text(json.dumps(content))
    data = DataConfig(SourceConfig(file))
    with pytest.raises(ValueError, match=r"left out.*categories\[0\]"):
        choose_classes(data, *load_sets(data))
    content["images"] = [{"id": 1, "file_name": None}, *content["images"][2:3]]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"left out.*images\[0\]"):
        load_sets(data)


def test_a_compressed_csv_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv.gz"
    file.write_bytes(gzip.compress(b"image,label\na.jpg,cat\n"))
    assert load_source(SourceConfig(file)).class_names == ("cat",)


def test_one_image_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"all\.json: 1 image"):
        ids(tmp_path, None, count=1)


def test_a_set_without_an_image_is_refused_by_file(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    some, none = SourceConfig(coco_file(tmp_path, 3)), SourceConfig(coco_file(tmp_path / "none", 0))
    for train, gallery in ((none, some), (some, none)):
        with pytest.raises(ValueError, match=r"none.all\.json: has no image"):
            load_sets(DataConfig(train, gallery=gallery))


def test_another_source_is_used_whole_as_the_gallery(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    source, other = SourceConfig(coco_file(tmp_path, 4)), SourceConfig(coco_file(tmp_path / "val", 3))
    train, gallery = load_sets(DataConfig(source, gallery=other))
    assert (len(train), len(gallery)) == (4, 3)
    assert gallery.paths[0] == tmp_path / "val" / "0.jpg"


@pytest.mark.parametrize("federated", [{}, {"neg_category_ids": []}], ids=["coco", "lvis"])
def test_both_sets_come_from_their_compact_copies_the_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, federated: dict[str, Any]
) -> None:
    (tmp_path / "val").mkdir()
    source, other = (SourceConfig(coco_file(folder, 4, **federated)) for folder in (tmp_path, tmp_path / "val"))
    data = DataConfig(source, gallery=other, cache=tmp_path / "cache")
    first = load_sets(data)
    assert len(list((tmp_path / "cache").iterdir())) == 2

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the JSON was read again")

    monkeypatch.setattr("msgspec.json.decode", refuse)
    assert [images.image_ids for images in load_sets(data)] == [images.image_ids for images in first]
    with pytest.raises(AssertionError, match="read again"):
        load_sets(DataConfig(source, gallery=other))


def test_formats_are_detected(tmp_path: Path) -> None:
    for folder in ("tables", "voc/Annotations", "pictures"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tables" / "object_ann.json").write_text("[]")
    (tmp_path / "labels.csv").write_text("image,label\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    (tmp_path / "empty.json").write_text("")
    places = {
        "tables": "nuimages",
        "voc": "voc",
        "pictures": "folder",
        "labels.csv": "csv",
        "data.yaml": "yolo",
        "all.json": "coco",
        "empty.json": "coco",
    }
    coco_file(tmp_path, 2)
    assert {place: format_of(SourceConfig(tmp_path / place)) for place in places} == places
    assert format_of(SourceConfig(coco_file(tmp_path, 2, neg_category_ids=[]))) == "lvis"
    file = coco_file(tmp_path, 2, neg_category_ids=[])
    for encoding in ("utf-16", "utf-16-be"):
        (tmp_path / "wide.json").write_bytes(file.read_text().encode(encoding))
        assert format_of(SourceConfig(tmp_path / "wide.json")) == "lvis"
    assert format_of(SourceConfig(tmp_path / "gone.json", format="coco")) == "coco"


def write(folder: Path, name: str, content: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)


FOLDERS = {
    "XML beside pictures": ({"a.jpg": "", "a.xml": "<annotation/>"}, "voc"),
    "XML of Windows": ({"a.jpg": "", "a.xml": '\ufeff<?xml version="1.0"?>\r\n<annotation verified="yes"/>'}, "voc"),
    "Roboflow's XML": ({"README.txt": "", "train/a.jpg": "", "train/a.xml": "<annotation></annotation>"}, "voc"),
    "Kaggle's XML": ({"annotations/a.xml": "<annotation/>", "images/a.jpg": ""}, "voc"),
    "several years of VOC": ({"VOC2007/Annotations/a.xml": "<annotation/>"}, "voc"),
    "COCO's annotations": ({"annotations/a.json": "{}", "train2017/a.jpg": ""}, "folder"),
    "another XML": ({"a.jpg": "", "a.xml": "<gpx/>"}, "folder"),
    "macOS' XML": ({"a.jpg": "", "._a.xml": "<annotation/>"}, "folder"),
    "a data YAML": ({"data.yaml": "names: [cat]\ntrain: images", "images/a.jpg": ""}, "yolo"),
    "a YAML of forclip": ({"run.yaml": "data: {train: {annotations: .}}", "a.jpg": ""}, "folder"),
    "CVAT": ({"annotations.xml": "<annotations><image/></annotations>", "images/a.jpg": ""}, "cvat"),
    "Label Studio": ({"result.json": '[{"id": 1, "annotations": [], "data": {}}]', "a.jpg": ""}, "labelstudio"),
    "CVAT's YOLO": ({"obj.data": "names = obj.names\ntrain = train.txt", "obj.names": "cat"}, "yolo"),
    "Label Studio's YOLO": ({"classes.txt": "cat", "images/a.jpg": "", "labels/a.txt": "0 .5 .5 1 1"}, "yolo"),
    "Roboflow's darknet": ({"train/_darknet.labels": "cat", "train/a.txt": "0 .5 .5 1 1"}, "yolo"),
    "YOLO beside pictures": ({"classes.txt": "cat", "a.jpg": "", "a.txt": "0 0.5 0.5 1 1\r\n"}, "yolo"),
    "class names alone": ({"classes.txt": "cat", "a.jpg": ""}, "folder"),
    "notes beside pictures": ({"classes.txt": "cat", "a.jpg": "", "a.txt": "2024 was a good year"}, "folder"),
}


@pytest.mark.parametrize(("files", "expected"), FOLDERS.values(), ids=FOLDERS.keys())
def test_folders_are_recognised(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    for name, content in files.items():
        write(tmp_path, name, content)
    assert format_of(SourceConfig(tmp_path)) == expected


COCO = '{"images": [], "annotations": [], "categories": []}'
UNREAD = {
    "COCO": ({"_annotations.coco.json": COCO}, r"_annotations\.coco\.json; give that file"),
    "COCO below": ({"annotations/a.json": COCO}, r"annotations/a\.json; give that file"),
    "CSV": ({"labels.csv": "image,label\n"}, r"labels\.csv; give that file"),
    "CSV of TensorFlow": ({"_annotations.csv": "filename,width,height,class,xmin\n"}, "_annotations.csv; give"),
    "CSV of Roboflow": ({"train/_classes.csv": "filename, cat, dog\n"}, r"train/_classes\.csv; give that file"),
    "YOLO of Keras": ({"_annotations.txt": "a.jpg 1,2,3,4,0\n"}, "_annotations.txt has the format of Keras"),
    "YOLO": ({"a.txt": "0 0.5 0.5 1 1\n"}, r"a\.txt, but no class names; add data\.yaml or classes\.txt"),
    "Stanford dogs": ({"Annotation/n1/a": "<annotation>\n</annotation>"}, "Annotation/n1/a; add .xml"),
    "CVAT below": ({"a/annotations.xml": "<annotations><image/></annotations>"}, r"a/annotations\.xml; give that file"),
    "Label Studio below": ({"a/b.json": '[{"data": {}, "annotations": []}]'}, r"a/b\.json; give that file"),
    "LabelMe": ({"a.json": '{"version": "5.0.1", "flags": {}, "shapes": []}'}, r"a\.json: is in LabelMe format"),
}


@pytest.mark.parametrize(("files", "message"), UNREAD.values(), ids=UNREAD.keys())
def test_labels_in_a_folder_of_pictures_are_not_ignored(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in {"a.jpg": "", **files}.items():
        write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message):
        load_source(SourceConfig(tmp_path))
    assert len(load_source(SourceConfig(tmp_path, format="folder"))) == 1


def test_other_files_in_a_folder_of_pictures_are_ignored(tmp_path: Path) -> None:
    for name in ("a.jpg", "README.txt", "notes.json", "metadata.csv"):
        write(tmp_path, name, "image,camera,time\n")
    assert len(load_source(SourceConfig(tmp_path))) == 1


FOREIGN = {
    "LabelMe": '{"version": "5.0.1", "flags": {}, "shapes": [{"label": "cat"}], "imagePath": "a.jpg"}',
    "VGG Image Annotator": '{"a.jpg1": {"regions": [{"shape_attributes": {}, "region_attributes": {}}]}}',
    "CreateML": '[{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}]',
    "Datumaro": '{"info": {}, "categories": {}, "items": [{"annotations": [{"label_id": 0}]}]}',
    "Supervisely": '{"size": {}, "objects": [{"classTitle": "cat"}]}',
}


@pytest.mark.parametrize(("tool", "content"), FOREIGN.items(), ids=FOREIGN.keys())
def test_files_of_other_tools_are_refused_with_what_to_export(tmp_path: Path, tool: str, content: str) -> None:
    write(tmp_path, "a.json", content)
    with pytest.raises(ValueError, match=rf"a\.json: is in {tool}.* format, which is not read; export COCO"):
        format_of(SourceConfig(tmp_path / "a.json"))


def test_coco_with_fields_of_other_tools_is_coco(tmp_path: Path) -> None:
    write(tmp_path, "a.json", '{"images": [{"flags": {}, "shapes": [], "box2d": 1, "label": "x", "coordinates": 0}]}')
    assert format_of(SourceConfig(tmp_path / "a.json")) == "coco"


def test_an_unknown_format_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.json: no such annotation file or folder"):
        format_of(SourceConfig(tmp_path / "gone.json"))
    write(tmp_path, "labels.xls", "")
    with pytest.raises(ValueError, match=r"labels\.xls: unknown format"):
        format_of(SourceConfig(tmp_path / "labels.xls"))
    write(tmp_path, "a.xml", "<annotation/>")
    with pytest.raises(ValueError, match=r"a\.xml: .*; give the folder"):
        format_of(SourceConfig(tmp_path / "a.xml"))
    write(tmp_path, "train.txt", "a.jpg")
    with pytest.raises(ValueError, match=r"train\.txt: for YOLO give the data YAML"):
        format_of(SourceConfig(tmp_path / "train.txt"))


def test_rows_keep_their_labels(tmp_path: Path) -> None:
    file = coco_file(tmp_path, 6)
    content = json.loads(file.read_text())
    content["annotations"] = [{"id": 1, "image_id": 4, "category_id": 1, "bbox": [0, 0, 2, 2]}]
    file.write_text(json.dumps(content))
    train, _ = load_sets(DataConfig(SourceConfig(file)))
    assert train.image_ids[np.flatnonzero(train.labels[:, 0])[0]] == "4"
