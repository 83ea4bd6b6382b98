"""The map of the collection: computed once for each state of the store, kept beside it, with scores of a search."""

import time
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from forclip.index.embedding_map import arrange_points, map_points
from forclip.index.image_index import Index
from forclip.search.searcher import Searcher
from forclip.server import limits, map_routes
from forclip.server.gallery import Gallery
from forclip.server.map_routes import EmbeddingMap, MapFile
from tests.server.conftest import client_of, search, search_keys


def read_map(client: TestClient) -> dict[str, Any]:
    """Ask until the map is there."""
    for _ in range(500):
        content: dict[str, Any] = client.get("/api/map").json()
        if content["state"] != "computing":
            return content
        time.sleep(0.02)
    raise AssertionError("the map is not ready")


def test_the_map_has_a_point_for_each_image(client: TestClient, served: Searcher) -> None:
    found = read_map(client)
    assert (found["state"], found["images"]) == ("ready", 60)
    keys, means = served.index.mean_vectors(100)
    assert found["keys"] == [str(key) for key in keys]
    points = np.stack([found["x"], found["y"]], axis=1)
    assert found["method"] == "tsne"
    assert points == pytest.approx(arrange_points(means), abs=1e-3)
    names = {str(r.key): Path(r.uri).name for r in served.search("snail", 60)}
    assert found["names"] == [names[key] for key in found["keys"]]


def test_a_first_map_is_there_while_a_better_one_is_computed(
    client: TestClient, served: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    arranged = Event()

    def arrange(means: Any) -> Any:
        assert arranged.wait(30)
        return arrange_points(means)

    monkeypatch.setattr(map_routes, "arrange_points", arrange)
    for _ in range(500):
        if (found := client.get("/api/map").json())["keys"]:
            break
        time.sleep(0.02)
    assert (found["state"], found["method"]) == ("computing", "pca")
    _, means = served.index.mean_vectors(100)
    assert np.stack([found["x"], found["y"]], axis=1) == pytest.approx(map_points(means), abs=1e-3)
    arranged.set()
    assert read_map(client)["method"] == "tsne"


def test_a_map_is_computed_once_and_again_when_the_store_changed(
    served: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []

    def counting(means: Any) -> Any:
        computed.append(len(means))
        return map_points(means)

    monkeypatch.setattr(map_routes, "map_points", counting)
    monkeypatch.setattr(map_routes, "_REST", 0)
    with client_of(served) as client:
        first = read_map(client)
    with client_of(Searcher(Index(served.index.store.folder), served.model)) as client:
        assert read_map(client) == first
        assert computed == [60]
        served.index.delete_ids([served.search("snail", 1)[0].image_id])
        assert client.get("/api/map").json()["state"] == "computing"
        assert read_map(client)["images"] == 59
        assert computed == [60, 59]


def test_a_large_store_is_sampled(served: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAPPED", 20)
    found = read_map(client_of(served))
    assert 0 < len(found["keys"]) < 40
    assert found["images"] == 60


def test_a_damaged_or_unwritable_file_is_no_obstacle(
    served: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (served.index.state_folder / "map.arrow").write_bytes(b"no map")
    monkeypatch.setattr(MapFile, "write", lambda self, made: (_ for _ in ()).throw(OSError("read-only")))
    assert len(read_map(client_of(served))["keys"]) == 60


def test_a_failure_is_reported_and_searches_go_on(served: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_routes, "map_points", lambda means: 1 / 0)
    client = client_of(served)
    assert read_map(client) == {
        "state": "failed",
        "method": "pca",
        "images": 60,
        "keys": [],
        "names": [],
        "x": [],
        "y": [],
    }
    assert search(client, text="snail")["results"]


def test_one_of_several_workers_computes(served: Searcher, tmp_path: Path) -> None:
    gallery, folder = Gallery(served.index), tmp_path / "shared"
    folder.mkdir()
    first, second = (MapFile(served.index.state_folder, folder) for _ in range(2))
    assert first.claim()
    waiting = EmbeddingMap(gallery, second)
    assert waiting.current().state == "computing"
    waiting.stop()
    first.release()
    working = EmbeddingMap(gallery, first)
    working.current()
    while working.current().state == "computing":
        time.sleep(0.02)
    assert waiting.current().keys == working.current().keys != []


def test_scores_are_those_of_the_search(client: TestClient) -> None:
    read_map(client)
    (key,) = search_keys(client, 1)
    searches: list[dict[str, Any]] = [
        {"search": {"text": "snail"}},
        {"search": {"any_of": ["snail"], "where": "camera = 'front'"}},
        {"search": {"text": "snail", "wrong": [key]}},
        {"similar": {"key": key}},
        {"similar": {"keys": search_keys(client, 3)}},
    ]
    for body in searches:
        (kind,) = body
        results = client.post(f"/api/{kind}", json={**body[kind], "k": 60}).json()["results"]
        content = client.post("/api/map/scores", json=body).json()
        assert content["scores"] == pytest.approx({r["key"]: r["score"] for r in results})
        assert (content["listed"], content["complete"]) == (len(results), True)


def test_scores_of_several_texts_order_as_the_list_does(client: TestClient) -> None:
    read_map(client)
    texts = {"any_of": ["snail", "anchor"], "none_of": ["drum"]}
    keys = [r["key"] for r in search(client, **texts, k=60)["results"]]
    scores = client.post("/api/map/scores", json={"search": texts}).json()["scores"]
    assert sorted(scores, key=lambda key: -scores[key]) == keys


def test_scores_need_one_search(client: TestClient) -> None:
    bodies: list[dict[str, Any]] = [
        {},
        {"search": {"text": "a"}, "similar": {"key": "1"}},
        {"search": {}},
        {"other": 1},
    ]
    for body in bodies:
        assert client.post("/api/map/scores", json=body).status_code == 422
    assert client.post("/api/map/scores", json={"similar": {"key": "777"}}).status_code == 404
