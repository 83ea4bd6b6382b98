"""Search routes return what the library returns, with keys instead of paths."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
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
from forclip.server import limits
from forclip.server.gallery import Gallery
from forclip.types import Floats
from tests.server.conftest import PICTURES, client_of, search

JPEG = "image/jpeg"


def names(answer: dict[str, Any]) -> list[str]:
    return [result["name"] for result in answer["results"]]


def test_a_text_search_returns_the_searchers_results(client: TestClient, served: Searcher) -> None:
    answer = search(client, text="snail", k=7)
    expected = served.search("snail", 7)
    assert names(answer) == [Path(r.uri).name for r in expected]
    assert [r["score"] for r in answer["results"]] == pytest.approx([r.score for r in expected])
    assert [r["rank"] for r in answer["results"]] == list(range(1, 8))
    assert [tuple(r["box"].values()) for r in answer["results"]] == [pytest.approx(r.box) for r in expected]
    assert answer["images"] == PICTURES
    assert {r["metadata"]["camera"] for r in answer["results"]} <= {"front", "back"}
    assert answer["confidence"] is None
    assert all(r["probability"] is None for r in answer["results"])


def test_consecutive_pages_equal_the_whole_list(client: TestClient) -> None:
    whole = search(client, text="snail", k=30)["results"]
    pages = [search(client, text="snail", k=10, offset=offset)["results"] for offset in (0, 10, 20)]
    assert [r for page in pages for r in page] == whole
    assert search(client, text="snail", k=10, offset=PICTURES)["results"] == []


def test_filter_minimum_score_and_exact_mode(client: TestClient) -> None:
    whole = search(client, text="snail", k=60)
    front = search(client, text="snail", k=60, where="camera = 'front'")
    assert names(front) == [r["name"] for r in whole["results"] if r["metadata"]["camera"] == "front"]
    bound = whole["results"][4]["score"]
    assert len(search(client, text="snail", min_score=bound)["results"]) == 5
    assert names(search(client, text="snail", k=60, exact=True)) == names(whole)


def test_several_texts_are_combined_as_in_the_library(client: TestClient, served: Searcher) -> None:
    answer = search(client, any_of=["snail", "anchor"], all_of=["drum"], none_of=["cat"], k=60)
    any_of, all_of, none_of = (
        np.stack([served.encode_text(t) for t in texts]) for texts in (["snail", "anchor"], ["drum"], ["cat"])
    )
    expected = search_combined(served.index, CombinedQuery(any_of, all_of, none_of), 60)
    assert names(answer) == [Path(r.uri).name for r in expected[:60]]
    assert names(search(client, text="snail", any_of=["anchor"])) == names(search(client, any_of=["snail", "anchor"]))
    assert names(search(client, any_of=["snail"])) == names(search(client, text="snail"))


def test_a_calibrated_model_gives_probabilities_and_a_cutoff(served: Searcher, calibration: Calibration) -> None:
    searcher = Searcher(served.index, dataclasses.replace(served.model, calibration=calibration))
    client = client_of(searcher)
    answer = search(client, text="snail", k=60)
    top = np.array([r.score for r in searcher.search("snail", PICTURES)])
    expected = estimate_confidence(calibration, top, top, PICTURES)
    assert expected is not None
    assert [r["probability"] for r in answer["results"]] == pytest.approx(expected.probabilities.tolist())
    assert answer["confidence"]["cutoff"] == expected.cutoff
    assert answer["confidence"]["expected_images"] == pytest.approx(expected.expected_images)
    assert answer["confidence"]["nothing_here"] == expected.nothing_here
    assert 0 < expected.cutoff < 60, "the next lines need a cut-off inside the list"
    assert len(search(client, text="snail", k=60, cutoff="auto")["results"]) == expected.cutoff
    # The confidence does not depend on the page.
    assert search(client, text="snail", k=3, offset=6)["confidence"] == answer["confidence"]
    # Under a filter the gallery is the images it keeps, here too few for an estimate.
    assert search(client, text="snail", where="camera = 'front'")["confidence"] is None


def test_a_cutoff_without_a_calibration_is_refused(client: TestClient) -> None:
    response = client.post("/api/search", json={"text": "snail", "cutoff": "auto"})
    assert response.status_code == 400
    assert "cut-off" in response.json()["detail"]


def test_similar_images_exclude_the_query_image(client: TestClient) -> None:
    first = search(client, text="snail", k=1)["results"][0]
    answer = client.post("/api/similar", json={"key": first["key"], "k": 60}).json()
    assert len(answer["results"]) == PICTURES - 1
    assert first["name"] not in names(answer)
    assert [r["rank"] for r in answer["results"]] == list(range(1, PICTURES))


def test_similar_to_an_image_uses_all_its_vectors(client: TestClient, served: Searcher) -> None:
    first = search(client, text="snail", k=1)["results"][0]
    uri = served.search("snail", 1)[0].uri
    answer = client.post("/api/similar", json={"key": first["key"], "k": 10}).json()
    expected = served.search_image(Image.open(uri).convert("RGB"), 60)
    assert expected[0].uri == uri
    assert names(answer) == [Path(r.uri).name for r in expected[1:11]]


def test_similar_to_a_result_region_uses_that_regions_vector(client: TestClient, served: Searcher) -> None:
    first = search(client, text="snail", k=1)["results"][0]
    best = served.search("snail", 1)[0]
    answer = client.post("/api/similar", json={"key": first["key"], "box": first["box"], "k": 5}).json()
    vector = served.index.best_vectors([best.image_id], served.encode_text("snail"))[best.image_id]
    expected = [Path(r.uri).name for r in served.index.search(vector / np.linalg.norm(vector), 6) if r.uri != best.uri]
    assert names(answer) == expected[:5]


def test_similar_to_a_region_without_a_vector_searches_by_its_crop(client: TestClient, served: Searcher) -> None:
    first = search(client, text="snail", k=1)["results"][0]
    uri = served.search("snail", 1)[0].uri
    box = {"x0": 0.0, "y0": 0.0, "x1": 0.125, "y1": 0.0625}
    _, boxes = Gallery(served.index).vectors(int(first["key"]))
    assert overlaps(np.array([0.0, 0.0, 0.125, 0.0625], np.float32), boxes).max() < 0.3
    answer = client.post("/api/similar", json={"key": first["key"], "box": box, "k": 5}).json()
    crop = Image.open(uri).convert("RGB").crop((0, 0, 28, 14))
    expected = [Path(r.uri).name for r in served.search_image(crop, 6) if r.uri != uri][:5]
    assert names(answer) == expected


def test_an_uploaded_picture_finds_itself(client: TestClient, served: Searcher) -> None:
    uri = served.search("snail", 1)[0].uri
    response = client.post("/api/similar/upload", files={"picture": ("a.jpg", Path(uri).read_bytes(), JPEG)})
    assert response.status_code == 200
    expected = [Path(r.uri).name for r in served.search_image(Image.open(uri).convert("RGB"), 50)]
    assert names(response.json()) == expected
    tiny = BytesIO()
    Image.new("L", (1, 1)).save(tiny, "PNG")
    few = client.post("/api/similar/upload", files={"picture": ("a", tiny.getvalue())}, data={"k": "2", "offset": "1"})
    assert [r["rank"] for r in few.json()["results"]] == [2, 3]


def test_an_upload_accepts_a_filter_and_a_minimum_score(client: TestClient, served: Searcher) -> None:
    uri = served.search("snail", 1)[0].uri
    whole = served.search_image(Image.open(uri).convert("RGB"), 60)

    def upload(**form: str) -> list[dict[str, Any]]:
        files = {"picture": ("a.jpg", Path(uri).read_bytes(), JPEG)}
        response = client.post("/api/similar/upload", files=files, data={"k": "60", **form})
        assert response.status_code == 200, response.text
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    results = upload()
    assert len(results) == PICTURES
    front = [r["name"] for r in results if r["metadata"]["camera"] == "front"]
    assert [r["name"] for r in upload(where="camera = 'front'")] == front
    assert len(upload(min_score=str(whole[6].score - 1e-6))) == 7
    assert upload(exact="true") == results


@pytest.mark.parametrize(
    ("form", "status"),
    [({"where": "(("}, 400), ({"min_score": "2"}, 422), ({"min_score": "nan"}, 422), ({"exact": "x"}, 422),
     ({"where": "x" * (limits.WHERE_CHARACTERS + 1)}, 422), ({"k": "0"}, 422), ({"unknown": "1"}, 422)],
)  # fmt: skip
def test_an_upload_with_an_invalid_field_is_refused(client: TestClient, form: dict[str, str], status: int) -> None:
    tiny = BytesIO()
    Image.new("L", (1, 1)).save(tiny, "PNG")
    response = client.post("/api/similar/upload", files={"picture": ("a", tiny.getvalue())}, data=form)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["detail"]


def test_a_deleted_image_disappears_at_once(client: TestClient, served: Searcher) -> None:
    first = search(client, text="snail", k=1)["results"][0]
    served.index.delete_ids(Gallery(served.index).ids_of_keys([first["key"]]))
    assert first["name"] not in names(search(client, text="snail", k=60))
    assert client.get(f"/api/image/{first['key']}").status_code == 404
    assert client.get("/api/info").json()["images"] == PICTURES - 1


def test_a_repeated_text_is_encoded_once(served: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = served.encode_texts

    def record(texts: Sequence[str]) -> Floats:
        encoded.extend(texts)
        return encode(texts)

    monkeypatch.setattr(served, "encode_texts", record)
    client = client_of(served)
    for _ in range(3):
        search(client, text=" snail ", k=2)
    assert encoded == ["snail"]


@pytest.mark.parametrize(
    "other",
    [{"exact": True}, {"where": "width > 0"}, {"offset": 1190, "k": 60}, {"all_of": ["anchor"]}, {"cutoff": "auto"}],
)
def test_concurrent_quick_and_slow_searches_do_not_mix(address: str, served: Searcher, other: dict[str, Any]) -> None:
    """Each request gets the answer that it gets alone."""
    bodies = [{"text": "snail", "k": 5}, {"text": "snail", "k": 5, **other}, {"text": "kite", "k": 3, "where": "(("}]

    def post(body: dict[str, Any]) -> tuple[int, Any]:
        response = httpx.post(f"{address}api/search", json=body, timeout=30)
        return response.status_code, response.json().get("results", response.json().get("detail"))

    alone = [post(body) for body in bodies]
    assert alone[2][0] == 400
    expected = [r.score for r in served.search("snail", 5)]
    assert [r["score"] for r in alone[0][1]] == pytest.approx(expected, abs=1e-5)
    if set(other) in ({"exact"}, {"where"}):  # this filter keeps every image
        assert alone[1] == alone[0]
    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(post, bodies * 3)) == alone * 3


def test_concurrent_searches_each_get_their_own_results(address: str, served: Searcher) -> None:
    texts = ["snail", "anchor", "drum", "cat", "red umbrella", "a small bicycle", "two dogs", "kite"]

    def scores(text: str) -> list[float]:
        response = httpx.post(f"{address}api/search", json={"text": text, "k": 5}, timeout=30)
        assert response.status_code == 200
        return [result["score"] for result in response.json()["results"]]

    with ThreadPoolExecutor(16) as pool:
        lists = list(pool.map(scores, texts * 3))
    expected = [[r.score for r in served.search(text, 5)] for text in texts] * 3
    np.testing.assert_allclose(lists, expected, atol=1e-5)
