"""Access control, limits on requests, and what a response must not reveal."""

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from forclip.search.searcher import Searcher
from forclip.server import limits
from forclip.server.app import create_app, page_link
from forclip.server.security import COOKIE, Access, content_policy
from forclip.server.service_routes import read_page
from tests.server.conftest import PICTURES

TOKEN = "a token of some length"
GOOD = {"text": "snail", "k": 1}


@pytest.fixture
def locked(served: Searcher) -> TestClient:
    """Client of a service that listens on all addresses and has a token."""
    return TestClient(create_app(served, Access("0.0.0.0", TOKEN)), base_url="http://store.example")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "store.example"])
def test_other_hosts_need_a_token(host: str) -> None:
    with pytest.raises(ValueError, match="--token"):
        Access(host)
    Access(host, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_loopback_hosts_need_no_token(host: str) -> None:
    assert Access(host).token is None


@pytest.mark.parametrize("token", ["", "short", "schlüssel-mit-umlaut"])
def test_weak_tokens_are_refused(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        Access("0.0.0.0", token)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": f"{COOKIE}=wrong"},
        {"Cookie": f"{COOKIE}={TOKEN}"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/info", "/metrics", "/openapi.json", "/api/image/1", "/nothing"])
def test_requests_without_the_token_are_refused(locked: TestClient, headers: dict[str, str], path: str) -> None:
    response = locked.get(path, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "content-security-policy" in response.headers


def test_the_token_and_the_login_link_grant_access(locked: TestClient) -> None:
    assert locked.get("/health").json() == {"status": "ok"}
    assert locked.get("/api/info", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert locked.get("/login", params={"token": "wrong"}).status_code == 401
    response = locked.get("/login", params={"token": TOKEN}, follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert locked.get("/api/info").status_code == 200


def test_the_printed_link_holds_host_port_and_quoted_token() -> None:
    assert page_link(Access(), 8000) == "http://127.0.0.1:8000/"
    assert page_link(Access("0.0.0.0", "a&b=c/d?e"), 80) == "http://127.0.0.1:80/login?token=a%26b%3Dc%2Fd%3Fe"
    assert page_link(Access("::1"), 1) == "http://[::1]:1/"


UNKNOWN_HOSTS = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "localhost.evil"]
LOOPBACK_HOSTS = ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000"]


@pytest.mark.parametrize("host", UNKNOWN_HOSTS + LOOPBACK_HOSTS)
def test_only_loopback_host_headers_are_accepted(client: TestClient, host: str) -> None:
    expected = 200 if host in LOOPBACK_HOSTS else 421
    assert client.get("/api/info", headers={"Host": host}).status_code == expected


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_requests_of_other_origins_are_refused(client: TestClient, origin: str) -> None:
    response = client.post("/api/search", json=GOOD, headers={"Origin": origin})
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers
    assert client.post("/api/search", json=GOOD, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200


def test_every_response_has_the_security_headers(client: TestClient) -> None:
    for path in ("/", "/api/info", "/nothing", "/api/image/1"):
        headers = client.get(path).headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


def test_the_page_runs_only_its_own_script() -> None:
    page = read_page()
    policy = content_policy(page)
    assert policy.count("'sha256-") == 2
    assert "unsafe" not in policy
    assert "http" not in page.replace("http-equiv", ""), "the page loads nothing from other hosts"
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", " onclick="):
        assert unsafe not in page


BAD_SEARCHES: list[dict[str, Any]] = [
    {},
    {"text": ""},
    {"text": " \n "},
    {"text": "x" * (limits.TEXT_CHARACTERS + 1)},
    {"text": 5},
    {"text": ["snail"]},
    {"text": None, "any_of": []},
    {"none_of": ["snail"]},
    {"any_of": ["a"] * (limits.TEXTS + 1)},
    {"text": "a", "all_of": ["b"], "cutoff": "auto"},
    {"text": "a", "any_of": ["b"], "min_score": 0.5},
    {**GOOD, "right": ["1"], "wrong": ["1"]},
    {**GOOD, "right": ["1"], "cutoff": "auto"},
    {**GOOD, "right": ["/etc"]},
    {**GOOD, "right": ["1"], "only": "wrong"},
    {**GOOD, "wrong": ["1"] * (limits.VERDICTS + 1)},
    {"text": "a", "any_of": ["b"], "right": ["1"]},
    {**GOOD, "k": 0},
    {**GOOD, "k": limits.K + 1},
    {**GOOD, "k": 10**30},
    {**GOOD, "k": -1},
    {**GOOD, "offset": -1},
    {**GOOD, "offset": 10**9},
    {**GOOD, "min_score": 2},
    {**GOOD, "min_score": "NaN"},
    {**GOOD, "where": "x" * (limits.WHERE_CHARACTERS + 1)},
    {**GOOD, "cutoff": "sometimes"},
    {**GOOD, "unknown": 1},
]


@pytest.mark.parametrize("request_", BAD_SEARCHES, ids=lambda r: json.dumps(r)[:50])
def test_an_invalid_search_is_refused_with_one_sentence(client: TestClient, request_: Any) -> None:
    response = client.post("/api/search", json=request_)
    assert response.status_code == 422, response.text
    assert list(response.json()) == ["detail"]
    assert 5 < len(response.json()["detail"]) < 200


@pytest.mark.parametrize("where", ["((", "nothing = 1", "1", "'", "--", "\x00"])
def test_an_invalid_filter_is_a_client_error(client: TestClient, served: Searcher, where: str) -> None:
    response = client.post("/api/search", json={**GOOD, "where": where})
    assert response.status_code == 400, response.text
    assert str(served.index.store.folder) not in response.text
    assert client.post("/api/search", json=GOOD).status_code == 200


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\x00" * 50, b"\xff\xd8\xff\xe0" + b"x" * 999]
)
def test_an_upload_that_is_not_an_image_is_refused(client: TestClient, content: bytes) -> None:
    response = client.post("/api/similar/upload", files={"picture": ("../../x.jpg", content)})
    assert response.status_code == 400
    assert "x.jpg" not in response.text


def test_a_filter_with_an_sql_statement_changes_nothing(client: TestClient, served: Searcher) -> None:
    client.post("/api/search", json={**GOOD, "where": "camera = 'front'; DROP TABLE images"})
    assert client.get("/api/info").json()["images"] == PICTURES == len(served.index)


def test_a_decompression_bomb_is_refused_by_its_header(client: TestClient) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    response = client.post("/api/similar/upload", files={"picture": ("a.png", bomb)})
    assert response.status_code == 400
    assert "pixels" in response.json()["detail"]


def test_too_large_bodies_are_refused(client: TestClient) -> None:
    too_large = b"x" * (limits.BODY_BYTES + 1)
    json_type = {"Content-Type": "application/json"}
    assert client.post("/api/search", content=too_large, headers=json_type).status_code == 413
    # Sent in chunks, without a Content-Length.
    parts = (b"x" * 100_000 for _ in range(11))
    assert client.post("/api/search", content=parts, headers=json_type).status_code == 413
    picture = {"picture": ("a.jpg", b"x" * (limits.UPLOAD_BYTES + 1))}
    assert client.post("/api/similar/upload", files=picture).status_code == 413


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"text": "\\ud800"}', b"[" * 100_000])
def test_a_malformed_body_is_refused(client: TestClient, content: bytes) -> None:
    response = client.post("/api/search", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422), response.text
    assert list(response.json()) == ["detail"]


def test_no_response_holds_a_path(client: TestClient, served: Searcher, store_folder: Path) -> None:
    results = client.post("/api/search", json={"text": "snail", "k": 60})
    key = results.json()["results"][0]["key"]
    responses = [
        results,
        client.post("/api/similar", json={"key": key}),
        client.post("/api/similar", json={"key": "1"}),
        client.post("/api/search", json={"text": "snail", "right": [key], "wrong": ["1"]}),
        client.post("/api/search", json={"text": "snail", "right": [key], "where": "nothing = 1"}),
        client.post("/api/selections", json={"name": "p", "keys": [key]}),
        *(client.get(path) for path in ("/api/info", "/metrics", "/openapi.json", "/", "/api/selections/p", "/health")),
    ]
    for response in responses:
        assert str(store_folder) not in response.text
        assert str(served.index.store.folder) not in response.text


def test_an_internal_error_is_reported_without_details(served: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "encode_texts", lambda texts: 1 / 0)
    client = TestClient(create_app(served), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
    response = client.post("/api/search", json=GOOD)
    assert response.status_code == 500
    assert list(response.json()) == ["detail"]
    assert "zero" not in response.text.lower()


def test_metrics_count_by_route_without_unknown_paths(client: TestClient) -> None:
    client.post("/api/search", json=GOOD)
    client.get("/api/image/77")
    client.get("/secret/path")
    text = client.get("/metrics").text
    assert 'forclip_requests_total{method="POST",route="/api/search",status="200"} 1.0' in text
    assert 'forclip_requests_total{method="GET",route="/api/image/{key}",status="404"} 1.0' in text
    assert "forclip_images 60.0" in text
    assert "secret" not in text
