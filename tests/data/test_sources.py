"""How the gallery is chosen, and how formats are detected."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forclip.config import DataConfig, GalleryRule, SourceConfig
from forclip.data.sources import format_of, load_sets


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
    assert format_of(SourceConfig(tmp_path / "gone.json", format="coco")) == "coco"


def test_an_unknown_format_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.json: no such annotation file or folder"):
        format_of(SourceConfig(tmp_path / "gone.json"))
    (tmp_path / "labels.xls").write_bytes(b"")
    with pytest.raises(ValueError, match=r"labels\.xls: unknown format"):
        format_of(SourceConfig(tmp_path / "labels.xls"))


def test_rows_keep_their_labels(tmp_path: Path) -> None:
    file = coco_file(tmp_path, 6)
    content = json.loads(file.read_text())
    content["annotations"] = [{"id": 1, "image_id": 4, "category_id": 1, "bbox": [0, 0, 2, 2]}]
    file.write_text(json.dumps(content))
    train, _ = load_sets(DataConfig(SourceConfig(file)))
    assert train.image_ids[np.flatnonzero(train.labels[:, 0])[0]] == "4"
