"""Reviews: verdicts and saved searches of each reviewer, kept in a file next to the index."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from forclip.search.searcher import Searcher
from forclip.server import limits
from forclip.server.gallery import Gallery
from forclip.server.reviews import Reviews
from tests.server.conftest import client_of, search_keys


def of(client: TestClient, name: str) -> dict[str, tuple[list[str], list[str], int]]:
    """Return a reviewer's keys that are right and wrong, and how many are gone, by search."""
    searches = client.get(f"/api/reviewers/{name}").json()["searches"]
    return {
        s["search"]: ([image["key"] for image in s["right"]], [image["key"] for image in s["wrong"]], s["gone"])
        for s in searches
    }


def test_verdicts_of_each_reviewer_outlive_the_service(client: TestClient, served: Searcher) -> None:
    a, b, c = search_keys(client, 3)
    assert client.get("/api/reviewers/ana").json() == {"name": "ana", "searches": [], "saved": []}
    for body in (
        {"search": "snail", "right": [a, b], "wrong": [c]},
        {"search": "snail", "wrong": [b]},  # another verdict replaces the first
        {"search": "anchor", "right": [c]},
        {"search": "anchor", "removed": [c]},
    ):
        assert client.post("/api/reviewers/ana/verdicts", json=body).status_code == 204
    client.post("/api/reviewers/Bo Ek/verdicts", json={"search": "snail", "wrong": [a]})
    other = client_of(served)
    assert other.get("/api/reviewers").json() == ["Bo Ek", "ana"]
    assert of(other, "ana") == {"snail": ([a], [b, c], 0)}
    assert of(other, "Bo Ek") == {"snail": ([], [a], 0)}
    served.index.delete_ids(Gallery(served.index).ids_of_keys([b]))
    assert of(other, "ana") == {"snail": ([a], [c], 1)}


def test_saved_searches_are_replaced_by_title_and_removed(client: TestClient) -> None:
    for title, address in (("snails", "q=snail"), ("cats", "q=cat"), ("snails", "q=snail&camera=front")):
        body = {"title": title, "address": address}
        assert client.post("/api/reviewers/me/saved", json=body).status_code == 204
    saved = client.get("/api/reviewers/me").json()["saved"]
    assert [(s["title"], s["address"]) for s in saved] == [("snails", "q=snail&camera=front"), ("cats", "q=cat")]
    assert client.post("/api/reviewers/me/saved/remove", json={"title": "cats"}).status_code == 204
    assert client.post("/api/reviewers/me/saved/remove", json={"title": "cats"}).status_code == 404
    assert len(client.get("/api/reviewers/me").json()["saved"]) == 1


def test_what_cannot_be_kept_is_refused_and_changes_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = search_keys(client, 2)
    client.post("/api/reviewers/me/verdicts", json={"search": "snail", "right": [a]})
    assert client.post("/api/reviewers/me/verdicts", json={"search": "", "right": [a]}).status_code == 422
    assert client.post("/api/reviewers/me/verdicts", json={"search": "s", "right": ["1"]}).status_code == 404
    monkeypatch.setattr(limits, "REVIEWED", 1)
    assert client.post("/api/reviewers/me/verdicts", json={"search": "snail", "right": [b]}).status_code == 409
    monkeypatch.setattr(limits, "REVIEWERS", 1)
    assert client.post("/api/reviewers/new/verdicts", json={"search": "snail", "right": [b]}).status_code == 409
    monkeypatch.setattr(limits, "SAVED_SEARCHES", 0)
    assert client.post("/api/reviewers/me/saved", json={"title": "t", "address": "q=t"}).status_code == 409
    assert client.get("/api/reviewers").json() == ["me"]
    assert of(client, "me") == {"snail": ([a], [], 0)}


def test_a_damaged_file_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "reviews.json").write_text('{"format_version": 1, "reviews": 3}')
    with pytest.raises(ValueError, match=r"reviews\.json"):
        Reviews(tmp_path).names()
    assert (tmp_path / "reviews.json").read_text().endswith("3}")


def test_a_sample_shows_different_images_of_the_store(client: TestClient, served: Searcher) -> None:
    images = client.get("/api/sample?count=5").json()
    assert len({image["key"] for image in images}) == 5
    assert images == client.get("/api/sample?count=5").json()
    assert all(image["width"] > 0 for image in images)
    assert len(client.get("/api/sample?count=100").json()) == len(served.index)
    assert client.get("/api/sample?count=0").status_code == 422
