"""More images like several: what they have in common is searched for, with filters, paging and verdicts."""

from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from forclip.search.searcher import Searcher
from forclip.search.several_images import common_vector
from forclip.server import limits
from tests.server.conftest import search_keys


def similar(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    response = client.post("/api/similar", json=body)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["results"]
    return found


def test_the_list_is_that_of_the_common_vector_without_the_images_themselves(
    client: TestClient, served: Searcher
) -> None:
    keys = search_keys(client, 3)
    liked = [result.image_id for result in served.search("snail", 3)]
    vectors = served.index.image_vectors(liked)
    query = common_vector(served.index, [vectors[image_id] for image_id in liked])
    expected = [r for r in served.search_vector(query, 60) if r.image_id not in liked]
    found = similar(client, keys=[*keys, keys[0]], k=60)
    assert [r["key"] for r in found] == [str(r.key) for r in expected]
    assert [r["score"] for r in found] == pytest.approx([r.score for r in expected])
    assert [r["rank"] for r in found] == list(range(1, 58))
    assert similar(client, keys=keys, k=60, exact=True) == found
    assert similar(client, keys=keys, k=10, offset=20) == found[20:30]
    front = [r for r in found if r["metadata"]["camera"] == "front"]
    assert [r["key"] for r in similar(client, keys=keys, k=60, where="camera = 'front'")] == [r["key"] for r in front]


def test_one_image_in_a_list_is_searched_like_one_image(client: TestClient) -> None:
    (key,) = search_keys(client, 1)
    assert similar(client, keys=[key]) == similar(client, key=key)


def test_verdicts_refine_the_list(client: TestClient) -> None:
    keys = search_keys(client, 3)
    before = similar(client, keys=keys, k=60)
    wrong = before[0]["key"]
    after = similar(client, keys=keys, k=60, wrong=[wrong])
    assert wrong not in [r["key"] for r in after]
    assert not {r["key"] for r in after} & set(keys)
    assert similar(client, keys=keys, wrong=[keys[0]], k=5)  # also an image that was searched with
    scores = {r["key"]: r["score"] for r in before}
    changed = [abs(r["score"] - scores[r["key"]]) for r in after]
    assert np.max(changed) > 1e-4


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"keys": []},
        {"key": "1", "keys": ["2"]},
        {"keys": ["1", "2"], "box": {"x0": 0, "y0": 0, "x1": 1, "y1": 1}},
        {"keys": ["1"] * (limits.LIKED + 1)},
        {"keys": ["x"]},
    ],
)
def test_what_names_no_images_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/api/similar", json=body).status_code == 422


def test_an_image_that_is_gone_is_reported(client: TestClient, served: Searcher) -> None:
    keys = search_keys(client, 3)
    served.index.delete_ids([served.search("snail", 1)[0].image_id])
    response = client.post("/api/similar", json={"keys": keys})
    assert response.status_code == 404
    assert "deleted" in response.json()["detail"]
