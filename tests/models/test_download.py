"""Files of a hub: a server on this machine stands in for it. What is downloaded once needs no network again."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from forclip.models import download
from forclip.models.download import NotReachable, cached_file, hub_file, hub_folder
from forclip.progress import Notice
from tests.models.hub import without_network

FILES = {"org/model": {"config.json": b"{}", "model.safetensors": bytes(2_000_000), "tokenizer.json": b"{}"}}


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does: files with their hash and size, and the reason why there is none."""

    requests = 0

    def do_HEAD(self) -> None:
        Hub.requests += 1
        owner, name, *rest = self.path.strip("/").split("/")
        files = FILES.get(f"{owner}/{name}")
        content = None if files is None else files.get(rest[-1])
        self.send_response(401 if files is None else 404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "RepoNotFound" if files is None else "EntryNotFound")
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content or b"").hexdigest()}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET" and content is not None:
            self.wfile.write(content)

    do_GET = do_HEAD  # noqa: N815 (a name of the standard library)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the server; its files are cached in `tmp_path`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(download, "HUB", address)
    yield address
    server.shutdown()
    server.server_close()


def test_a_large_file_is_announced_with_its_size_and_downloaded_once(hub: str) -> None:
    names = ("model.bin", "model.safetensors")
    assert cached_file("org/model", names) is None
    with pytest.warns(Notice, match=r"org/model, model\.safetensors: 2 MB"):
        file = hub_file("org/model", names)
    assert file.read_bytes() == FILES["org/model"]["model.safetensors"]
    before = Hub.requests
    assert hub_file("org/model", names) == file == cached_file("org/model", names)
    assert Hub.requests == before


def test_optional_files_are_fetched_or_remembered_as_missing(hub: str) -> None:
    hub_file("org/model", ("config.json",))  # a part of the repository in the cache is not taken for all of it
    folder = hub_folder("org/model", ("tokenizer.json",), ("config.json", "merges.txt"))
    assert {file.name for file in folder.iterdir()} == {"config.json", "tokenizer.json"}
    before = Hub.requests
    assert hub_folder("org/model", ("tokenizer.json",), ("config.json", "merges.txt")) == folder
    assert Hub.requests == before


def test_what_the_hub_does_not_have_is_named(hub: str) -> None:
    with pytest.raises(ValueError, match=r"org/model: has no a\.bin or b\.bin"):
        hub_file("org/model", ("a.bin", "b.bin"))
    with pytest.raises(ValueError, match="org/none: no such public model"):
        hub_file("org/none", ("a.bin",))


def test_without_a_network_the_cache_is_used(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_file("org/model", ("tokenizer.json",))
    without_network(monkeypatch, tmp_path)
    assert (hub_folder("org/model", ("tokenizer.json",), ("merges.txt",)) / "tokenizer.json").exists()
    with pytest.raises(NotReachable, match=hub):
        hub_file("org/model", ("config.json",))
