"""The columns that filters may use, and what a filter that leaves little does to verdicts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from forclip.search.feedback import refined_query
from forclip.search.searcher import Searcher
from forclip.server import column_routes
from tests.server.conftest import PICTURES, search


def columns(client: TestClient) -> dict[str, dict[str, Any]]:
    answer = client.get("/api/columns").json()
    assert (answer["images"], answer["complete"]) == (PICTURES, True)
    return {column["name"]: column for column in answer["columns"]}


def test_the_columns_of_a_store_with_their_values(client: TestClient, served: Searcher) -> None:
    found = columns(client)
    assert list(found)[:2] == ["camera", "remark"], "the user's own come first"
    camera = found["camera"]
    assert (camera["own"], camera["kind"], camera["missing"]) == (True, "choice", 0)
    assert camera["values"] == [{"value": "back", "images": 30}, {"value": "front", "images": 30}]
    widths = [row["width"] for row in served.index.store.table().to_table(["width"]).to_pylist()]
    assert (found["width"]["lowest"], found["width"]["highest"]) == (min(widths), max(widths))
    assert not any(found[name]["own"] for name in ("width", "height", "size", "added", "uri"))
    assert found["uri"]["values"] == [], "no answer has a path"


def test_columns_are_read_again_when_the_store_changes(
    client: TestClient, served: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_routes, "_REST", 0)  # a store that changes all the time is not read for each request
    assert columns(client) == columns(client)
    served.index.delete("camera = 'back'")
    answer = client.get("/api/columns").json()
    assert answer["images"] == PICTURES // 2
    assert answer["columns"][0]["values"] == [{"value": "front", "images": 30}]


def test_a_filter_names_the_users_columns_in_its_message(client: TestClient) -> None:
    detail = client.post("/api/search", json={"text": "snail", "where": "qqq = 1"}).json()["detail"]
    assert "camera, remark" in detail
    assert not any(name in detail for name in ("uri", "content_hash", "number", "modified"))


@pytest.mark.parametrize("where", ["camera = 'none'", "camera = 'front' AND uri LIKE '%00001%'"])
def test_verdicts_with_a_filter_that_leaves_little(client: TestClient, served: Searcher, where: str) -> None:
    keys = [result["key"] for result in search(client, text="snail", k=3)["results"]]
    plain = search(client, text="snail", k=60, where=where)["results"]
    answer = search(client, text="snail", k=60, where=where, right=[keys[0]], wrong=[keys[1]])
    assert {r["key"] for r in answer["results"]} == {r["key"] for r in plain} - {keys[1]}
    best = served.search("snail", 1)[0]
    query = refined_query(served.index, served.encode_text("snail"), [best.image_id], [], where)
    assert np.linalg.norm(query) == pytest.approx(1, abs=1e-4)


def test_results_say_when_their_file_was_changed(client: TestClient, served: Searcher) -> None:
    result = search(client, text="snail", k=1)["results"][0]
    changed = Path(served.search("snail", 1)[0].uri).stat().st_mtime_ns
    assert result["modified"] == changed // 1_000_000
