"""Publish a store, and use the published one in the store's place: from the command line and in the service."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from forclip.cli import app
from forclip.search.searcher import Searcher, open_searcher
from forclip.server.app import create_app
from tests.milvus_server import new_name


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture(scope="module")
def folder(searcher: Searcher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the small world's store."""
    copy = tmp_path_factory.mktemp("published") / "store"
    shutil.copytree(searcher.index.name, copy)
    return copy


@pytest.fixture(scope="module")
def place(folder: Path, milvus_server: str) -> str:
    """Where the store is published."""
    address = f"{milvus_server}/{new_name()}"
    summary = json.loads(run("publish", folder, address, "--json"))
    assert summary["added"] == 60
    return address


def same(ours: Any, theirs: Any) -> bool:
    """Whether two answers are equal up to the rounding of scores."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return bool(ours == (pytest.approx(theirs, abs=1e-6) if isinstance(theirs, float) else theirs))


@pytest.mark.parametrize(
    "options",
    [
        ("a dog",),
        ("a dog", "-k", "5", "--where", "half = 1"),
        ("a dog", "--cutoff", "0.1"),
        ("--any", "cat", "--any", "dog", "--not", "car"),
        ("a cat", "--collapse", "0.9"),
    ],
)
def test_searches_give_what_the_store_gives(options: tuple[str, ...], folder: Path, place: str) -> None:
    published, stored = (json.loads(run("search", store, *options, "--json")) for store in (place, folder))
    results = stored if isinstance(stored, list) else stored["results"]
    assert results
    if "--any" in options:  # normalised with other samples of images
        published, stored = ([r["image_id"] for r in a][:1] for a in (published, stored))
    assert same(published, stored)


def test_look_export_info_and_verify(folder: Path, place: str, tmp_path: Path) -> None:
    first = json.loads(run("search", folder, "a dog", "--json"))[0]["image_id"]
    assert same(*(json.loads(run("look", store, first, "a dog", "--json")) for store in (place, folder)))
    files = []
    for number, store in enumerate((place, str(folder))):
        files.append(tmp_path / f"{number}.json")
        run("export", store, "a dog", "--to", files[-1], "-k", "7")
    assert same(*(json.loads(file.read_text()) for file in files))
    described = json.loads(run("info", place, "--json"))
    assert (described["kind"], described["images"], described["recall"]) == ("published store", 60, 1.0)
    assert run("verify", folder, "--against", place) == f"{folder} and {place}: equal\n"
    assert run("verify", place) == f"{place}: sound\n"
    assert "0 added, 0 updated, 0 deleted, 60 unchanged" in run("publish", folder, place)


def test_verify_fails_where_the_sides_differ(folder: Path, place: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    run("delete", copy, "--where", "half = 1", "--yes")
    assert "30 problems" not in run("verify", copy, "--against", place, code=1)
    assert "published and not in the store" in run("verify", copy, "--against", place, code=1)


@pytest.fixture(scope="module")
def clients(folder: Path, place: str) -> Iterator[list[TestClient]]:
    with (
        TestClient(create_app(open_searcher(place)), base_url="http://127.0.0.1:8000") as published,
        TestClient(create_app(open_searcher(folder)), base_url="http://127.0.0.1:8000") as stored,
    ):
        yield [published, stored]


def both(clients: list[TestClient], method: str, path: str, **request: Any) -> Any:
    """Send a request to both services, which must give the same answer; return it."""
    answers = [client.request(method, path, **request) for client in clients]
    assert [a.status_code for a in answers] == [200, 200], [a.text for a in answers]
    if answers[0].headers["content-type"] != "application/json":
        assert answers[0].content == answers[1].content
        return answers[0].content
    contents = [answer.json() for answer in answers]
    for content in contents:
        content.pop("milliseconds", None)
        content.pop("store_version", None)
        content.pop("most_listed", None)  # Milvus lists at most 16,384 images
    assert same(*contents)
    return contents[0]


def test_the_service_answers_as_that_of_the_store(clients: list[TestClient]) -> None:
    found = both(clients, "POST", "/api/search", json={"text": "a dog", "k": 6, "where": "half = 0"})
    keys = [result["key"] for result in found["results"]]
    assert len(keys) == 6
    assert found["results"][0]["metadata"] == {"half": 0}
    both(clients, "POST", "/api/similar", json={"key": keys[0]})
    both(clients, "GET", f"/api/image/{keys[0]}")
    both(clients, "GET", f"/api/thumbnail/{keys[1]}")
    both(clients, "POST", "/api/look", json={"key": keys[0], "text": "a dog"})
    both(clients, "GET", "/api/info")
    both(clients, "POST", "/api/search", json={"text": "a dog", "right": keys[:2], "wrong": keys[2:3]})
    both(clients, "POST", "/api/export", json={"text": "a cat", "k": 4, "format": "coco"})
    created = both_created(clients, {"name": "mine", "keys": keys[:3]})
    assert created == keys[:3]
    both(clients, "GET", "/api/selections/mine")
    for client in clients:
        refused = client.post("/api/search", json={"text": "a dog", "where": "lower(source) = 'x'"})
        assert refused.status_code == (400 if client is clients[0] else 200)
    assert clients[0].get("/health").status_code == clients[0].get("/metrics").status_code == 200


def both_created(clients: list[TestClient], body: dict[str, Any]) -> list[str]:
    answers = [client.post("/api/selections", json=body) for client in clients]
    assert [a.status_code for a in answers] == [201, 201]
    keys: list[str] = answers[0].json()["keys"]
    return keys
