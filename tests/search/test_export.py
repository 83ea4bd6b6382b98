"""What is handed on, read again by others: pycocotools, forclip's own loaders, FiftyOne's documented layout."""

import contextlib
import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from forclip.calibration.model import Calibration
from forclip.data.formats.coco import load_coco
from forclip.data.formats.csv_labels import load_csv
from forclip.search.export import FORMATS, export, write_csv, write_fiftyone
from forclip.search.request import SearchRequest, parse_cutoff
from forclip.search.searcher import Searcher
from forclip.search.selection import Item, Selection, select_ids, select_ids_for, select_search


@pytest.fixture
def root(searcher: Searcher) -> Path:
    return Path(searcher.search("cat", 1)[0].uri).parent


def test_coco_read_by_pycocotools_and_by_forclip(searcher: Searcher, root: Path, tmp_path: Path) -> None:
    export(select_search(searcher, SearchRequest(text="cat", k=9), root=root), "coco", tmp_path / "cat.json")
    results = searcher.search("cat", 9)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "cat.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == ["cat"]
    for result, annotation in zip(results, coco.loadAnns(coco.getAnnIds()), strict=True):
        (image,) = coco.loadImgs(annotation["image_id"])
        assert root / image["file_name"] == Path(result.uri)
        assert annotation["score"] == result.score
        assert result.box is not None
        x, y, width, height = annotation["bbox"]
        sides = np.array([image["width"], image["height"]] * 2)
        assert np.array([x, y, x + width, y + height]) == pytest.approx(np.array(result.box) * sides, abs=0.02)
        assert annotation["area"] == pytest.approx(width * height, abs=0.01)

    loaded = load_coco(tmp_path / "cat.json", root)
    assert (loaded.class_names, len(loaded), int(loaded.labels.sum())) == (("cat",), 9, 9)
    assert set(loaded.paths) == {Path(r.uri) for r in results}
    assert len(loaded.boxes) == 9


def test_names_are_absolute_without_a_root(searcher: Searcher, tmp_path: Path) -> None:
    export(select_search(searcher, SearchRequest(text="cat", k=2)), "coco", tmp_path / "cat.json")
    images = json.loads((tmp_path / "cat.json").read_text())["images"]
    assert [i["file_name"] for i in images] == [r.uri for r in searcher.search("cat", 2)]
    with pytest.raises(ValueError, match="is not inside the root"):
        select_search(searcher, SearchRequest(text="cat", k=2), root=tmp_path)


def test_csv_stands_open_until_it_is_filled(searcher: Searcher, root: Path, tmp_path: Path) -> None:
    export(select_search(searcher, SearchRequest(text="cat", k=4), root=root), "csv", tmp_path / "cat.csv")
    with pytest.raises(ValueError, match="'' under present"):
        load_csv(tmp_path / "cat.csv", root)
    lines = (tmp_path / "cat.csv").read_text().splitlines()
    filled = [line.replace(",cat,,", f",cat,{k % 2},") for k, line in enumerate(lines)]
    (tmp_path / "judged.csv").write_text("\n".join(filled))
    judged = load_csv(tmp_path / "judged.csv", root)
    assert judged.labels[:, 0].sum() == 2
    assert judged.verified is not None
    assert judged.verified.all()


def test_a_csv_file_runs_nothing_and_keeps_own_columns(tmp_path: Path) -> None:
    own = {"camera": "=1+1", "label": "mine"}
    items = (Item("@a", tmp_path / "=a.jpg", 1, 1, present=True, own=own), Item("b", tmp_path / "b.jpg", 1, 1))
    write_csv(Selection(items, "+cat", tmp_path), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as opened:
        first, second = csv.DictReader(opened)
    assert (first["image"], first["label"], first["id"]) == ("./=a.jpg", "'+cat", "'@a")
    assert (first["present"], second["present"]) == ("1", "")
    assert (first["camera"], first["own.label"]) == ("'=1+1", "mine")
    assert (second["camera"], second["own.label"]) == ("", "")


def test_names_of_pictures_fit_any_system(tmp_path: Path) -> None:
    (tmp_path / "..\\up:1.jpg").write_bytes(b"x")
    write_fiftyone(Selection((Item("a", tmp_path / "..\\up:1.jpg", 1, 1),)), tmp_path / "out")
    assert [f.name for f in (tmp_path / "out" / "data").iterdir()] == ["000001_.._up_1.jpg"]
    assert list(json.loads((tmp_path / "out" / "labels.json").read_text())["labels"]) == ["000001_.._up_1"]


def test_a_fiftyone_folder(searcher: Searcher, tmp_path: Path) -> None:
    export(select_search(searcher, SearchRequest(text="cat", k=3)), "fiftyone", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert content["classes"] == ["cat"]
    files = sorted((tmp_path / "out" / "data").iterdir())
    assert [f.stem for f in files] == sorted(content["labels"])
    for result, file in zip(searcher.search("cat", 3), files, strict=True):
        assert file.read_bytes() == Path(result.uri).read_bytes()
        (detection,) = content["labels"][file.stem]
        x, y, width, height = detection["bounding_box"]
        assert (x, y, x + width, y + height) == pytest.approx(result.box)
        assert content["classes"][detection["label"]] == "cat"
        assert detection["confidence"] == result.score
        # What FiftyOne makes fields of a Detection: names that it has itself are refused, or lost.
        assert detection["attributes"] == {"score": result.score, "image_id": result.image_id}


def test_a_list_of_files(searcher: Searcher, root: Path, tmp_path: Path) -> None:
    export(select_search(searcher, SearchRequest(text="cat", k=5), root=root), "files", tmp_path / "cat.txt")
    names = (tmp_path / "cat.txt").read_text().splitlines()
    assert names == [Path(r.uri).name for r in searcher.search("cat", 5)]
    odd = Selection((Item("a", tmp_path / "two\nlines.jpg", 1, 1),))
    with pytest.raises(ValueError, match="line break"):
        export(odd, "files", tmp_path / "odd.txt")


def test_images_by_id(searcher: Searcher, tmp_path: Path) -> None:
    ids = [r.image_id for r in reversed(searcher.search("cat", 4))]
    plain = select_ids(searcher.index, [*ids, ids[0]], "my picks")
    assert [i.image_id for i in plain.items] == ids
    export(plain, "coco", tmp_path / "picks.json")
    content = json.loads((tmp_path / "picks.json").read_text())
    assert (len(content["images"]), content["annotations"]) == (4, [])
    scored = select_ids_for(searcher, ids, "cat")
    assert [i.image_id for i in scored.items] == ids[::-1]
    assert scored.items[0].score == searcher.search("cat", 1)[0].score
    with pytest.raises(ValueError, match="has no image 'nothing'"):
        select_ids(searcher.index, ["nothing"])
    export(select_ids(searcher.index, ids), "fiftyone", tmp_path / "bare")
    bare = json.loads((tmp_path / "bare" / "labels.json").read_text())
    assert bare["classes"] == []
    assert set(bare["labels"].values()) == {None}


def test_probabilities_and_the_cut(searcher: Searcher, tmp_path: Path) -> None:
    calibration = Calibration(-1.0, 0.5, 1.5, 0.0, 0.9, 0.2, 0.05, 10, 60, {})
    sure = Searcher(searcher.index, replace(searcher.model, calibration=calibration))
    found = select_search(sure, SearchRequest(text="cat", k=40, cutoff=parse_cutoff("auto")))
    assert 0 < len(found.items) < 41
    export(found, "coco", tmp_path / "cat.json")
    annotations = json.loads((tmp_path / "cat.json").read_text())["annotations"]
    assert [a["probability"] for a in annotations] == [i.probability for i in found.items]
    assert np.mean([a["probability"] for a in annotations]) >= 0.5


@pytest.mark.parametrize("format", list(FORMATS))
def test_nothing_is_overwritten(format: str, searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        export(select_search(searcher, SearchRequest(text="cat")), format, tmp_path / "there")


def _unknown(selection: Selection, to: Path) -> None:
    export(selection, "excel", to)


def _empty(selection: Selection, to: Path) -> None:
    export(replace(selection, items=()), "csv", to)


def _gone(selection: Selection, to: Path) -> None:
    export(replace(selection, items=(replace(selection.items[0], path=to / "gone.jpg"),)), "fiftyone", to)


def _no_size(selection: Selection, to: Path) -> None:
    export(replace(selection, items=(replace(selection.items[0], width=0),)), "coco", to)


@pytest.mark.parametrize(
    ("attempt", "told"),
    [
        (_unknown, "'excel'"),
        (_empty, "'cat'"),
        (_gone, r"gone\.jpg: can't be copied"),
        (_no_size, "does not know its size"),
    ],
)
def test_mistakes(attempt: Callable[[Selection, Path], None], told: str, searcher: Searcher, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        attempt(select_search(searcher, SearchRequest(text="cat", k=1)), tmp_path / "to")
