"""Who may ask, how much, and what an answer never holds."""

import json
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
    """Bound to all addresses, with a token."""
    return TestClient(create_app(served, Access("0.0.0.0", TOKEN)), base_url="http://store.example")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "store.example"])
def test_without_a_token_only_this_machine_may_ask(host: str) -> None:
    with pytest.raises(ValueError, match="--token"):
        Access(host)
    Access(host, TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_this_machine_needs_no_token(host: str) -> None:
    assert Access(host).token is None


@pytest.mark.parametrize("token", ["", "short", "schlüssel-mit-umlaut"])
def test_tokens_that_protect_nothing_are_refused(token: str) -> None:
    with pytest.raises(ValueError, match="the token must"):
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
def test_without_the_token_nothing_is_told(locked: TestClient, headers: dict[str, str], path: str) -> None:
    answer = locked.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "content-security-policy" in answer.headers


def test_the_token_or_the_login_link_lets_in(locked: TestClient) -> None:
    assert locked.get("/health").json() == {"status": "ok"}
    assert locked.get("/api/info", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert locked.get("/login", params={"token": "wrong"}).status_code == 401
    answer = locked.get("/login", params={"token": TOKEN}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert locked.get("/api/info").status_code == 200


def test_the_login_link_is_what_is_printed() -> None:
    assert page_link(Access(), 8000) == "http://127.0.0.1:8000/"
    assert page_link(Access("0.0.0.0", "a&b=c/d?e"), 80) == "http://127.0.0.1:80/login?token=a%26b%3Dc%2Fd%3Fe"
    assert page_link(Access("::1"), 1) == "http://[::1]:1/"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "localhost.evil"])
def test_another_name_is_refused_on_this_machine(client: TestClient, host: str) -> None:
    assert client.get("/api/info", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8000"])
def test_this_machine_has_several_names(client: TestClient, host: str) -> None:
    assert client.get("/api/info", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999"])
def test_other_pages_may_not_ask(client: TestClient, origin: str) -> None:
    answer = client.post("/api/search", json=GOOD, headers={"Origin": origin})
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert client.post("/api/search", json=GOOD, headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200


def test_every_answer_has_the_security_headers(client: TestClient) -> None:
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
    assert "http" not in page.replace("http-equiv", ""), "nothing is loaded from elsewhere"
    for way_in in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", " onclick="):
        assert way_in not in page


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
def test_a_search_that_can_not_be_answered_is_refused_in_one_sentence(client: TestClient, request_: Any) -> None:
    answer = client.post("/api/search", json=request_)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["detail"]
    assert 5 < len(answer.json()["detail"]) < 200


@pytest.mark.parametrize("where", ["((", "nothing = 1", "1", "'", "--", "\x00"])
def test_bad_sql_is_the_one_who_asks_to_mend(client: TestClient, served: Searcher, where: str) -> None:
    answer = client.post("/api/search", json={**GOOD, "where": where})
    assert answer.status_code == 400, answer.text
    assert str(served.index.store.folder) not in answer.text
    assert client.post("/api/search", json=GOOD).status_code == 200


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\x00" * 50, b"\xff\xd8\xff\xe0" + b"x" * 999]
)
def test_an_upload_that_is_no_picture_is_refused(client: TestClient, content: bytes) -> None:
    answer = client.post("/api/similar/upload", files={"picture": ("../../x.jpg", content)})
    assert answer.status_code == 400
    assert "x.jpg" not in answer.text


def test_sql_that_would_change_something_changes_nothing(client: TestClient, served: Searcher) -> None:
    client.post("/api/search", json={**GOOD, "where": "camera = 'front'; DROP TABLE images"})
    assert client.get("/api/info").json()["images"] == PICTURES == len(served.index)


def test_a_decompression_bomb_is_refused_from_its_header(client: TestClient) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )
    answer = client.post("/api/similar/upload", files={"picture": ("a.png", bomb)})
    assert answer.status_code == 400
    assert "pixels" in answer.json()["detail"]


def test_bodies_that_are_too_large_are_refused(client: TestClient) -> None:
    too_large = b"x" * (limits.BODY_BYTES + 1)
    json_type = {"Content-Type": "application/json"}
    assert client.post("/api/search", content=too_large, headers=json_type).status_code == 413
    # In parts, without saying how long it is.
    parts = (b"x" * 100_000 for _ in range(11))
    assert client.post("/api/search", content=parts, headers=json_type).status_code == 413
    picture = {"picture": ("a.jpg", b"x" * (limits.UPLOAD_BYTES + 1))}
    assert client.post("/api/similar/upload", files=picture).status_code == 413


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"text": "\\ud800"}', b"[" * 100_000])
def test_a_body_that_is_no_request_is_refused(client: TestClient, content: bytes) -> None:
    answer = client.post("/api/search", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert list(answer.json()) == ["detail"]


def test_no_answer_holds_a_path(client: TestClient, served: Searcher, made_store: Path) -> None:
    found = client.post("/api/search", json={"text": "snail", "k": 60})
    key = found.json()["results"][0]["key"]
    answers = [
        found,
        client.post("/api/similar", json={"key": key}),
        client.post("/api/similar", json={"key": "1"}),
        client.post("/api/search", json={"text": "snail", "right": [key], "wrong": ["1"]}),
        client.post("/api/search", json={"text": "snail", "right": [key], "where": "nothing = 1"}),
        client.post("/api/selections", json={"name": "p", "keys": [key]}),
        *(client.get(path) for path in ("/api/info", "/metrics", "/openapi.json", "/", "/api/selections/p", "/health")),
    ]
    for answer in answers:
        assert str(made_store) not in answer.text
        assert str(served.index.store.folder) not in answer.text


def test_a_bug_is_told_without_its_details(served: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "encode_texts", lambda texts: 1 / 0)
    client = TestClient(create_app(served), base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
    answer = client.post("/api/search", json=GOOD)
    assert answer.status_code == 500
    assert answer.json() == {"detail": "something went wrong inside the service; its log has the details"}


def test_metrics_count_by_route_and_name_no_path(client: TestClient) -> None:
    client.post("/api/search", json=GOOD)
    client.get("/api/image/77")
    client.get("/secret/path")
    text = client.get("/metrics").text
    assert 'forclip_requests_total{method="POST",route="/api/search",status="200"} 1.0' in text
    assert 'forclip_requests_total{method="GET",route="/api/image/{key}",status="404"} 1.0' in text
    assert "forclip_images 60.0" in text
    assert "secret" not in text
