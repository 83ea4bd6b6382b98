"""A service of two processes behaves as one: over the real protocol, with real signals."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from typer.testing import CliRunner

from forclip.cli import app
from forclip.config import ModelConfig
from forclip.index.image_index import Index
from forclip.models.retrieval_model import load_model
from forclip.search.searcher import Searcher
from forclip.server.security import Access
from forclip.server.shared_weights import use_weights, write_weights
from forclip.server.workers import Served, listen_for_workers, serve_by_workers
from forclip.toyworld.dataset import ToyWorld
from tests.server.conftest import PICTURES

TOKEN = "a token of the test"
WORKERS = 2
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@dataclass(frozen=True)
class Running:
    """A service. temporary: its folder for temporary files; errors: what it writes to stderr."""

    process: subprocess.Popen[str]
    address: str
    store: Path
    temporary: Path
    errors: Path

    def workers(self) -> list[int]:
        """The ids of its processes that answer requests."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(c) for c in children if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request over a connection of its own, so that any worker may answer it."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.request(method, f"{self.address}{path}", headers=headers, timeout=60, **options)

    def call_often(self, count: int, method: str, path: str, **options: Any) -> list[httpx.Response]:
        """Send equal requests at the same time."""
        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(lambda n: self.call(method, path, **options), range(count)))


@contextmanager
def running(store: Path, temporary: Path, *options: str) -> Iterator[Running]:
    temporary.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "forclip", "serve", str(store), "--port", str(port), "--workers", str(WORKERS)]
    environment = {**os.environ, "FORCLIP_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)}
    errors = temporary.with_suffix(".log")
    with errors.open("w") as log:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"{PICTURES} images: "), errors.read_text()
        yield Running(process, f"http://127.0.0.1:{port}/", store, temporary, errors)
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], Any], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answers(service: Running) -> bool:
    try:
        return service.call("GET", "health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def service(store_folder: Path, small_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("workers")
    shutil.copytree(store_folder / "store", folder / "store")
    labels = ["--annotations", str(small_world.gallery_file), "--images", str(store_folder / "pictures")]
    with running(folder / "store", folder / "temporary", *labels) as service:
        wait_until(lambda: answers(service))
        yield service


@linux
def test_all_workers_give_the_library_s_answers(service: Running, model: Searcher) -> None:
    assert len(service.workers()) == WORKERS
    expected = [Path(r.uri).name for r in model.search("snail", 7)]
    for response in service.call_often(12, "POST", "api/search", json={"text": "snail", "k": 7}):
        assert [r["name"] for r in response.json()["results"]] == expected


def test_changes_of_one_selection_by_all_workers_are_kept(service: Running) -> None:
    keys = [r["key"] for r in service.call("POST", "api/search", json={"text": "snail", "k": 24}).json()["results"]]
    assert service.call("POST", "api/selections", json={"name": "mine"}).status_code == 201
    with ThreadPoolExecutor(8) as pool:
        added = pool.map(lambda k: service.call("POST", "api/selections/mine/add", json={"keys": [k]}), keys)
        assert {response.status_code for response in added} == {200}
    for response in service.call_often(8, "GET", "api/selections/mine"):
        assert sorted(response.json()["keys"]) == sorted(keys)


def test_a_login_holds_for_all_workers(service: Running) -> None:
    login = httpx.get(f"{service.address}login", params={"token": TOKEN})
    cookies = dict(login.cookies)
    assert {httpx.get(f"{service.address}api/info", cookies=cookies).status_code for _ in range(8)} == {200}
    assert {httpx.get(f"{service.address}api/info").status_code for _ in range(8)} == {401}


def test_metrics_are_those_of_all_workers(service: Running) -> None:
    def count() -> int:
        text = service.call("GET", "metrics").text
        assert f"forclip_images {PICTURES}" in text
        found = re.search(r'forclip_requests_total\{.*route="/api/info",status="200"\} ([0-9.]+)', text)
        return int(float(found[1])) if found else 0

    before = count()
    service.call_often(20, "GET", "api/info")
    assert [count() for _ in range(6)] == [before + 20] * 6


def test_classes_are_measured_once_and_shown_by_all_workers(service: Running) -> None:
    wait_until(lambda: service.call("GET", "api/classes").json()["state"] == "measured")
    tables = [response.json() for response in service.call_often(8, "GET", "api/classes")]
    assert tables[0]["means"]["all"] is not None
    assert tables == [tables[0]] * 8


def test_all_workers_see_a_change_of_the_store_at_once(service: Running) -> None:
    index = Index(service.store)
    gone = service.call("POST", "api/search", json={"text": "snail", "k": 1}).json()["results"][0]["name"]
    index.delete_ids([i for i in index.store.ids() if i.endswith(gone)])
    for response in service.call_often(8, "POST", "api/search", json={"text": "snail", "k": PICTURES}):
        assert len(response.json()["results"]) == PICTURES - 1
    wait_until(lambda: service.call("GET", "api/classes").json()["state"] == "measured")


@linux
def test_a_worker_that_is_killed_is_replaced(service: Running) -> None:
    before = service.workers()
    os.kill(before[0], signal.SIGKILL)
    wait_until(lambda: len(set(service.workers()) - {before[0]}) == WORKERS)
    assert before[1] in service.workers()
    # The other one answers while the replacement loads, which may die as well.
    assert all(response.status_code == 200 for response in service.call_often(16, "GET", "health"))
    (replacement,) = set(service.workers()) - set(before)
    os.kill(replacement, signal.SIGKILL)
    wait_until(lambda: len(set(service.workers()) - {before[0], replacement}) == WORKERS)
    for response in service.call_often(8, "POST", "api/search", json={"text": "kite", "k": 2}):
        assert len(response.json()["results"]) == 2
    assert "worker 0 stopped, exit code -9" in service.errors.read_text()


@linux
def test_an_interrupt_ends_all_processes(service: Running) -> None:
    """As Ctrl-C does, the signal reaches every process. Comes last."""
    workers = service.workers()
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.process.wait(60) == 130
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert "Traceback" not in service.errors.read_text()
    assert list(service.temporary.glob("forclip*")) == []


@linux
def test_an_interrupt_while_workers_load_ends_all_processes(store_folder: Path, tmp_path: Path) -> None:
    with running(store_folder / "store", tmp_path / "temporary") as service:
        wait_until(service.workers)  # they load for seconds
        workers = service.workers()
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.process.wait(60) == 130
        assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
        assert service.errors.read_text() == "forclip: interrupted\n"


@linux
def test_workers_end_with_the_first_process(store_folder: Path, tmp_path: Path) -> None:
    with running(store_folder / "store", tmp_path / "temporary") as service:
        wait_until(lambda: len(service.workers()) == WORKERS)
        workers = service.workers()
        service.process.kill()
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_a_worker_that_cannot_start_ends_the_service(
    served: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    what = Served(str(tmp_path / "no store"), "cpu", None, Access(), None, 0)
    with pytest.raises(ValueError, match="worker 0 stopped before it could answer, with exit code 2"):
        serve_by_workers(what, served, listen_for_workers(Access(), 0, 1))


def test_a_port_in_use_is_reported_for_workers_too(store_folder: Path) -> None:
    sockets = listen_for_workers(Access(), 0, 2)
    for listener in sockets:
        listener.listen()
    port = str(sockets[0].getsockname()[1])
    result = CliRunner().invoke(app, ["serve", str(store_folder / "store"), "--port", port, "--workers", "2"])
    assert result.exit_code == 2
    assert f"127.0.0.1:{port}" in result.stderr
    for listener in sockets:
        listener.close()


def test_shared_weights_give_the_same_vectors(tmp_path: Path) -> None:
    first, second = (load_model(ModelConfig("forclip-mini")) for _ in range(2))
    expected = first.encode_query("a snail")
    write_weights(first, tmp_path)
    with torch.no_grad():
        for parameter in second.backbone.model.parameters():  # type: ignore[attr-defined]
            parameter.zero_()
    use_weights(second, tmp_path)
    assert torch.equal(second.encode_query("a snail"), expected)
    file = next(tmp_path.iterdir())
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ValueError, match=file.name):
        use_weights(replace(second), tmp_path)
