"""Indexing while the service runs: forclip quickstart."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, expect
from typer.testing import CliRunner

from forclip.cli import app
from forclip.config import ModelConfig
from forclip.embedding.ingest import IndexSummary
from forclip.progress import Track, untracked
from forclip.search.searcher import AnySearcher
from forclip.server.app import create_app
from forclip.server.indexing import Indexing
from forclip.server.quickstart import default_store, index_in_background, prepare_store
from tests.server.conftest import client_of, search, serving

MINI = ModelConfig("forclip-mini")


@pytest.fixture
def photos(store_folder: Path, tmp_path: Path) -> Path:
    """40 pictures, more than are stored at once, and one that can't be read."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    for file in sorted((store_folder / "pictures").iterdir())[:40]:
        shutil.copy2(file, folder / file.name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def wait_for_end(client: TestClient) -> dict[str, object]:
    end = time.monotonic() + 60
    while (progress := client.get("/api/indexing").json())["state"] in ("looking", "indexing"):
        assert time.monotonic() < end
        time.sleep(0.05)
    return dict(progress)


def make_job(steps: Callable[[Track], None]) -> Callable[[Track], IndexSummary]:
    def job(track: Track) -> IndexSummary:
        steps(track)
        return IndexSummary(3, 0, 0, {}, 0, (), (), {})

    return job


def test_a_folder_becomes_searchable_while_it_is_served(photos: Path) -> None:
    store = default_store(str(photos))
    assert store == photos.with_name("my photos.store")
    searcher = prepare_store(str(photos), store, MINI, "cpu")
    assert len(searcher.index) == 0
    ended: list[IndexSummary | str] = []
    indexing = index_in_background(str(photos), store, searcher, "cpu", "auto", untracked, ended.append)
    with client_of(searcher, indexing=indexing) as client:
        progress = wait_for_end(client)
        assert (progress["state"], progress["done"], progress["total"], progress["unreadable"]) == ("done", 41, 41, 1)
        assert progress["source"] == str(photos)
        assert client.get("/api/info").json()["images"] == 40
        assert len(search(client, text="snail", k=60)["results"]) == 40
    assert isinstance(ended[0], IndexSummary)
    # The next time the store is opened, and only what is new is indexed.
    (photos / sorted(photos.iterdir())[1].name).unlink()
    again = prepare_store(str(photos), store, None, "cpu")
    assert len(again.index) == 40


def test_a_store_without_images_is_served(photos: Path) -> None:
    searcher = prepare_store(str(photos), photos.with_name("s"), MINI, "cpu")
    with client_of(searcher) as client:
        assert client.get("/api/indexing").json()["state"] == "none"
        assert search(client, text="snail")["results"] == []


def test_what_has_no_pictures_is_refused_and_nothing_is_created(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"no images found.*1 \.txt"):
        prepare_store(str(tmp_path / "empty"), tmp_path / "s", MINI, "cpu")
    assert not (tmp_path / "s").exists()
    with pytest.raises(ValueError, match="gone: no folder"):
        default_store(str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="--to"):
        default_store("s3://bucket/photos")


def test_a_failure_is_reported_and_the_service_goes_on(served: AnySearcher) -> None:
    def fail(track: Track) -> None:
        track("embedding", 3)(2)
        raise ValueError("the disk is full")

    ended: list[IndexSummary | str] = []
    with client_of(served, indexing=Indexing("photos", make_job(fail), ended.append)) as client:
        progress = wait_for_end(client)
        assert (progress["state"], progress["message"], progress["done"]) == ("failed", "the disk is full", 2)
        assert search(client, text="snail")["results"]
    assert ended == ["the disk is full"]


def test_the_time_left_is_that_of_the_images() -> None:
    """Other stages have items of their own."""
    ended, left = list[IndexSummary | str](), list[float | None]()

    def work(track: Track) -> None:
        track("hashing", 100)(50)
        assert indexing.current().state == "looking"
        advance = track("embedding", 4)
        left.append(indexing.current().seconds_left)
        time.sleep(0.02)
        advance(3)
        left.append(indexing.current().seconds_left)
        track("search index", 7)(2)
        assert (indexing.current().done, indexing.current().total) == (3, 4)

    indexing = Indexing("photos", make_job(work), ended.append)
    indexing.start()
    indexing._thread.join(10)
    assert left[0] is None
    assert left[1] is not None
    assert 0.02 / 3 <= left[1] < 5
    assert (indexing.current().state, indexing.current().seconds_left) == ("done", 0.0)
    assert isinstance(ended[0], IndexSummary)


def test_stopping_waits_for_the_job_and_ends_it() -> None:
    reached, ended = Event(), list[IndexSummary | str]()

    def endless(track: Track) -> None:
        advance = track("embedding", 10**9)
        while True:
            advance(1)
            reached.set()

    indexing = Indexing("photos", make_job(endless), ended.append)
    indexing.stop()  # before it was started
    indexing = Indexing("photos", make_job(endless), ended.append)
    indexing.start()
    assert reached.wait(10)
    indexing.stop()
    assert indexing.current().state == "indexing"
    assert not indexing.is_running()
    assert ended == []


def test_stopping_does_not_wait_for_images_that_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forclip.server.indexing._SECONDS_TO_STOP", 0.01)
    more, reached = Event(), Event()

    def slow(track: Track) -> None:
        reached.set()
        more.wait(30)

    indexing = Indexing("photos", make_job(slow), lambda ended: None)
    indexing.start()
    assert reached.wait(10)
    indexing.stop()
    assert indexing.is_running()
    more.set()


def test_the_page_shows_the_progress(browser: Browser, served: AnySearcher) -> None:
    more = Event()

    def half(track: Track) -> None:
        track("embedding", 2000)(1000)
        more.wait(30)

    with serving(create_app(served, indexing=Indexing("photos", make_job(half), lambda ended: None))) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#indexing")).to_contain_text("1,000 of 2,000 images")
        assert page.locator("#indexing progress").get_attribute("value") == "1000"
        more.set()
        expect(page.locator("#indexing")).to_contain_text("2,000 new images indexed")
        expect(page.locator("#indexing progress")).to_be_hidden()
        page.close()


def test_the_command(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a service that only indexes."""
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")

    def serve(*arguments: object, indexing: Indexing, started: Callable[[], None]) -> None:
        started()
        indexing.start()
        while indexing.current().state in ("looking", "indexing"):
            time.sleep(0.05)
        indexing.stop()

    monkeypatch.setattr("forclip.server.app.serve", serve)
    command = ["quickstart", str(photos), "--to", str(tmp_path / "own.store"), "--model", "forclip-mini"]
    options = [
        "--host",
        "127.0.0.1",
        "--port",
        "18655",
        "--token",
        "a long token",
        "--device",
        "cpu",
        "--compute",
        "float32",
    ]
    done = CliRunner().invoke(app, [*command, *options])
    assert done.exit_code == 0, done.output
    assert "40 added, 0 updated, 0 unchanged, 1 could not be read" in done.stdout
    link = "http://127.0.0.1:18655/login?token=a%20long%20token"
    assert opened == [link]
    assert link in done.stdout
    again = CliRunner().invoke(app, [*command[:4], "--port", "18655", "--no-open"])
    assert "0 added, 0 updated, 40 unchanged" in again.stdout
    assert opened == [link]
