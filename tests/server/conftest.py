"""A small store made from the toy world's pictures, and an application that serves it."""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect, sync_playwright

from forclip.calibration.model import Calibration
from forclip.data.metadata import read_metadata
from forclip.embedding.ingest import index_images
from forclip.search.searcher import Searcher, open_searcher
from forclip.server.app import create_app
from forclip.toyworld.dataset import ToyWorld

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = 60
HOSTILE_NAME = "<img src=x onerror=hacked()>.png"
HOSTILE_VALUE = "</script><script>hacked()</script>"


@pytest.fixture(scope="session")
def made_store(small_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds `pictures` and `store`: one picture's name and one's metadata are hostile."""
    folder = tmp_path_factory.mktemp("served")
    pictures = folder / "pictures"
    pictures.mkdir()
    found = sorted(small_world.images.rglob("*.*"))[:PICTURES]
    for k, file in enumerate(found):
        shutil.copy2(file, pictures / (HOSTILE_NAME if k == 0 else file.name))
    names = sorted(file.name for file in pictures.iterdir())
    rows = [
        f'"pictures/{n}",{"front" if k % 2 else "back"},{HOSTILE_VALUE if k == 1 else "=1+1"}'
        for k, n in enumerate(names)
    ]
    (folder / "meta.csv").write_text("\n".join(["image,camera,remark", *rows]) + "\n")
    index_images(str(pictures), folder / "store", metadata=read_metadata(folder / "meta.csv"))
    return folder


@pytest.fixture(scope="session")
def model(made_store: Path) -> Searcher:
    """Only for its model, which takes a while to load."""
    return open_searcher(made_store / "store")


@pytest.fixture
def served(made_store: Path, model: Searcher, tmp_path: Path) -> Searcher:
    """A copy of the store that a test may change; the pictures are shared."""
    from forclip.index.image_index import Index

    shutil.copytree(made_store / "store", tmp_path / "store")
    return Searcher(Index(tmp_path / "store"), model.model)


@pytest.fixture
def own_pictures(made_store: Path, model: Searcher, tmp_path: Path) -> tuple[Searcher, Path]:
    """A store of a few pictures that a test may change, and their folder."""
    from forclip.index.image_index import Index

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for file in sorted((made_store / "pictures").iterdir())[:3]:
        shutil.copy2(file, pictures / file.name)
    to = tmp_path / "own.store"
    index_images(str(pictures), to)
    return Searcher(Index(to), model.model), pictures


@pytest.fixture
def client(served: Searcher) -> Iterator[TestClient]:
    with TestClient(create_app(served), base_url="http://127.0.0.1:8000") as made:
        yield made


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address of a service that runs for as long."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def address(served: Searcher) -> Iterator[str]:
    """Of a service that runs for one test."""
    with serving(create_app(served)) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield launched
        launched.close()


@contextmanager
def open_page(browser: Browser, address: str) -> Iterator[Page]:
    """Freshly opened. Nothing may go wrong in it, and nothing may be asked of anyone else, whatever a test does."""
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    # What a test itself cuts off is no fault of the page.
    opened.on("console", lambda m: wrong.append(m.text) if m.type == "error" and "ERR_FAILED" not in m.text else None)
    opened.on("request", lambda asked: None if asked.url.startswith((address, "data:")) else wrong.append(asked.url))
    opened.goto(address)
    expect(opened.locator("#size")).to_contain_text(f"{PICTURES} images")
    yield opened
    assert wrong == []
    context.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """Of a service without labels."""
    with open_page(browser, address) as opened:
        yield opened


@pytest.fixture
def calibration() -> Calibration:
    """Made up: with a z of 2 an image is as likely as not to be right."""
    return Calibration(-3.0, 0.5, 2.5, 0.0, 0.95, 0.2, 0.1, 10, 60, {})


def client_of(searcher: Searcher) -> TestClient:
    return TestClient(create_app(searcher), base_url="http://127.0.0.1:8000")
