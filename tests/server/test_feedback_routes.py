"""Images judged through the API: the list is ranked anew as the library does it, without the wrong ones."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from forclip.calibration.model import Calibration
from forclip.index.in_memory import most_distinct_vector
from forclip.search.feedback import refined_query
from forclip.search.request import SearchRequest, run_search
from forclip.search.searcher import Searcher
from forclip.server.gallery import Gallery
from tests.server.conftest import PICTURES, client_of
from tests.server.test_search_routes import asked, names


@pytest.fixture
def found(client: TestClient) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = asked(client, text="snail", k=60)["results"]
    return results


def test_picks_rank_the_list_anew_as_the_library_does(
    client: TestClient, served: Searcher, found: list[dict[str, Any]]
) -> None:
    ids = [r.image_id for r in served.search("snail", 60)]
    picks = {"right": [found[5]["key"], found[8]["key"]], "wrong": [found[0]["key"], found[2]["key"]]}
    request = SearchRequest(text="snail", k=60, right=(ids[5], ids[8]), wrong=(ids[0], ids[2]))
    expected = run_search(served, request).results
    got = asked(client, text="snail", k=60, **picks)
    assert names(got) == [Path(r.uri).name for r in expected]
    assert [r["rank"] for r in got["results"]] == list(range(1, PICTURES - 1))
    assert names(got) != [r["name"] for r in found if r["key"] not in picks["wrong"]], "else nothing was asked anew"
    pages = [asked(client, text="snail", k=7, offset=offset, **picks)["results"] for offset in (0, 7, 14)]
    assert [r for page in pages for r in page] == got["results"][:21]


def test_picks_of_a_place_or_an_image_rank_anew(
    client: TestClient, served: Searcher, found: list[dict[str, Any]]
) -> None:
    key, right, wrong = (found[n]["key"] for n in (0, 20, 3))
    ids = [r.image_id for r in served.search("snail", 60)]
    vectors, _ = Gallery(served.index).vectors(int(key))
    query = refined_query(served.index, most_distinct_vector(vectors), [ids[20]], [ids[3]])
    expected = [Path(r.uri).name for r in served.search_vector(query, 60) if r.image_id not in (ids[0], ids[3])]
    request = {"key": key, "right": [right], "wrong": [wrong], "k": 60}
    assert names(client.post("/api/similar", json=request).json()) == expected


def test_nothing_is_believed_of_a_list_with_picks(served: Searcher, calibration: Calibration) -> None:
    client = client_of(Searcher(served.index, dataclasses.replace(served.model, calibration=calibration)))
    plain = asked(client, text="snail")
    assert plain["confidence"] is not None
    judged = asked(client, text="snail", right=[plain["results"][0]["key"]])
    assert judged["confidence"] is None
    assert {r["probability"] for r in judged["results"]} == {None}
    assert not np.isclose(judged["results"][0]["score"], plain["results"][0]["score"]), "a score of what was refined"


def test_a_judged_image_that_is_gone(client: TestClient, served: Searcher, found: list[dict[str, Any]]) -> None:
    served.index.delete(f"number = {found[3]['key']}")
    refused = client.post("/api/search", json={"text": "snail", "right": [found[3]["key"]]})
    assert refused.status_code == 404
    assert refused.json()["detail"] == "there is no image with one of these keys"
    filtered = {"text": "snail", "wrong": [found[4]["key"]], "where": "nothing = 1"}
    assert client.post("/api/search", json=filtered).status_code == 400
