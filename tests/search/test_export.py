"""Exports are readable by pycocotools, forclip's loaders and FiftyOne's documented layout."""

import contextlib
import csv
import io
import json
import os
import re
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from forclip.calibration.model import Calibration
from forclip.data.formats.coco import load_coco
from forclip.data.formats.csv_labels import load_csv
from forclip.data.verdicts import read_verdicts
from forclip.file_systems import list_files, read_file
from forclip.path_text import path_to_text, text_to_path
from forclip.search.export import FORMATS, export, write_csv, write_fiftyone
from forclip.search.request import SearchRequest, parse_cutoff
from forclip.search.searcher import Searcher
from forclip.search.selection import Item, Selection, select_ids, select_search


@pytest.fixture
def root(searcher: Searcher) -> Path:
    return Path(searcher.search("cat", 1)[0].uri).parent


def test_coco_is_readable_by_pycocotools_and_forclip(searcher: Searcher, root: Path, tmp_path: Path) -> None:
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
    with pytest.raises(ValueError, match="inside the root"):
        select_search(searcher, SearchRequest(text="cat", k=2), root=tmp_path)


def test_csv_is_readable_once_present_is_filled_in(searcher: Searcher, root: Path, tmp_path: Path) -> None:
    export(select_search(searcher, SearchRequest(text="cat", k=4), root=root), "csv", tmp_path / "cat.csv")
    unreviewed = load_csv(tmp_path / "cat.csv", root)
    assert unreviewed.verified is not None
    assert not unreviewed.verified.any()
    assert not unreviewed.labels.any()
    lines = (tmp_path / "cat.csv").read_text().splitlines()
    filled = [line.replace(",cat,,", f",cat,{k % 2},") for k, line in enumerate(lines)]
    (tmp_path / "reviewed.csv").write_text("\n".join(filled))
    reviewed = load_csv(tmp_path / "reviewed.csv", root)
    assert reviewed.labels[:, 0].sum() == 2
    assert reviewed.verified is not None
    assert reviewed.verified.all()


def test_csv_quotes_formulas_and_keeps_own_columns(tmp_path: Path) -> None:
    own = {"camera": "=1+1", "label": "mine"}
    items = (Item("@a", tmp_path / "=a.jpg", 1, 1, present=True, own=own), Item("b", tmp_path / "b.jpg", 1, 1))
    write_csv(Selection(items, "+cat", tmp_path), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as opened:
        first, second = csv.DictReader(opened)
    assert (first["image"], first["label"], first["id"]) == ("./=a.jpg", "'+cat", "'@a")
    assert (first["present"], second["present"]) == ("1", "")
    assert (first["camera"], first["own.label"]) == ("'=1+1", "mine")
    assert (second["camera"], second["own.label"]) == ("", "")


def test_fiftyone_file_names_are_valid_on_every_system(tmp_path: Path) -> None:
    (tmp_path / "..\\up:1.jpg").write_bytes(b"x")
    write_fiftyone(Selection((Item("a", tmp_path / "..\\up:1.jpg", 1, 1),)), tmp_path / "out")
    assert [f.name for f in (tmp_path / "out" / "data").iterdir()] == ["000001_.._up_1.jpg"]
    assert list(json.loads((tmp_path / "out" / "labels.json").read_text())["labels"]) == ["000001_.._up_1"]


def test_a_fiftyone_folder_has_image_files_and_detections(searcher: Searcher, tmp_path: Path) -> None:
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
        # FiftyOne makes these fields of a Detection, so they must not use the names of its own fields.
        assert detection["attributes"] == {"score": result.score, "image_id": result.image_id}


def test_a_file_list_has_one_name_per_line(searcher: Searcher, root: Path, tmp_path: Path) -> None:
    export(select_search(searcher, SearchRequest(text="cat", k=5), root=root), "files", tmp_path / "cat.txt")
    names = (tmp_path / "cat.txt").read_text().splitlines()
    assert names == [Path(r.uri).name for r in searcher.search("cat", 5)]


def test_images_are_selected_by_id(searcher: Searcher, tmp_path: Path) -> None:
    ids = [r.image_id for r in reversed(searcher.search("cat", 4))]
    plain = select_ids(searcher.index, [*ids, ids[0]], "my picks")
    assert [i.image_id for i in plain.items] == ids
    export(plain, "coco", tmp_path / "picks.json")
    content = json.loads((tmp_path / "picks.json").read_text())
    assert (len(content["images"]), content["annotations"]) == (4, [])
    scored = select_ids(searcher.index, ids, query=searcher.encode_text("cat"))
    assert [i.image_id for i in scored.items] == ids[::-1]
    assert scored.items[0].score == searcher.search("cat", 1)[0].score
    with pytest.raises(ValueError, match="'nothing'"):
        select_ids(searcher.index, ["nothing"])
    export(select_ids(searcher.index, ids), "fiftyone", tmp_path / "bare")
    bare = json.loads((tmp_path / "bare" / "labels.json").read_text())
    assert bare["classes"] == []
    assert set(bare["labels"].values()) == {None}


def test_a_calibrated_model_exports_probabilities_up_to_the_cutoff(searcher: Searcher, tmp_path: Path) -> None:
    calibration = Calibration(-1.0, 0.5, 1.5, 0.0, 0.9, 0.2, 0.05, 10, 60, {})
    calibrated = Searcher(searcher.index, replace(searcher.model, calibration=calibration))
    selection = select_search(calibrated, SearchRequest(text="cat", k=40, cutoff=parse_cutoff("auto")))
    assert 0 < len(selection.items) < 41
    export(selection, "coco", tmp_path / "cat.json")
    annotations = json.loads((tmp_path / "cat.json").read_text())["annotations"]
    assert [a["probability"] for a in annotations] == [i.probability for i in selection.items]
    assert np.mean([a["probability"] for a in annotations]) >= 0.5


@pytest.mark.parametrize("format", list(FORMATS))
def test_existing_files_are_not_overwritten(format: str, searcher: Searcher, tmp_path: Path) -> None:
    (tmp_path / "existing").mkdir()
    with pytest.raises(ValueError, match="exists"):
        export(select_search(searcher, SearchRequest(text="cat")), format, tmp_path / "existing")


@pytest.mark.parametrize(
    ("format", "change", "named"),
    [
        ("excel", {}, "'excel'"),
        ("coco", {"width": 0}, "size"),
        ("csv", {"width": 0}, "size"),
    ],
)
def test_a_failed_export_leaves_nothing(
    format: str, change: dict[str, Any], named: str, searcher: Searcher, tmp_path: Path
) -> None:
    selection = select_search(searcher, SearchRequest(text="cat", k=2))
    changed = replace(selection, items=(selection.items[0], replace(selection.items[1], **change)))
    for to in (tmp_path / "out", tmp_path / "new" / "folder" / "out"):
        with pytest.raises(ValueError, match=named):
            export(changed, format, to)
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("format", "path", "named"),
    [
        *((format, "gone.jpg", r"gone\.jpg") for format in ("fiftyone", "yolo", "cvat")),
        ("files", "two\nlines.jpg", "line break"),
    ],
)
def test_an_image_that_cannot_be_exported_is_left_out_and_named(
    format: str, path: str, named: str, searcher: Searcher, tmp_path: Path
) -> None:
    selection = select_search(searcher, SearchRequest(text="cat", k=3))
    gone = replace(selection.items[1], path=tmp_path / path)
    mixed = replace(selection, items=(selection.items[0], gone, selection.items[2]))
    exported = export(mixed, format, tmp_path / "mixed", new=True)
    assert list(exported.left_out) == [gone.image_id]
    assert re.search(named, exported.left_out[gone.image_id])
    assert sum(exported.counts.values()) == 2
    export(selection.without({gone.image_id}), format, tmp_path / "without")

    def content(folder: Path) -> dict[str, bytes]:
        files = [folder] if folder.is_file() else [file for file in folder.rglob("*") if file.is_file()]
        return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.suffix != ".xml"}

    assert content(tmp_path / "mixed") == content(tmp_path / "without")
    again = export(selection, format, tmp_path / "mixed", new=True)
    assert sum(again.counts.values()) == 1, "an image that was left out is new once it is there"
    with pytest.raises(ValueError, match=named):
        export(replace(selection, items=(gone,)), format, tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["record.json", "pictures", "written"])
def test_an_export_may_have_any_name(name: str, searcher: Searcher, tmp_path: Path) -> None:
    for format in ("coco", "yolo"):
        export(select_search(searcher, SearchRequest(text="cat", k=2)), format, tmp_path / format / name)
    assert len(json.loads((tmp_path / "coco" / name).read_text())["images"]) == 2
    assert len(list((tmp_path / "yolo" / name / "images" / "train").iterdir())) == 2


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_leaves_nothing_and_the_next_export_writes(format: str, searcher: Searcher, tmp_path: Path) -> None:
    selection = select_search(searcher, SearchRequest(text="cat", k=3))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for to in (tmp_path / "out", tmp_path / "new" / "out"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # the write of byte 21 fails, as on a full disk
        try:
            with pytest.raises(ValueError, match="can't be"):
                export(selection, format, to)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        assert list(tmp_path.iterdir()) == []
    export(selection, format, tmp_path / "out")


def test_names_that_are_not_utf8_come_back_from_every_format(searcher: Searcher, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = Path(searcher.search("cat", 1)[0].uri).read_bytes()
    paths = [
        Path(os.fsdecode(os.fsencode(folder) + name)) for name in (b"/caf\xe9 \xff.jpg", b"/-m\xfcll.jpg", b"/a.jpg")
    ]
    for path in paths:
        path.write_bytes(picture)
    for root in (None, folder):
        items = tuple(Item(path_to_text(p), p, 100, 80, 0.5, box=(0.1, 0.1, 0.5, 0.5)) for p in paths)
        selection, to = Selection(items, "cat", root), tmp_path / f"from {root is None}"
        for format in FORMATS:
            export(selection, format, to / format)
        assert set(load_coco(to / "coco", folder).paths) == set(paths)
        assert set(load_csv(_fill_in(to / "csv"), folder).paths) == set(paths)
        assert {path for path, _ in read_verdicts(to / "csv", folder)[0]} == set(paths)
        start = folder if root is None else Path()
        listed = [text_to_path(line) for line in (to / "files").read_text("utf-8").splitlines()]
        assert [folder / name for name in listed] == [start / p for p in paths]
        copies = sorted((to / "fiftyone" / "data").iterdir())
        assert all(copy.read_bytes() == picture for copy in copies)
        assert {copy.stem for copy in copies} == set(
            json.loads((to / "fiftyone" / "labels.json").read_text())["labels"]
        )
        assert all(copy.name.isascii() for copy in copies)


def _fill_in(file: Path) -> Path:
    """Mark all images of a CSV export as right."""
    file.write_text(file.read_text("utf-8").replace("cat,,", "cat,1,"), "utf-8")
    return file


def test_an_empty_selection_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'cat'"):
        export(Selection((), "cat"), "csv", tmp_path / "out")


@pytest.mark.parametrize("format", ["coco", "csv", "yolo"])
def test_an_export_to_a_bucket_is_that_to_a_folder(
    format: str, searcher: Searcher, tmp_path: Path, bucket: str
) -> None:
    (tmp_path / "out").mkdir()
    for k in (2, 2, 5):
        selection = select_search(searcher, SearchRequest(text="cat", k=k))
        here = export(selection, format, tmp_path / "out/cat", new=True)
        there = export(selection, format, f"{bucket}/out/cat", new=True)
        assert [path.name for path in there.counts] == [path.name for path in here.counts]
    with pytest.raises(ValueError, match=f"^{bucket}/out/cat: exists already"):
        export(selection, format, f"{bucket}/out/cat")
    files = {f.url.removeprefix(f"{bucket}/"): read_file(f.url) for f in list_files(f"{bucket}/out")}
    local = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert {file.relative_to(tmp_path).as_posix() for file in local} == files.keys()
    for file in local:
        if file.name != "data.yaml":  # names its own folder
            assert files[file.relative_to(tmp_path).as_posix()] == file.read_bytes()
