"""Searching through the API: what Searcher finds, with keys instead of paths, judged, paged and combined."""

import asyncio
import dataclasses
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from threading import get_ident
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from forclip.calibration.model import Calibration, estimate_confidence
from forclip.embedding.regions import overlaps
from forclip.search.combined import CombinedQuery, search_combined
from forclip.search.searcher import Searcher
from forclip.server import limits, pictures
from forclip.server.app import create_app
from forclip.server.gallery import Gallery
from forclip.server.selections import Selections
from forclip.types import Floats
from tests.server.conftest import PICTURES, client_of

JPEG = "image/jpeg"


def asked(client: TestClient, **request: Any) -> dict[str, Any]:
    answer = client.post("/api/search", json=request)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def names(answer: dict[str, Any]) -> list[str]:
    return [result["name"] for result in answer["results"]]


def test_a_text_finds_what_the_searcher_finds(client: TestClient, served: Searcher) -> None:
    answer = asked(client, text="snail", k=7)
    found = served.search("snail", 7)
    assert names(answer) == [Path(r.uri).name for r in found]
    assert [r["score"] for r in answer["results"]] == pytest.approx([r.score for r in found])
    assert [r["rank"] for r in answer["results"]] == list(range(1, 8))
    assert [tuple(r["box"].values()) for r in answer["results"]] == [pytest.approx(r.box) for r in found]
    assert answer["images"] == PICTURES
    assert {r["metadata"]["camera"] for r in answer["results"]} <= {"front", "back"}
    assert answer["confidence"] is None
    assert all(r["probability"] is None for r in answer["results"])


def test_pages_put_together_are_the_list(client: TestClient) -> None:
    whole = asked(client, text="snail", k=30)["results"]
    pages = [asked(client, text="snail", k=10, offset=offset)["results"] for offset in (0, 10, 20)]
    assert [r for page in pages for r in page] == whole
    assert asked(client, text="snail", k=10, offset=PICTURES)["results"] == []


def test_a_filter_a_lowest_score_and_the_exact_mode(client: TestClient) -> None:
    whole = asked(client, text="snail", k=60)
    front = asked(client, text="snail", k=60, where="camera = 'front'")
    assert names(front) == [r["name"] for r in whole["results"] if r["metadata"]["camera"] == "front"]
    bound = whole["results"][4]["score"]
    assert len(asked(client, text="snail", min_score=bound)["results"]) == 5
    assert names(asked(client, text="snail", k=60, exact=True)) == names(whole)


def test_several_texts_are_combined_as_the_library_does(client: TestClient, served: Searcher) -> None:
    answer = asked(client, any_of=["snail", "anchor"], all_of=["drum"], none_of=["cat"], k=60)
    any_of, all_of, none_of = (
        np.stack([served.encode_text(t) for t in texts]) for texts in (["snail", "anchor"], ["drum"], ["cat"])
    )
    expected = search_combined(served.index, CombinedQuery(any_of, all_of, none_of), 60)
    assert names(answer) == [Path(r.uri).name for r in expected[:60]]
    assert names(asked(client, text="snail", any_of=["anchor"])) == names(asked(client, any_of=["snail", "anchor"]))
    assert names(asked(client, any_of=["snail"])) == names(asked(client, text="snail"))


def test_a_list_is_judged_where_the_model_has_a_calibration(served: Searcher, calibration: Calibration) -> None:
    searcher = Searcher(served.index, dataclasses.replace(served.model, calibration=calibration))
    client = client_of(searcher)
    answer = asked(client, text="snail", k=60)
    top = np.array([r.score for r in searcher.search("snail", PICTURES)])
    expected = estimate_confidence(calibration, top, top, PICTURES)
    assert expected is not None
    assert [r["probability"] for r in answer["results"]] == pytest.approx(expected.probabilities.tolist())
    assert answer["confidence"]["cutoff"] == expected.cutoff
    assert answer["confidence"]["expected_images"] == pytest.approx(expected.expected_images)
    assert answer["confidence"]["nothing_here"] == expected.nothing_here
    assert 0 < expected.cutoff < 60, "else the next lines show nothing"
    assert len(asked(client, text="snail", k=60, cutoff="auto")["results"]) == expected.cutoff
    # The page that is asked for does not change what is said.
    assert asked(client, text="snail", k=3, offset=6)["confidence"] == answer["confidence"]
    # Under a filter those that it leaves are the gallery; here too few to say anything.
    assert asked(client, text="snail", where="camera = 'front'")["confidence"] is None


def test_a_cutoff_without_a_calibration_is_refused(client: TestClient) -> None:
    answer = client.post("/api/search", json={"text": "snail", "cutoff": "auto"})
    assert answer.status_code == 400
    assert "cut-off" in answer.json()["detail"]


def test_more_like_an_image_leaves_the_image_out(client: TestClient, served: Searcher) -> None:
    first = asked(client, text="snail", k=1)["results"][0]
    answer = client.post("/api/similar", json={"key": first["key"], "k": 60}).json()
    assert len(answer["results"]) == PICTURES - 1
    assert first["name"] not in names(answer)
    assert [r["rank"] for r in answer["results"]] == list(range(1, PICTURES))


def test_more_like_an_image_asks_by_all_its_vectors(client: TestClient, served: Searcher) -> None:
    first = asked(client, text="snail", k=1)["results"][0]
    uri = served.search("snail", 1)[0].uri
    answer = client.post("/api/similar", json={"key": first["key"], "k": 10}).json()
    found = served.search_image(Image.open(uri).convert("RGB"), 60)
    assert found[0].uri == uri
    assert names(answer) == [Path(r.uri).name for r in found[1:11]]


def test_more_like_a_found_place_asks_by_the_vector_that_looks_there(client: TestClient, served: Searcher) -> None:
    first = asked(client, text="snail", k=1)["results"][0]
    found = served.search("snail", 1)[0]
    answer = client.post("/api/similar", json={"key": first["key"], "box": first["box"], "k": 5}).json()
    vector = served.index.best_vectors([found.image_id], served.encode_text("snail"))[found.image_id]
    expected = [Path(r.uri).name for r in served.index.search(vector / np.linalg.norm(vector), 6) if r.uri != found.uri]
    assert names(answer) == expected[:5]


def test_more_like_a_place_where_no_vector_looks_is_a_search_by_its_crop(client: TestClient, served: Searcher) -> None:
    first = asked(client, text="snail", k=1)["results"][0]
    uri = served.search("snail", 1)[0].uri
    box = {"x0": 0.0, "y0": 0.0, "x1": 0.125, "y1": 0.0625}
    _, places = Gallery(served.index).vectors(int(first["key"]))
    assert overlaps(np.array([0.0, 0.0, 0.125, 0.0625], np.float32), places).max() < 0.3
    answer = client.post("/api/similar", json={"key": first["key"], "box": box, "k": 5}).json()
    crop = Image.open(uri).convert("RGB").crop((0, 0, 28, 14))
    expected = [Path(r.uri).name for r in served.search_image(crop, 6) if r.uri != uri][:5]
    assert names(answer) == expected


def test_an_uploaded_picture_finds_itself(client: TestClient, served: Searcher) -> None:
    uri = served.search("snail", 1)[0].uri
    answer = client.post("/api/similar/upload", files={"picture": ("a.jpg", Path(uri).read_bytes(), JPEG)})
    assert answer.status_code == 200
    expected = [Path(r.uri).name for r in served.search_image(Image.open(uri).convert("RGB"), 50)]
    assert names(answer.json()) == expected
    tiny = BytesIO()
    Image.new("L", (1, 1)).save(tiny, "PNG")
    few = client.post("/api/similar/upload", files={"picture": ("a", tiny.getvalue())}, data={"k": "2", "offset": "1"})
    assert [r["rank"] for r in few.json()["results"]] == [2, 3]


def test_an_uploaded_picture_takes_a_filter_and_a_lowest_score(client: TestClient, served: Searcher) -> None:
    uri = served.search("snail", 1)[0].uri
    whole = served.search_image(Image.open(uri).convert("RGB"), 60)

    def found(**form: str) -> list[dict[str, Any]]:
        files = {"picture": ("a.jpg", Path(uri).read_bytes(), JPEG)}
        answer = client.post("/api/similar/upload", files=files, data={"k": "60", **form})
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    every = found()
    assert len(every) == PICTURES
    front = [r["name"] for r in every if r["metadata"]["camera"] == "front"]
    assert [r["name"] for r in found(where="camera = 'front'")] == front
    assert len(found(min_score=str(whole[6].score - 1e-6))) == 7
    assert found(exact="true") == every


@pytest.mark.parametrize(
    ("form", "status"),
    [({"where": "(("}, 400), ({"min_score": "2"}, 422), ({"min_score": "nan"}, 422), ({"exact": "x"}, 422),
     ({"where": "x" * (limits.WHERE_CHARACTERS + 1)}, 422), ({"k": "0"}, 422), ({"unknown": "1"}, 422)],
)  # fmt: skip
def test_what_is_wrong_beside_an_upload_is_told(client: TestClient, form: dict[str, str], status: int) -> None:
    tiny = BytesIO()
    Image.new("L", (1, 1)).save(tiny, "PNG")
    answer = client.post("/api/similar/upload", files={"picture": ("a", tiny.getvalue())}, data=form)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["detail"]


def test_images_added_and_deleted_meanwhile_count_at_once(client: TestClient, served: Searcher) -> None:
    first = asked(client, text="snail", k=1)["results"][0]
    served.index.delete(f"number = {first['key']}")
    assert first["name"] not in names(asked(client, text="snail", k=60))
    assert client.get(f"/api/image/{first['key']}").status_code == 404
    assert client.get("/api/info").json()["images"] == PICTURES - 1


def test_texts_are_encoded_once(served: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = served.encode_texts

    def noted(texts: Sequence[str]) -> Floats:
        encoded.extend(texts)
        return encode(texts)

    monkeypatch.setattr(served, "encode_texts", noted)
    client = client_of(served)
    for _ in range(3):
        asked(client, text=" snail ", k=2)
    assert encoded == ["snail"]


@pytest.mark.parametrize(
    "other",
    [{"exact": True}, {"where": "width > 0"}, {"offset": 1190, "k": 60}, {"all_of": ["anchor"]}, {"cutoff": "auto"}],
)
def test_quick_searches_and_others_come_together(address: str, served: Searcher, other: dict[str, Any]) -> None:
    """Each is answered as it is alone, whichever threads they run in."""
    bodies = [{"text": "snail", "k": 5}, {"text": "snail", "k": 5, **other}, {"text": "kite", "k": 3, "where": "(("}]

    def answered(body: dict[str, Any]) -> tuple[int, Any]:
        answer = httpx.post(f"{address}api/search", json=body, timeout=30)
        return answer.status_code, answer.json().get("results", answer.json().get("detail"))

    alone = [answered(body) for body in bodies]
    assert alone[2][0] == 400
    expected = [r.score for r in served.search("snail", 5)]
    assert [r["score"] for r in alone[0][1]] == pytest.approx(expected, abs=1e-5)
    if set(other) in ({"exact"}, {"where"}):  # that leaves nothing out
        assert alone[1] == alone[0]
    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(answered, bodies * 3)) == alone * 3


def test_many_at_once_get_each_their_own_list(address: str, served: Searcher) -> None:
    texts = ["snail", "anchor", "drum", "cat", "red umbrella", "a small bicycle", "two dogs", "kite"]

    def found(text: str) -> list[float]:
        answer = httpx.post(f"{address}api/search", json={"text": text, "k": 5}, timeout=30)
        assert answer.status_code == 200
        return [result["score"] for result in answer.json()["results"]]

    with ThreadPoolExecutor(16) as pool:
        lists = list(pool.map(found, texts * 3))
    expected = [[r.score for r in served.search(text, 5)] for text in texts] * 3
    np.testing.assert_allclose(lists, expected, atol=1e-5)


ROUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/api/search", {"json": {"text": "snail", "where": "width > 0"}}),
    ("POST", "/api/search", {"json": {"text": "kite"}}),
    ("POST", "/api/search", {"json": {"text": "kite", "any_of": ["drum"]}}),
    ("POST", "/api/similar", {"json": {"key": "KEY"}}),
    ("POST", "/api/similar", {"json": {"key": "KEY", "box": {"x0": 0, "y0": 0, "x1": 0.2, "y1": 0.1}}}),
    ("POST", "/api/similar/upload", {"files": {"picture": ("a", b"PICTURE")}}),
    ("POST", "/api/look", {"json": {"key": "KEY", "text": "snail"}}),
    ("POST", "/api/export", {"json": {"text": "snail", "format": "csv"}}),
    ("POST", "/api/export/verdicts", {"json": {"label": "snail", "right": ["KEY"]}}),
    ("POST", "/api/selections", {"json": {"name": "mine", "keys": ["KEY"]}}),
    ("GET", "/api/selections/mine", {}),
    ("GET", "/api/selections/mine/export?text=snail", {}),
    ("POST", "/api/selections/mine/add", {"json": {"keys": ["KEY"]}}),
    ("POST", "/api/selections/mine/remove", {"json": {"keys": ["KEY"]}}),
    ("DELETE", "/api/selections/mine", {}),
    ("GET", "/api/selections", {}),
    ("GET", "/api/image/KEY", {}),
    ("GET", "/api/thumbnail/KEY", {}),
    ("GET", "/api/classes", {}),
    ("GET", "/api/info", {}),
    ("GET", "/metrics", {}),
    ("GET", "/login", {}),
    ("GET", "/", {}),
]


def test_no_route_blocks_the_event_loop(served: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that opens the store, a picture or a selection must run in another thread than the event loop."""
    loop_threads: set[int] = set()
    blocked: list[str] = []

    def guard(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def guarded(*args: Any, **options: Any) -> Any:
            if get_ident() in loop_threads:
                blocked.append(name)
            return call(*args, **options)

        monkeypatch.setattr(owner, name, guarded)

    guard(served.index, "view")
    guard(served.index, "info")
    guard(served.index.store, "table")
    guard(served.model.backbone, "encode_text")
    guard(pictures, "picture_bytes")
    guard(Selections, "all")
    first = served.search("snail", 1)[0]
    app = create_app(served)
    paths = {route for route in app.openapi()["paths"] if route != "/health"}
    templates = {re.sub(r"KEY", "{key}", re.sub(r"mine", "{name}", path.split("?")[0])) for _, path, _ in ROUTES}
    assert paths == templates, "each route is tried"

    async def run() -> None:
        loop_threads.add(get_ident())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            for method, path, options in ROUTES:
                filled = json.loads(json.dumps(options.get("json")).replace("KEY", str(first.key)))
                files = {"picture": ("a", Path(first.uri).read_bytes())} if "files" in options else None
                answer = await client.request(method, path.replace("KEY", str(first.key)), json=filled, files=files)
                assert answer.status_code < 400, (path, answer.text)

    with ThreadPoolExecutor(1) as thread:  # this thread may run a loop of its own, for the browser tests
        thread.submit(asyncio.run, run()).result()
    assert blocked == []
