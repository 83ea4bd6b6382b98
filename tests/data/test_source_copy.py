"""Labels at URLs load as those on this machine."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from forclip.config import SourceConfig, load_config, read_names
from forclip.data.check import check_labels
from forclip.data.left_out import LeftOutWarning
from forclip.data.sources import load_sets, load_source, with_all_splits
from forclip.progress import untracked
from forclip.types import Annotations
from tests.s3 import s3_client

Write = Callable[[Path], SourceConfig]


def pictures(folder: Path, *names: str) -> None:
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + 10 * k, 30), (9 * k, 50, 90)).save(folder / name, "PNG")


def write(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def yolo(root: Path) -> SourceConfig:
    pictures(root, "set/images/train/a.png", "set/images/train/B.png", "set/images/val/c d.png")
    labels = {"train/a.txt": "0 .5 .5 .5 .5\n1 .1 .1 .2 .2\n", "train/b.txt": "7 0 0 1 1\n1 x\n", "val/c d.txt": ""}
    data = "path: /content/set\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n"
    write(root / "set", {f"labels/{name}": text for name, text in labels.items()} | {"data.yaml": data})
    return SourceConfig(root / "set")


def yolo_file(root: Path) -> SourceConfig:
    return replace(yolo(root), annotations=root / "set/data.yaml", subset="val")


def yolo_apart(root: Path) -> SourceConfig:
    pictures(root, "photos/a.png", "photos/b.png")
    write(root, {"marks/labels/a.txt": "1 .5 .5 .5 .5\n", "marks/classes.txt": "cat\ndog\n"})
    return SourceConfig(root / "marks", root / "photos")


def voc(root: Path) -> SourceConfig:
    pictures(root, "set/JPEGImages/a.png", "set/JPEGImages/b.png", "set/SegmentationClass/a.png")
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox>"
    xml = f"<annotation><filename>a.png</filename><object><name>cat</name>{box}</object></annotation>"
    write(root / "set", {"Annotations/a.xml": xml, "Annotations/b.xml": "<annotation", "ImageSets/Main/val.txt": "a\n"})
    return SourceConfig(root / "set")


def voc_annotations(root: Path) -> SourceConfig:
    return replace(voc(root), annotations=root / "set/Annotations")


def cvat(root: Path) -> SourceConfig:
    pictures(root, "set/images/a.png")
    box = '<box label="cat" xtl="1" ytl="2" xbr="9" ybr="8"/>'
    xml = f'<annotations><image id="0" name="a.png" width="40" height="30">{box}</image></annotations>'
    write(root / "set", {"annotations.xml": xml})
    return SourceConfig(root / "set")


def cvat_file(root: Path) -> SourceConfig:
    return replace(cvat(root), annotations=root / "set/annotations.xml")


def label_studio(root: Path) -> SourceConfig:
    pictures(root, "set/a.png")
    value = {"x": 10, "y": 20, "width": 50, "height": 50, "rectanglelabels": ["cat"]}
    result = {"type": "rectanglelabels", "from_name": "label", "to_name": "image", "value": value}
    task = {"data": {"image": "/data/upload/1/0a1b2c3d-a.png"}, "annotations": [{"result": [result]}]}
    write(root / "set", {"export.json": json.dumps([task])})
    return SourceConfig(root / "set")


def coco(root: Path) -> SourceConfig:
    pictures(root, "photos/a.png", "photos/sub/b.png")
    images = [{"id": 1, "file_name": "A.PNG"}, {"id": 2, "file_name": "/home/anna/sub/b.png"}]
    boxes = [{"id": 1, "image_id": 2, "category_id": 3, "bbox": [1, 2, 3, 4]}]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 3, "name": "cat"}]}
    write(root, {"labels/set.json": json.dumps(content)})
    return SourceConfig(root / "labels/set.json", root / "photos")


def open_images(root: Path) -> SourceConfig:
    pictures(root, "photos/a.png", "photos/b.png")
    rows = ["ImageID,LabelName,XMin,XMax,YMin,YMax", "a,cat,0.1,0.5,0.2,0.4", "b,dog,0,1,0,1"]
    write(root, {"labels/boxes.csv": "\n".join(rows)})
    return SourceConfig(root / "labels/boxes.csv", root / "photos")


def open_images_codes(root: Path) -> SourceConfig:
    pictures(root, "photos/a.png")
    rows = ["ImageID,LabelName,XMin,XMax,YMin,YMax", "a,/m/01yrx,0.1,0.5,0.2,0.4", "a,/m/0xyz,0.1,0.5,0.2,0.4"]
    names = "/m/01yrx,Cat\n/m/0bt9lr,Dog\n"
    write(root, {"labels/boxes.csv": "\n".join(rows), "labels/oidv7-class-descriptions-boxable.csv": names})
    return SourceConfig(root / "labels/boxes.csv", root / "photos")


def unlabelled(root: Path) -> SourceConfig:
    pictures(root, "photos/b.png", "photos/sub/a.png")
    return SourceConfig(root / "photos")


def nuimages(root: Path) -> SourceConfig:
    pictures(root, "set/samples/a.png", "set/sweeps/b.png")
    frame = {"token": "f", "sample_token": "s", "filename": "samples/a.png", "is_key_frame": True}
    tables = {
        "sample": [{"token": "s", "key_camera_token": "f"}],
        "sample_data": [frame],
        "category": [{"token": "c", "name": "vehicle.car"}],
        "object_ann": [{"token": "o", "sample_data_token": "f", "category_token": "c", "bbox": [1, 2, 9, 9]}],
    }
    write(root / "set", {f"v1.0-mini/{name}.json": json.dumps(rows) for name, rows in tables.items()})
    return SourceConfig(root / "set/v1.0-mini", root / "set")


def upload(folder: Path, bucket: str, server: str) -> None:
    client = s3_client(server)
    for file in (file for file in folder.rglob("*") if file.is_file()):
        name = bucket.removeprefix("s3://")
        client.put_object(Bucket=name, Key=file.relative_to(folder).as_posix(), Body=file.read_bytes())


def at(url: str, source: SourceConfig, root: Path) -> SourceConfig:
    def moved(path: Path) -> Path:
        return Path(url, path.relative_to(root))

    return replace(
        source, annotations=moved(source.annotations), images=None if source.images is None else moved(source.images)
    )


def named(loaded: Annotations, start: str) -> list[str]:
    return [str(path).removeprefix(f"{start}/") for path in loaded.paths]


@pytest.mark.filterwarnings("ignore::forclip.data.left_out.LeftOutWarning")
@pytest.mark.parametrize(
    "make",
    [
        *(yolo, yolo_file, yolo_apart, voc, voc_annotations, cvat, cvat_file, label_studio, coco, open_images),
        *(open_images_codes, unlabelled, nuimages),
    ],
)
def test_labels_in_a_bucket_load_as_those_of_a_folder(make: Write, bucket: str, s3_server: str, tmp_path: Path) -> None:
    here = make(tmp_path)
    upload(tmp_path, bucket, s3_server)
    there = at(bucket, here, tmp_path)
    assert with_all_splits(there).subset == with_all_splits(here).subset
    expected, loaded = load_source(with_all_splits(here)), load_source(with_all_splits(there))
    assert (loaded.image_ids, loaded.class_names) == (expected.image_ids, expected.class_names)
    assert named(loaded, bucket) == named(expected, str(tmp_path))
    for name in ("labels", "boxes", "box_images", "box_classes", "verified_mask"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(expected, name), name)
    reasons = [(e.entry.replace(str(tmp_path), bucket), e.reason) for e in expected.skipped]
    assert [(e.entry, e.reason) for e in loaded.skipped] == reasons
    check = check_labels(there, untracked)
    assert (check.missing, check.unreadable) == ([], [])


@pytest.mark.filterwarnings("ignore::forclip.data.left_out.LeftOutWarning")
def test_open_images_codes_are_named(tmp_path: Path) -> None:
    loaded = load_source(open_images_codes(tmp_path))
    assert loaded.class_names == ("/m/0xyz", "Cat")
    assert [(entry.value, entry.used_in_part) for entry in loaded.skipped] == [("/m/0xyz", True)]


def test_a_configuration_and_all_that_it_names_may_be_in_a_bucket(bucket: str, s3_server: str, tmp_path: Path) -> None:
    coco(tmp_path)
    run = "data:\n  train: {annotations: labels/set.json, images: photos}\n  gallery: {annotations: photos}\n"
    write(tmp_path, {"run.yaml": f"{run}  novel: names.txt\n  base: [cat]\n", "names.txt": "\ufeffdog\n"})
    upload(tmp_path, bucket, s3_server)
    config = load_config(Path(bucket, "run.yaml"))
    train, gallery = load_sets(config.data)
    assert (config.data.novel, train.class_names, len(gallery)) == (("dog",), ("cat",), 2)
    assert read_names(Path(bucket, "names.txt")) == ("dog",)
    with pytest.raises(ValueError, match=rf"^{bucket}/none.txt: no such file"):
        read_names(Path(bucket, "none.txt"))


def test_a_source_that_is_not_in_the_bucket_is_named_by_its_url(bucket: str, s3_server: str) -> None:
    s3_client(s3_server).put_object(Bucket=bucket.removeprefix("s3://"), Key="set/data.yaml", Body=b"names: [cat]\n")
    with pytest.raises(ValueError, match=rf"^{bucket}/missing: no such file"):
        load_source(SourceConfig(Path(bucket, "missing")))
    with pytest.raises(ValueError, match=rf"^{bucket}/set/data.yaml: "):
        load_source(SourceConfig(Path(bucket, "set/data.yaml")))


def test_names_that_no_local_file_can_have_are_listed_and_do_not_stop_others(bucket: str, s3_server: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "PNG")
    objects = {f"set/{'x' * 300}.png": b"", "set/a.png": content.getvalue(), "set/a.txt": b"0 .5 .5 1 1"}
    for key, body in ({"set/classes.txt": b"cat", "set/a.png/b.txt": b"0"} | objects).items():
        s3_client(s3_server).put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=body)
    with pytest.warns(LeftOutWarning):
        loaded = load_source(SourceConfig(Path(bucket, "set")))
    left_out = {entry.entry.rpartition("/")[2][:5] for entry in loaded.skipped}
    assert left_out == {"xxxxx", "b.txt"}
    assert (loaded.image_ids, loaded.boxes.tolist()) == (("a.png",), [[0, 0, 8, 8]])
