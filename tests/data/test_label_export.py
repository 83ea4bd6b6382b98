"""Training from a labelling tool's export alone."""

import json
from pathlib import Path

import pytest
from PIL import Image

from forclip.config import GalleryRule
from forclip.data.label_export import config_of_labels
from forclip.data.sources import load_sets
from forclip.search.export import export
from forclip.search.selection import Item, Selection


@pytest.fixture
def selection(tmp_path: Path) -> Selection:
    items = []
    for k in range(5):
        Image.new("RGB", (40, 20), (k, 0, 0)).save(tmp_path / f"{k}.png")
        items.append(Item(str(k), tmp_path / f"{k}.png", 40, 20, 0.5, box=(0.1, 0.2, 0.5, 0.9)))
    return Selection(tuple(items), "cat", tmp_path)


@pytest.mark.parametrize("format", ["coco", "csv", "cvat", "labelstudio", "yolo"])
def test_each_export_can_be_trained_on(format: str, selection: Selection, tmp_path: Path) -> None:
    ending = {"coco": ".json", "csv": ".csv", "labelstudio": ".json"}.get(format, "")
    to = tmp_path / f"out{ending}"
    export(selection, format, to)
    if format == "csv":  # a person confirms each
        to.write_text(to.read_text().replace(",cat,,", ",cat,1,"))
    elif format == "labelstudio":
        tasks = json.loads(to.read_text())
        to.write_text(json.dumps([{**task, "annotations": task["predictions"]} for task in tasks]))
    config = config_of_labels(str(to), None if to.is_dir() else tmp_path, "forclip-mini", "cuda")
    assert (config.model.name, config.device) == ("forclip-mini", "cuda")
    assert config.data.gallery == GalleryRule(fraction=0.2)
    train, gallery = load_sets(config.data)
    assert (len(train), len(gallery), train.class_names) == (4, 1, ("cat",))
    assert all(Path(str(path)).exists() for path in (*train.paths, *gallery.paths))


def test_the_only_label_file_of_a_folder_is_found(selection: Selection, tmp_path: Path) -> None:
    """As CVAT exports COCO: `annotations/instances_default.json` and `images/default`."""
    pictures = tmp_path / "export" / "images" / "default"
    pictures.mkdir(parents=True)
    for item in selection.items:
        path = Path(str(item.path))
        path.rename(pictures / path.name)
    file = tmp_path / "export" / "annotations" / "instances_default.json"
    export(selection, "coco", file)
    train, gallery = load_sets(config_of_labels(tmp_path / "export").data)
    assert {Path(str(path)).parent for path in (*train.paths, *gallery.paths)} == {pictures}
    (file.parent / "second.json").write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(ValueError, match="instances_default"):
        config_of_labels(tmp_path / "export")
    with pytest.raises(ValueError, match="no labels"):
        config_of_labels(pictures)


def test_all_splits_of_yolo_are_used(selection: Selection, tmp_path: Path) -> None:
    export(selection, "yolo", tmp_path / "out", split=0.5)
    train, gallery = load_sets(config_of_labels(tmp_path / "out").data)
    assert len(train) + len(gallery) == 5


def test_a_zip_file_is_to_be_unpacked(selection: Selection, tmp_path: Path) -> None:
    export(selection, "cvat", tmp_path / "out.zip")
    with pytest.raises(ValueError, match="unpack"):
        config_of_labels(tmp_path / "out.zip")
