"""Fixtures of the service: a small store of toy world images, clients, a running service and a browser page."""

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect, sync_playwright

from forclip.calibration.model import Calibration
from forclip.config import ModelConfig
from forclip.data.metadata import read_metadata
from forclip.embedding.ingest import index_images
from forclip.index.image_index import Index
from forclip.search.searcher import AnySearcher, Searcher, open_searcher
from forclip.server.app import create_app
from forclip.toyworld.dataset import ToyWorld

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
expect.set_options(timeout=20_000)  # a busy machine takes longer than Playwright's 5 seconds
PICTURES = 60
CALIBRATION = Calibration(-3.0, 0.5, 2.5, 0.0, 0.95, 0.2, 0.1, 10, 60, {})
HOSTILE_NAME = "<img src=x onerror=hacked()>.png"
HOSTILE_VALUE = "</script><script>hacked()</script>"


@pytest.fixture(scope="session")
def store_folder(small_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `pictures` and their `store`. One picture has a hostile name, another hostile metadata."""
    folder = tmp_path_factory.mktemp("served")
    pictures = folder / "pictures"
    pictures.mkdir()
    for k, file in enumerate(sorted(small_world.images.rglob("*.*"))[:PICTURES]):
        shutil.copy2(file, pictures / (HOSTILE_NAME if k == 0 else file.name))
    names = sorted(file.name for file in pictures.iterdir())
    rows = [
        f'"pictures/{n}",{"front" if k % 2 else "back"},{HOSTILE_VALUE if k == 1 else "=1+1"}'
        for k, n in enumerate(names)
    ]
    (folder / "meta.csv").write_text("\n".join(["image,camera,remark", *rows]) + "\n")
    index_images(
        str(pictures), folder / "store", model=ModelConfig("forclip-mini"), metadata=read_metadata(folder / "meta.csv")
    )
    return folder


@pytest.fixture(scope="session")
def model(store_folder: Path) -> Searcher:
    """Searcher over the shared store. Load its model once per session and never change the store."""
    return open_searcher(store_folder / "store")


@pytest.fixture
def served(store_folder: Path, model: Searcher, tmp_path: Path) -> Searcher:
    """Searcher over a copy of the store that a test may change. The pictures are shared."""
    shutil.copytree(store_folder / "store", tmp_path / "store")
    return Searcher(Index(tmp_path / "store"), model.model)


@pytest.fixture
def own_pictures(store_folder: Path, model: Searcher, tmp_path: Path) -> tuple[Searcher, Path]:
    """Searcher over three pictures that a test may change, and their folder."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for file in sorted((store_folder / "pictures").iterdir())[:3]:
        shutil.copy2(file, pictures / file.name)
    index_images(str(pictures), tmp_path / "own.store", model=ModelConfig("forclip-mini"))
    return Searcher(Index(tmp_path / "own.store"), model.model), pictures


@pytest.fixture
def client(served: Searcher) -> TestClient:
    """Client of a service that was not warmed up: that takes longer than most tests."""
    return client_of(served)


@contextmanager
def serving(app: FastAPI, warm_up: bool = True) -> Iterator[str]:
    """Run a service on a free port inside the `with` block; yield its address. warm_up: also call its lifespan."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lifespan: Literal["on", "off"] = "on" if warm_up else "off"
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan=lifespan))
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def address(served: Searcher) -> Iterator[str]:
    """Address of a service that runs for one test."""
    with serving(create_app(served), warm_up=False) as address:
        yield address


@pytest.fixture(scope="module")
def shared_address(store_folder: Path, model: Searcher, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a service that runs for one module, over a copy of the store, with a calibration."""
    folder = tmp_path_factory.mktemp("shared") / "store"
    shutil.copytree(store_folder / "store", folder)
    with serving(create_app(Searcher(Index(folder), replace(model.model, calibration=CALIBRATION)))) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield launched
        launched.close()


@contextmanager
def open_page(
    browser: Browser, address: str, allowed: str = "ERR_FAILED", width: int = 1200, height: int = 800, **options: Any
) -> Iterator[Page]:
    """Open the page. After the test, fail on any script error, console error or request to another host.

    allowed: part of console errors that a test causes on purpose, by default by aborting requests; width, height: of
    the screen; options: of the browser's context.
    """
    context = browser.new_context(viewport={"width": width, "height": height}, **options)
    opened = context.new_page()
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda m: errors.append(m.text) if m.type == "error" and allowed not in m.text else None)
    opened.on("request", lambda r: None if r.url.startswith((address, "data:")) else errors.append(r.url))
    opened.goto(address)
    expect(opened.locator("#size")).to_contain_text(f"{PICTURES} images")
    yield opened
    assert errors == []
    context.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page of a service without labels."""
    with open_page(browser, address) as opened:
        yield opened


@pytest.fixture
def page_without_selection(browser: Browser, shared_address: str) -> Iterator[Page]:
    """The page of a service that tests share, with an empty selection."""
    httpx.delete(f"{shared_address}api/selections/picked")
    with open_page(browser, shared_address) as opened:
        yield opened


@pytest.fixture
def calibration() -> Calibration:
    """Invented parameters: a z-score of 2 means a probability of one half."""
    return CALIBRATION


def client_of(searcher: AnySearcher, **options: Any) -> TestClient:
    return TestClient(create_app(searcher, **options), base_url="http://127.0.0.1:8000")


def search(client: TestClient, **request: Any) -> dict[str, Any]:
    """Send a search request that must succeed; return the JSON of its response."""
    response = client.post("/api/search", json=request)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()
    return content


def search_keys(client: TestClient, count: int) -> list[str]:
    """Return the keys of the best `count` images for "snail"."""
    return [result["key"] for result in search(client, text="snail", k=count)["results"]]
