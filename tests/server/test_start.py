"""The start of the service: the search that it sends to itself may fail."""

import pytest
from fastapi.testclient import TestClient

import forclip
from forclip.index.image_index import Index
from forclip.index.view import NotIndexed
from forclip.search.request import SearchError
from forclip.search.searcher import Searcher
from forclip.server.app import create_app


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (SearchError("no such search"), 400, "no such search"),
        (NotIndexed("/secret/store: 9 images wait"), 503, "9 images wait"),
        (RuntimeError("a bug"), 500, "log has the details"),
    ],
)
def test_the_service_starts_although_its_first_search_is_refused(
    served: Searcher, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, detail: str
) -> None:
    refused = []

    def refuse(*arguments: object) -> None:
        refused.append(arguments)
        raise error

    body = {"text": "a snail", "k": 1}
    client = TestClient(create_app(served), base_url="http://127.0.0.1", raise_server_exceptions=False)
    with monkeypatch.context() as patched:
        patched.setattr(Index, "rankings", refuse)
        with client:
            assert refused
            assert client.get("/health").status_code == 200
            assert client.get("/").status_code == 200
            answer = client.post("/api/search", json=body)
            assert (answer.status_code, detail in answer.json()["detail"]) == (status, True)
            patched.undo()
            assert len(client.post("/api/search", json=body).json()["results"]) == 1


def test_the_service_names_the_version_of_its_code(client: TestClient) -> None:
    assert client.get("/openapi.json").json()["info"]["version"] == forclip.__version__
    assert client.get("/api/info").json()["version"] == forclip.__version__


def test_text_is_sent_compressed_to_those_who_accept_it_and_pictures_as_they_are(client: TestClient) -> None:
    body = {"text": "snail", "k": 60}
    results = client.post("/api/search", json=body).json()["results"]
    requests = {
        "/": client.build_request("GET", "/"),
        "/api/search": client.build_request("POST", "/api/search", json=body),
        "/api/thumbnail": client.build_request("GET", f"/api/thumbnail/{results[0]['key']}"),
    }
    sent = {}
    for path, request in requests.items():
        request.headers["accept-encoding"] = "gzip"
        zipped = client.send(request)
        request.headers["accept-encoding"] = "identity"
        plain = client.send(request)
        sent[path] = zipped.headers.get("content-encoding")
        assert "content-encoding" not in plain.headers
        if path == "/api/search":
            assert zipped.json()["results"] == plain.json()["results"] == results
        else:
            assert zipped.content == plain.content
    assert sent == {"/": "gzip", "/api/search": "gzip", "/api/thumbnail": None}


def test_a_page_that_a_browser_has_is_not_sent_again(client: TestClient) -> None:
    first = client.get("/")
    assert "no-store" not in first.headers["cache-control"]
    again = client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
    assert client.get("/", headers={"If-None-Match": '"another"'}).text == first.text
