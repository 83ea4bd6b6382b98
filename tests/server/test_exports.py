"""Exports of search results, selections and verdicts, read back in every format."""

import csv
import json
import re
import tempfile
import zipfile
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi.testclient import TestClient

from forclip.calibration.model import Calibration
from forclip.data.formats.coco import load_coco
from forclip.data.verdicts import read_verdicts
from forclip.search.export import export as write
from forclip.search.request import SearchRequest
from forclip.search.searcher import Searcher
from forclip.search.selection import select_search
from forclip.server import limits
from forclip.server.gallery import StoredImage
from tests.server.conftest import HOSTILE_VALUE, client_of, search_keys


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder for temporary files, which an export must leave empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def export(client: TestClient, **request: Any) -> bytes:
    response = client.post("/api/export", json=request)
    assert response.status_code == 200, response.text
    assert response.headers["content-disposition"].startswith("attachment")
    return response.content


def test_results_as_coco_have_boxes_and_scores(client: TestClient, served: Searcher, tmp_path: Path) -> None:
    content = export(client, text="snail", k=7, format="coco")
    results = served.search("snail", 7)
    (tmp_path / "list.json").write_bytes(content)
    coco = json.loads(content)
    assert [i["file_name"] for i in coco["images"]] == [r.uri for r in results]
    assert [c["name"] for c in coco["categories"]] == ["snail"]
    for result, image, annotation in zip(results, coco["images"], coco["annotations"], strict=True):
        assert result.box is not None
        x0, y0, x1, y1 = result.box
        sides = image["width"], image["height"]
        assert annotation["image_id"] == image["id"]
        assert annotation["bbox"] == pytest.approx(
            [x0 * sides[0], y0 * sides[1], (x1 - x0) * sides[0], (y1 - y0) * sides[1]], abs=0.02
        )
        assert annotation["score"] == pytest.approx(result.score)
    # forclip's own loader needs relative names.
    for image in coco["images"]:
        image["file_name"] = Path(image["file_name"]).name
    (tmp_path / "own.json").write_text(json.dumps(coco))
    assert load_coco(tmp_path / "own.json", Path(results[0].uri).parent).labels.sum() == 7


def test_an_export_holds_the_results_of_the_search(
    client: TestClient, served: Searcher, calibration: Calibration
) -> None:
    first = search_keys(client, 3)
    for request in (
        {"text": "snail", "where": "camera = 'front'", "k": 9, "offset": 2},
        {"text": "snail", "right": first[:1], "wrong": first[1:], "k": 60},
        {"any_of": ["snail", "anchor"], "none_of": ["drum"], "k": 60},
        {"text": "snail", "min_score": served.search("snail", 5)[4].score},
    ):
        shown = [r["name"] for r in client.post("/api/search", json=request).json()["results"]]
        lines = export(client, **request, format="files").decode().splitlines()
        assert [Path(line).name for line in lines] == shown
    calibrated = client_of(Searcher(served.index, replace(served.model, calibration=calibration)))
    response = calibrated.post("/api/search", json={"text": "snail", "k": 60, "cutoff": "auto"}).json()
    rows = list(csv.DictReader(StringIO(export(calibrated, text="snail", k=60, cutoff="auto").decode())))
    assert 0 < len(rows) == response["confidence"]["cutoff"] < 60
    assert [float(row["probability"]) for row in rows] == pytest.approx(
        [r["probability"] for r in response["results"]], abs=1e-4
    )


def test_lists_like_an_image_a_region_and_an_upload_are_exported(client: TestClient, served: Searcher) -> None:
    """In every format, equal to the list that the search returns, with its regions where there is a label."""
    key = search_keys(client, 1)[0]
    picture = Path(served.search("anchor", 1)[0].uri).read_bytes()
    region = {"x0": 0.1, "y0": 0.1, "x1": 0.6, "y1": 0.7}

    def send(path: str, body: dict[str, Any], k: int = 7, **fields: Any) -> bytes:
        if body:
            response = client.post(f"/api/{path}", json={**body, "k": k, **fields})
        else:
            files = {"picture": ("a fine.jpg", picture)}
            response = client.post(f"/api/{path}", files=files, data={"k": k, **fields})
        assert response.status_code == 200, response.text
        return response.content

    like = {"key": key}
    for body in (
        like,
        {**like, "box": region},
        {**like, "right": search_keys(client, 2)},
        {"keys": search_keys(client, 3)},
        {},
    ):
        searched, path = ("similar", "export/similar") if body else ("similar/upload", "export/upload")
        shown = json.loads(send(searched, body))["results"]
        rows = list(csv.DictReader(StringIO(send(path, body).decode())))
        assert [Path(row["image"]).name for row in rows] == [r["name"] for r in shown]
        assert {(row["label"], row["present"]) for row in rows} == {("", "")}
        names = send(path, body, format="files").decode().splitlines()
        coco = json.loads(send(path, body, format="coco", label="shell"))
        assert [i["file_name"] for i in coco["images"]] == names
        assert [a["score"] for a in coco["annotations"]] == pytest.approx([r["score"] for r in shown])
        tasks = json.loads(send(path, body, format="labelstudio", label="shell"))
        assert [task["data"]["label"] for task in tasks] == ["shell"] * 7
        for format in ("cvat", "fiftyone", "yolo"):
            zipped = zipfile.ZipFile(BytesIO(send(path, body, k=2, format=format, label="shell")))
            assert sum(name.endswith((".jpg", ".png")) for name in zipped.namelist()) == 2
    assert client.post("/api/export/similar", json={"key": key, "format": "yolo"}).status_code == 409, "without a class"


def test_a_list_is_exported_down_to_a_probability_and_without_some(
    client: TestClient, served: Searcher, calibration: Calibration
) -> None:
    calibrated = client_of(Searcher(served.index, replace(served.model, calibration=calibration)))
    results = calibrated.post("/api/search", json={"text": "snail", "k": 60}).json()["results"]
    least = results[24]["probability"]
    kept = [r for r in results if r["probability"] >= least][1:]
    assert 20 < len(kept) < 59
    request = {"text": "snail", "k": limits.K, "min_probability": least, "leave_out": [results[0]["key"]]}
    lines = export(calibrated, **request, format="files").decode().splitlines()
    assert [Path(line).name for line in lines] == [r["name"] for r in kept]
    refused = client.post("/api/export", json=request)
    assert (refused.status_code, "probabilities" in refused.json()["detail"]) == (400, True)


def test_the_file_is_named_for_what_it_holds(client: TestClient, served: Searcher) -> None:
    key, picture = search_keys(client, 1)[0], Path(served.search("snail", 1)[0].uri)
    client.post("/api/selections", json={"name": "wet roads", "keys": [key]})

    def name(method: str, path: str, **options: Any) -> str:
        response = client.request(method, f"/api/{path}", **options)
        assert response.status_code == 200, response.text
        return response.headers["content-disposition"].removeprefix("attachment; ")

    stem = re.sub(r"\W+", "_", picture.stem)
    assert name("POST", "export", json={"text": 'a "red"/../umbrella'}) == 'filename="a_red_umbrella_results.csv"'
    assert (
        name("POST", "export", json={"text": "café", "format": "coco"})
        == "filename*=utf-8''caf%C3%A9_results_coco.json"
    )
    assert name("POST", "export/similar", json={"key": key}) == f'filename="like_{stem}.csv"'
    assert name("POST", "export/similar", json={"keys": search_keys(client, 2)}) == 'filename="like_2_images.csv"'
    upload = {"files": {"picture": ("my cat.jpg", picture.read_bytes())}, "data": {"format": "files"}}
    assert name("POST", "export/upload", **upload) == 'filename="like_my_cat.txt"'
    assert name("POST", "export/verdicts", json={"label": "cat", "right": [key]}) == 'filename="cat_verdicts.csv"'
    assert name("GET", "selections/wet roads/export?format=fiftyone") == 'filename="wet_roads_selection_fiftyone.zip"'


def test_the_label_is_the_query_unless_given(client: TestClient) -> None:
    def label(**request: Any) -> str:
        return next(csv.DictReader(StringIO(export(client, k=1, **request).decode())))["label"]

    assert label(text="snail") == "snail"
    assert label(text="snail", label="garden snail") == "garden snail"
    assert label(any_of=["snail", "anchor"], all_of=["drum"], none_of=["cat"]) == "snail or anchor and drum not cat"
    assert label(text="=1+1") == "'=1+1"


def test_a_fiftyone_zip_holds_the_image_files(client: TestClient, served: Searcher, temporary: Path) -> None:
    zipped = zipfile.ZipFile(BytesIO(export(client, text="snail", k=3, format="fiftyone")))
    assert zipped.testzip() is None
    labels = json.loads(zipped.read("labels.json"))
    pictures = sorted(name for name in zipped.namelist() if name.startswith("data/"))
    assert [Path(name).stem for name in pictures] == sorted(labels["labels"])
    for result, name in zip(served.search("snail", 3), pictures, strict=True):
        assert zipped.read(name) == Path(result.uri).read_bytes()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("format", ["cvat", "yolo"])
def test_a_zip_for_a_labelling_tool_is_what_the_command_writes(
    format: str, client: TestClient, served: Searcher, tmp_path: Path
) -> None:
    zipped = zipfile.ZipFile(BytesIO(export(client, text="snail", k=3, format=format)))
    write(select_search(served, SearchRequest(text="snail", k=3)), format, tmp_path / "out")
    written = {p.relative_to(tmp_path / "out").as_posix(): p for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert sorted(zipped.namelist()) == sorted(written)
    assert {name: zipped.read(name) for name in written} == {name: p.read_bytes() for name, p in written.items()}


def test_label_studio_tasks_are_what_the_command_writes(client: TestClient, served: Searcher, tmp_path: Path) -> None:
    tasks = json.loads(export(client, text="snail", k=3, format="labelstudio"))
    write(select_search(served, SearchRequest(text="snail", k=3)), "labelstudio", tmp_path / "out.json")
    assert tasks == json.loads((tmp_path / "out.json").read_text())


def test_too_large_or_changed_pictures_are_not_exported(
    own_pictures: tuple[Searcher, Path], temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher, pictures = own_pictures
    client = client_of(searcher)
    monkeypatch.setattr(limits, "EXPORTED_BYTES", 10)
    assert client.post("/api/export", json={"text": "snail", "format": "fiftyone"}).status_code == 413
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    files = sorted(pictures.glob("*.jpg"))
    files[0].write_bytes(b"other")
    response = client.post("/api/export", json={"text": "snail", "format": "fiftyone"})
    assert response.status_code == 200
    said = unquote(response.headers["forclip-left-out"])
    assert said.startswith(f"1 left out, the first: {files[0].name}")
    with zipfile.ZipFile(BytesIO(response.content)) as zipped:
        assert len([name for name in zipped.namelist() if name.startswith("data/")]) == 2
    for file in pictures.iterdir():
        file.unlink()
    refused = client.post("/api/export", json={"text": "snail", "format": "fiftyone"})
    assert refused.status_code == 409
    assert ": the picture's file no longer exists" in refused.json()["detail"]
    assert str(pictures) not in said + refused.text
    assert list(temporary.iterdir()) == []
    assert client.post("/api/export", json={"text": "snail", "format": "coco"}).status_code == 200


def test_a_selection_is_exported_in_every_format(client: TestClient, served: Searcher) -> None:
    three = search_keys(client, 3)
    client.post("/api/selections", json={"name": "p", "keys": three[::-1]})
    uris = [r.uri for r in served.search("snail", 3)]
    path = "/api/selections/p/export"
    assert client.get(f"{path}?format=files").text.splitlines() == uris[::-1], "in the order of selection"
    rows = list(csv.DictReader(StringIO(client.get(path).text)))
    assert [(r["image"], r["label"], r["present"], r["x"]) for r in rows] == [(uri, "", "", "") for uri in uris[::-1]]
    assert {r["remark"] for r in rows} <= {HOSTILE_VALUE, "'=1+1"}, "formulas are quoted"
    assert {r["camera"] for r in rows} <= {"front", "back"}
    without_text = client.get(f"{path}?format=coco").json()
    assert (len(without_text["images"]), without_text["annotations"], without_text["categories"]) == (3, [], [])
    with_text = client.get(f"{path}?format=coco&text=snail").json()
    assert with_text == json.loads(export(client, text="snail", k=3, format="coco")), "boxes for the text, best first"
    zipped = zipfile.ZipFile(BytesIO(client.get(f"{path}?format=fiftyone").content))
    assert len(zipped.namelist()) == 4
    assert client.get(f"{path}?format=yolo").status_code == 409, "a class needs a name"
    assert client.get(f"{path}?format=exe").status_code == 422
    assert client.get(f"{path}?text=%20").status_code == 422
    client.post("/api/selections", json={"name": "empty"})
    assert client.get("/api/selections/empty/export").status_code == 404


def test_exported_verdicts_can_be_read_for_training(client: TestClient, served: Searcher, tmp_path: Path) -> None:
    a, b, c = search_keys(client, 3)
    response = client.post("/api/export/verdicts", json={"label": "garden, snail", "right": [c, a], "wrong": [b]})
    (tmp_path / "verdicts.csv").write_bytes(response.content)
    uris = [Path(r.uri) for r in served.search("snail", 3)]
    assert read_verdicts(tmp_path / "verdicts.csv", tmp_path)[0] == {
        (uri, "garden, snail"): right for uri, right in zip(uris, (True, False, True), strict=True)
    }


@pytest.mark.parametrize(
    ("path", "request_", "status"),
    [
        ("", {"text": "snail", "format": "exe"}, 422),
        ("", {"format": "csv"}, 422),
        ("", {"text": "snail", "k": limits.K + 1}, 422),
        ("", {"text": "snail", "where": "(("}, 400),
        ("", {"text": "snail", "where": "camera = 'none'"}, 404),
        ("/verdicts", {"label": "snail"}, 422),
        ("/verdicts", {"label": " ", "right": ["1"]}, 422),
        ("/verdicts", {"label": "snail", "right": ["1"], "wrong": ["1"]}, 422),
        ("/verdicts", {"label": "snail", "right": ["1"]}, 404),
    ],
)
def test_an_invalid_export_is_refused(client: TestClient, path: str, request_: dict[str, Any], status: int) -> None:
    response = client.post(f"/api/export{path}", json=request_)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]


@pytest.mark.parametrize(
    ("format", "status"),
    [
        *((format, 409) for format in ("coco", "csv", "cvat", "labelstudio")),
        *((format, 200) for format in ("fiftyone", "files", "yolo")),
    ],
)
def test_formats_with_pixel_boxes_need_the_image_size(
    served: Searcher, monkeypatch: pytest.MonkeyPatch, format: str, status: int
) -> None:
    file = vars(StoredImage)["file"].fget
    monkeypatch.setattr(StoredImage, "file", property(lambda image: replace(file(image), width=0)))
    response = client_of(served).post("/api/export", json={"text": "snail", "k": 1, "format": format})
    assert response.status_code == status
    if status == 409:
        assert "/" not in response.json()["detail"]
