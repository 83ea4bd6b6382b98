"""Verdicts in a search request rank the list again, as the library does, and drop the wrong images."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from forclip.calibration.model import Calibration
from forclip.search.feedback import refined_query
from forclip.search.request import SearchRequest, most_distinct_vector, run_search
from forclip.search.searcher import Searcher
from forclip.server.gallery import Gallery
from tests.server.conftest import PICTURES, client_of, search
from tests.server.test_search_routes import names


@pytest.fixture
def ranking(client: TestClient) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = search(client, text="snail", k=60)["results"]
    return results


def test_verdicts_rank_the_list_as_in_the_library(
    client: TestClient, served: Searcher, ranking: list[dict[str, Any]]
) -> None:
    ids = [r.image_id for r in served.search("snail", 60)]
    verdicts = {"right": [ranking[5]["key"], ranking[8]["key"]], "wrong": [ranking[0]["key"], ranking[2]["key"]]}
    request = SearchRequest(text="snail", k=60, right=(ids[5], ids[8]), wrong=(ids[0], ids[2]))
    expected = run_search(served, request).results
    answer = search(client, text="snail", k=60, **verdicts)
    assert names(answer) == [Path(r.uri).name for r in expected]
    assert [r["rank"] for r in answer["results"]] == list(range(1, PICTURES - 1))
    assert names(answer) != [r["name"] for r in ranking if r["key"] not in verdicts["wrong"]], "the order changes"
    pages = [search(client, text="snail", k=7, offset=offset, **verdicts)["results"] for offset in (0, 7, 14)]
    assert [r for page in pages for r in page] == answer["results"][:21]


def test_verdicts_rank_images_similar_to_an_image(
    client: TestClient, served: Searcher, ranking: list[dict[str, Any]]
) -> None:
    key, right, wrong = (ranking[n]["key"] for n in (0, 20, 3))
    ids = [r.image_id for r in served.search("snail", 60)]
    vectors, _ = Gallery(served.index).vectors(int(key))
    query = refined_query(served.index, most_distinct_vector(vectors), [ids[20]], [ids[3]])
    expected = [Path(r.uri).name for r in served.search_vector(query, 60) if r.image_id not in (ids[0], ids[3])]
    request = {"key": key, "right": [right], "wrong": [wrong], "k": 60}
    assert names(client.post("/api/similar", json=request).json()) == expected


def test_a_list_with_verdicts_has_no_confidence(served: Searcher, calibration: Calibration) -> None:
    client = client_of(Searcher(served.index, dataclasses.replace(served.model, calibration=calibration)))
    plain = search(client, text="snail")
    assert plain["confidence"] is not None
    refined = search(client, text="snail", right=[plain["results"][0]["key"]])
    assert refined["confidence"] is None
    assert {r["probability"] for r in refined["results"]} == {None}
    assert not np.isclose(refined["results"][0]["score"], plain["results"][0]["score"]), "scored by the refined query"


def test_a_verdict_on_a_deleted_image_is_refused(
    client: TestClient, served: Searcher, ranking: list[dict[str, Any]]
) -> None:
    served.index.delete_ids(Gallery(served.index).ids_of_keys([ranking[3]["key"]]))
    request = {"text": "snail", "right": [ranking[3]["key"]]}
    assert client.post("/api/search", json=request).status_code == 404
    filtered = {"text": "snail", "wrong": [ranking[4]["key"]], "where": "nothing = 1"}
    assert client.post("/api/search", json=filtered).status_code == 400
