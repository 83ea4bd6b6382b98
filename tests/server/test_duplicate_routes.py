"""Grouping of results by near duplicates."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from forclip.config import ModelConfig
from forclip.embedding.ingest import index_images
from forclip.index.duplicates import similarity
from forclip.index.image_index import Index
from forclip.search.searcher import Searcher
from forclip.server import limits
from tests.server.conftest import client_of, search_keys


@pytest.fixture
def copies(own_pictures: tuple[Searcher, Path]) -> Searcher:
    """Searcher over three pictures and two copies of each: one of the same bytes, one compressed again."""
    searcher, pictures = own_pictures
    for file in sorted(pictures.iterdir()):
        shutil.copy2(file, pictures / f"copy of {file.name}")
        Image.open(file).convert("RGB").save(pictures / f"small {file.stem}.jpg", quality=90)
    index_images(str(pictures), searcher.index.store.folder, model=ModelConfig("forclip-mini"))
    return Searcher(Index(searcher.index.store.folder), searcher.model)


def firsts(client: TestClient, keys: list[str], **others: Any) -> list[str]:
    response = client.post("/api/duplicates", json={"keys": keys, **others})
    assert response.status_code == 200, response.text
    found: list[str] = response.json()["firsts"]
    return found


def test_copies_join_the_best_of_them(copies: Searcher) -> None:
    client, results = client_of(copies), copies.search("snail", 9)
    keys = [str(r.key) for r in results]
    vectors = copies.index.image_vectors([r.image_id for r in results])
    expected: list[int] = []
    for n, result in enumerate(results):
        scores = {k: similarity(vectors[result.image_id], vectors[results[k].image_id]) for k in sorted(set(expected))}
        best = max(scores, key=lambda k: scores[k], default=n)
        expected.append(best if scores.get(best, 0) >= 0.95 else n)
    assert firsts(client, keys) == [keys[n] for n in expected]
    assert len(set(expected)) <= 4

    part = firsts(client, keys[:4])
    assert [*part, *firsts(client, keys[4:], firsts=list(dict.fromkeys(part)))] == [keys[n] for n in expected]
    assert firsts(client, keys, similarity=1e-6) == [keys[0]] * 9


def test_images_that_are_unknown_or_named_twice(client: TestClient) -> None:
    key, other = search_keys(client, 2)
    assert firsts(client, ["777", key, key, "0777"], firsts=[other, other, key]) == ["777", key, key, "0777"]


@pytest.mark.parametrize(
    "body",
    [
        {"keys": []},
        {"keys": ["x"]},
        {"keys": ["1"], "similarity": 0},
        {"keys": ["1"], "similarity": 1.1},
        {"keys": ["1"] * (limits.GROUPED + 1)},
        {"keys": ["1"], "firsts": ["1"] * (limits.K + 1)},
    ],
)
def test_requests_beyond_the_limits_are_refused(client: TestClient, body: dict[str, Any]) -> None:
    assert client.post("/api/duplicates", json=body).status_code == 422
