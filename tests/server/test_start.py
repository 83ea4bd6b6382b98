"""The start of the service: the search that it sends to itself may fail."""

import pytest
from fastapi.testclient import TestClient

import forclip
from forclip.search.searcher import Searcher
from forclip.server.app import create_app
from forclip.server.cached_searcher import CachedSearcher


@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("more images than the memory holds"), 400), (RuntimeError("a bug"), 500)],
)
def test_the_service_starts_although_its_first_search_is_refused(
    served: Searcher, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    refused = []

    def refuse(*arguments: object) -> None:
        refused.append(arguments)
        raise error

    body = {"text": "a snail", "k": 1}
    with monkeypatch.context() as patched:
        patched.setattr(CachedSearcher, "rank_texts", refuse)
        client = TestClient(create_app(served), base_url="http://127.0.0.1", raise_server_exceptions=False)
        with client:
            assert len(refused) == 1
            assert client.get("/health").status_code == 200
            assert client.get("/").status_code == 200
            assert client.post("/api/search", json=body).status_code == status
            patched.undo()
            assert len(client.post("/api/search", json=body).json()["results"]) == 1


def test_the_service_names_the_version_of_its_code(client: TestClient) -> None:
    assert client.get("/openapi.json").json()["info"]["version"] == forclip.__version__
    assert client.get("/api/info").json()["version"] == forclip.__version__
