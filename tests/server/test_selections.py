"""Selections: named lists of images, stored in a file next to the index."""

import json
import os
from pathlib import Path
from threading import Thread

import pytest
from fastapi.testclient import TestClient

from forclip.search.searcher import Searcher
from forclip.server import limits
from forclip.server.gallery import Gallery
from forclip.server.selections import Selections
from tests.server.conftest import client_of, search_keys


def test_a_selection_is_created_changed_and_deleted(client: TestClient, served: Searcher) -> None:
    a, b, c = search_keys(client, 3)
    assert client.post("/api/selections", json={"name": "my picks", "keys": [b, a, b]}).status_code == 201
    assert client.post("/api/selections/my picks/add", json={"keys": [a, c]}).json()["keys"] == [b, a, c]
    assert client.post("/api/selections/my picks/remove", json={"keys": [a]}).json()["keys"] == [b, c]
    assert client.get("/api/selections").json() == [{"name": "my picks", "count": 2}]
    other = client_of(served)  # another service on the same store
    assert other.get("/api/selections/my picks").json() == {"name": "my picks", "keys": [b, c], "gone": 0}
    assert client.delete("/api/selections/my picks").status_code == 204
    assert client.get("/api/selections").json() == []
    assert client.get("/api/selections/my picks").status_code == 404


def test_a_deleted_image_is_counted_as_gone(client: TestClient, served: Searcher) -> None:
    a, b = search_keys(client, 2)
    client.post("/api/selections", json={"name": "p", "keys": [a, b]})
    served.index.delete_ids(Gallery(served.index).ids_of_keys([a]))
    assert client.get("/api/selections/p").json() == {"name": "p", "keys": [b], "gone": 1}
    assert len(client.get("/api/selections/p/export?format=files").text.splitlines()) == 1


@pytest.mark.parametrize("name", ["", " ", "a/b", "..\\b", "a\nb", "\x00", "x" * 101, " a", "../../etc"])
def test_unreadable_names_are_refused(client: TestClient, name: str) -> None:
    response = client.post("/api/selections", json={"name": name})
    assert response.status_code == 422
    assert set(response.json()) == {"detail"}


@pytest.mark.parametrize("name", ["Füße & Räder", "<script>", "__proto__", "猫"])
def test_a_name_never_names_a_file(client: TestClient, served: Searcher, name: str) -> None:
    before = {file.name for file in served.index.store.folder.iterdir()}
    response = client.post("/api/selections", json={"name": name})
    assert response.status_code == 201
    assert client.get(f"/api/selections/{name}").json()["name"] == name
    after = {file.name for file in served.index.store.folder.iterdir()}
    assert after - before == {"selections.json", "selections.lock"}


def test_an_invalid_change_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    (a,) = search_keys(client, 1)
    client.post("/api/selections", json={"name": "p", "keys": [a]})
    assert client.post("/api/selections", json={"name": "p"}).status_code == 409
    assert client.post("/api/selections", json={"name": "q", "keys": ["1"]}).status_code == 404
    assert client.post("/api/selections", json={"name": "q", "keys": ["../x"]}).status_code == 422
    assert client.post("/api/selections/none/add", json={"keys": [a]}).status_code == 404
    assert client.post("/api/selections/p/add", json={"keys": []}).status_code == 422
    assert client.delete("/api/selections/none").status_code == 404
    monkeypatch.setattr(limits, "SELECTED", 1)
    other = search_keys(client, 2)[1]
    assert client.post("/api/selections/p/add", json={"keys": [other]}).status_code == 409
    assert client.get("/api/selections/p").json()["keys"] == [a], "a refused change changes nothing"
    monkeypatch.setattr(limits, "SELECTIONS", 1)
    assert client.post("/api/selections", json={"name": "q"}).status_code == 409


def test_concurrent_changes_lose_nothing(tmp_path: Path) -> None:
    """Several threads write through two services on one store."""
    services = [Selections(tmp_path), Selections(tmp_path)]
    services[0].create("p", [])
    threads = [Thread(target=services[n % 2].add, args=("p", [str(n)])) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(services[1].one("p"), key=int) == [str(n) for n in range(20)]


def test_a_failed_write_keeps_the_selections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selections = Selections(tmp_path)
    selections.create("p", ["a"])

    def full(source: str, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        selections.add("p", ["b"])
    assert selections.all() == {"p": ["a"]}
    assert sorted(f.name for f in tmp_path.iterdir()) == ["selections.json", "selections.lock"]


@pytest.mark.parametrize("content", ["{", "[]", '{"format_version": 2, "selections": {}}', '{"format_version": 1}'])
def test_a_damaged_file_is_reported_and_kept(tmp_path: Path, content: str) -> None:
    (tmp_path / "selections.json").write_text(content)
    with pytest.raises(ValueError, match=r"selections\.json"):
        Selections(tmp_path).create("p", [])
    assert (tmp_path / "selections.json").read_text() == content


def test_the_file_stores_ids_not_keys(client: TestClient, served: Searcher) -> None:
    """A re-indexed image gets a new key and stays selected."""
    (a,) = search_keys(client, 1)
    client.post("/api/selections", json={"name": "p", "keys": [a]})
    stored = json.loads((served.index.store.folder / "selections.json").read_text())["selections"]["p"]
    assert stored == [served.search("snail", 1)[0].image_id]
