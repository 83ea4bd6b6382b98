"""No route does anything on the event loop that may take long, whatever kind of store and pictures it serves."""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from threading import Event, get_ident
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from typer.testing import CliRunner

from forclip.cli import app as command_line
from forclip.config import ModelConfig, SourceConfig
from forclip.embedding.ingest import index_images
from forclip.index.milvus.index import MilvusIndex
from forclip.search import request
from forclip.search.labels import StoreLabels, load_store_labels
from forclip.search.searcher import AnySearcher, Searcher, open_searcher
from forclip.server import class_table, image_routes, limits, pictures
from forclip.server.app import create_app
from forclip.server.map_routes import MapFile
from forclip.server.state_file import StateFile
from forclip.toyworld.dataset import ToyWorld
from tests.milvus_server import new_name
from tests.s3 import s3_client

ROUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/api/search", {"json": {"text": "snail", "where": "width > 0"}}),
    ("POST", "/api/search", {"json": {"text": "kite"}}),
    ("POST", "/api/search", {"json": {"text": "kite", "k": limits.K}}),
    ("POST", "/api/search", {"json": {"text": "kite"}, "headers": {"Accept": "application/x-ndjson"}}),
    ("POST", "/api/search", {"json": {"text": "kite", "any_of": ["drum"]}}),
    ("POST", "/api/search", {"json": {"text": "kite", "right": ["KEY"]}}),
    ("POST", "/api/search", {"json": {"text": "kite", "collapse": 0.95}}),
    ("POST", "/api/similar", {"json": {"key": "KEY"}}),
    ("POST", "/api/similar", {"json": {"key": "KEY", "box": {"x0": 0, "y0": 0, "x1": 0.2, "y1": 0.1}}}),
    ("POST", "/api/similar", {"json": {"keys": ["KEY"]}}),
    ("POST", "/api/duplicates", {"json": {"keys": ["KEY"]}}),
    ("GET", "/api/map", {}),
    ("POST", "/api/map/scores", {"json": {"search": {"text": "snail"}}}),
    ("POST", "/api/map/scores", {"json": {"similar": {"key": "KEY"}}}),
    ("GET", "/api/details/KEY", {}),
    ("POST", "/api/similar/upload", {"files": {"picture": ("a", b"PICTURE")}}),
    ("POST", "/api/look", {"json": {"key": "KEY", "text": "snail"}}),
    ("POST", "/api/look", {"json": {"key": "KEY"}}),
    ("POST", "/api/export", {"json": {"text": "snail", "format": "csv"}}),
    ("POST", "/api/export", {"json": {"text": "snail", "k": 2, "format": "fiftyone"}}),
    ("POST", "/api/export/similar", {"json": {"key": "KEY", "format": "coco"}}),
    ("POST", "/api/export/upload", {"files": {"picture": ("a", b"PICTURE")}}),
    ("POST", "/api/export/verdicts", {"json": {"label": "snail", "right": ["KEY"]}}),
    ("POST", "/api/selections", {"json": {"name": "mine", "keys": ["KEY"]}}),
    ("GET", "/api/selections/mine", {}),
    ("GET", "/api/selections/mine/export?text=snail&format=coco", {}),
    ("POST", "/api/selections/mine/add", {"json": {"keys": ["KEY"]}}),
    ("POST", "/api/selections/mine/remove", {"json": {"keys": ["KEY"]}}),
    ("DELETE", "/api/selections/mine", {}),
    ("GET", "/api/selections", {}),
    ("POST", "/api/reviewers/mine/verdicts", {"json": {"search": "snail", "right": ["KEY"]}}),
    ("POST", "/api/reviewers/mine/saved", {"json": {"title": "snails", "address": "q=snail"}}),
    ("GET", "/api/reviewers/mine", {}),
    ("POST", "/api/reviewers/mine/saved/remove", {"json": {"title": "snails"}}),
    ("GET", "/api/reviewers", {}),
    ("POST", "/api/reviewers/mine/queue", {"json": {"search": "snail", "text": "snail"}}),
    ("POST", "/api/reviewers/mine/queue/answer", {"json": {"search": "snail", "position": 0, "answer": "right"}}),
    ("POST", "/api/reviewers/mine/queue/undo", {"json": {"search": "snail", "position": 1}}),
    ("GET", "/api/reviewers/mine/queues", {}),
    ("GET", "/api/sample?count=3", {}),
    ("GET", "/api/columns", {}),
    ("GET", "/api/indexing", {}),
    ("GET", "/api/image/KEY", {}),
    ("GET", "/api/thumbnail/KEY", {}),
    ("GET", "/api/classes", {}),
    ("GET", "/api/info", {}),
    ("GET", "/health", {}),
    ("GET", "/metrics", {}),
    ("GET", "/login", {}),
    ("GET", "/openapi.json", {}),
    ("GET", "/", {}),
]

_loop_threads: set[int] = set()
_on_loop: list[str] = []
_SLOW = ("open", "os.", "shutil.", "tempfile.", "socket.connect", "socket.getaddrinfo", "subprocess.", "time.sleep")


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if _loop_threads and get_ident() in _loop_threads and event.startswith(_SLOW):
        if str(arguments[:1]).endswith(".py',)"):  # FastAPI reads a route's source once, for its error messages
            return
        _on_loop.append(f"{event} {arguments[:1]}")


sys.addaudithook(_record)  # cannot be removed; without a loop under test it does nothing


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Any, str], None]]:
    """Return a function that records calls of a method or function on the event loop's thread."""
    _on_loop.clear()

    def wrap(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def guarded(*args: Any, **options: Any) -> Any:
            if get_ident() in _loop_threads:
                _on_loop.append(name)
            return call(*args, **options)

        monkeypatch.setattr(owner, name, guarded)

    yield wrap
    _loop_threads.clear()


@pytest.fixture
def labels(model: Searcher, store_folder: Path, small_world: ToyWorld) -> StoreLabels:
    return load_store_labels(model.index, SourceConfig(small_world.gallery_file, store_folder / "pictures"))


@pytest.fixture(params=["folder", "milvus", "bucket"])
def any_searcher(request: pytest.FixtureRequest, served: Searcher, tmp_path: Path) -> AnySearcher:
    """Searcher over a local store, a published one, and one of pictures in a bucket."""
    if request.param == "folder":
        return served
    if request.param == "milvus":
        address = f"{request.getfixturevalue('milvus_server')}/{new_name()}"
        published = CliRunner().invoke(command_line, ["publish", served.index.name, address])
        assert published.exit_code == 0, published.output
        return Searcher(MilvusIndex(address), served.model)
    bucket, endpoint = request.getfixturevalue("bucket"), request.getfixturevalue("s3_server")
    folder = tmp_path / "some"
    folder.mkdir()
    for k, result in enumerate(served.search("snail", 4)):
        shutil.copy2(result.uri, folder / f"{k}.jpg")
        client = s3_client(endpoint)
        client.upload_file(result.uri, bucket.removeprefix("s3://"), f"in/{k}.jpg")
    index_images(f"{bucket}/in", tmp_path / "of_bucket", model=ModelConfig("forclip-mini"))
    return open_searcher(tmp_path / "of_bucket")


def test_no_route_blocks_the_event_loop(
    any_searcher: AnySearcher,
    labels: StoreLabels,
    guard: Callable[[Any, str], None],
    tmp_path: Path,
) -> None:
    """Searches, files, connections, decoding and encoding run outside the event loop's thread."""
    index = any_searcher.index
    for owner, name in [
        (index, "view"),
        (index, "info"),
        (index, "rankings"),
        (index, "search_picture"),
        (index, "vectors_of"),
        (type(index.store), "version"),
        (any_searcher.model.backbone, "encode_text"),
        (request, "run_searches"),
        (image_routes, "picture_bytes"),
        (pictures, "read_bytes"),
        (pictures, "decode_picture"),
        (class_table, "evaluate_classes"),
        (StateFile, "read"),
        (index, "column_blocks"),
        (index, "search_many"),
        (index, "image_vectors"),
        (index, "mean_vectors"),
        (MapFile, "read"),
    ]:
        if callable(getattr(owner, name)):
            guard(owner, name)
    if isinstance(index, MilvusIndex):
        for name in ("query", "rows", "count"):
            guard(type(index.server), name)
    else:
        guard(index.store, "table")
    first = any_searcher.search("snail", 1)[0]
    picture = tmp_path / "a.png"  # larger than the megabyte that Starlette keeps in memory
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)).save(picture)
    content = picture.read_bytes()
    app = create_app(any_searcher, labels=labels)
    paths = set(app.openapi()["paths"]) | {"/openapi.json"}
    templates = {re.sub(r"KEY", "{key}", re.sub(r"mine", "{name}", path.split("?")[0])) for _, path, _ in ROUTES}
    assert paths == templates, "ROUTES lists every route"
    app.openapi_schema = None  # as after the start

    async def run() -> None:
        _loop_threads.add(get_ident())
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(app.router.lifespan_context(app))
            assert app.openapi_schema is not None, "made before the first request for it"
            client = await stack.enter_async_context(client_of_app(app))
            for method, path, options in ROUTES:
                filled = json.loads(json.dumps(options.get("json")).replace("KEY", str(first.key)))
                files = {"picture": ("a", content)} if "files" in options else None
                path, headers = path.replace("KEY", str(first.key)), options.get("headers")
                response = await client.request(method, path, json=filled, files=files, headers=headers)
                assert response.status_code < 400, (path, response.text)

    with ThreadPoolExecutor(1) as thread:  # the browser tests may run a loop in this thread
        thread.submit(asyncio.run, run()).result()
    assert _on_loop == []


def client_of_app(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000")


def test_pictures_of_a_slow_bucket_delay_no_search(served: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else is answered while more pictures than there are threads wait for their bucket."""
    done, app = Event(), create_app(served)

    def wait(file: Any) -> bytes:
        assert done.wait(30)
        return Path(file.uri).read_bytes()

    monkeypatch.setattr(image_routes, "picture_bytes", wait)
    results = served.search("snail", 60)

    async def run() -> list[int]:
        async with client_of_app(app) as client:
            waiting = [asyncio.create_task(client.get(f"/api/image/{r.key}")) for r in results]
            await asyncio.sleep(0.1)
            others = [
                await asyncio.wait_for(client.request(method, path, **options), 20)
                for method, path, options in ROUTES
                if "KEY" not in path + json.dumps(options.get("json", "")) and "files" not in options
                if "mine" not in path and "fiftyone" not in str(options)
            ]
            assert not any(task.done() for task in waiting)
            done.set()
            return [response.status_code for response in [*others, *[await task for task in waiting]]]

    with ThreadPoolExecutor(1) as thread:
        statuses = thread.submit(asyncio.run, run()).result()
    assert max(statuses) < 400
