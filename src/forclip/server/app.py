"""The service as an application, and running it until it is stopped."""

import errno
import gc
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Message

from forclip import __version__
from forclip.one_line import one_line
from forclip.search.labels import StoreLabels
from forclip.search.searcher import AnySearcher
from forclip.server import limits
from forclip.server.cached_searcher import CachedSearcher
from forclip.server.class_table import ClassTable, SharedTable, class_routes
from forclip.server.column_routes import column_routes
from forclip.server.duplicate_routes import duplicate_routes
from forclip.server.errors import ERRORS, add_error_handlers
from forclip.server.export_routes import export_routes
from forclip.server.gallery import Gallery
from forclip.server.image_routes import image_routes
from forclip.server.indexing import Indexing, indexing_routes
from forclip.server.map_routes import EmbeddingMap, MapFile, map_routes
from forclip.server.pictures import fetched_pictures
from forclip.server.review_queues import queue_routes
from forclip.server.reviews import Reviews, review_routes
from forclip.server.search_routes import SearchService, search_routes
from forclip.server.security import Access, Guard, content_policy
from forclip.server.selections import Selections, selection_routes
from forclip.server.service_routes import WARM_UP, add_metrics, read_page, service_routes


def create_app(
    searcher: AnySearcher,
    access: Access | None = None,
    labels: StoreLabels | None = None,
    picture_cache: int = limits.PICTURE_CACHE_BYTES,
    shared: Path | None = None,
    indexing: Indexing | None = None,
) -> FastAPI:
    """Create an application that serves a store to the clients that `access` admits; by default to this machine only.

    labels: of the store's images; picture_cache: bytes of pictures from URLs and shards that are kept in memory;
    shared: a folder for what several processes of one service must agree on;
    indexing: fills the store while the application runs.
    """
    fetched_pictures.resize(picture_cache)
    page, access = read_page(), access or Access()
    cached, gallery = CachedSearcher(searcher), Gallery(searcher.index)
    service, selections = SearchService(cached, gallery, labels), Selections(searcher.index.state_folder, shared)
    reviews = Reviews(searcher.index.state_folder, shared)
    embedding_map = EmbeddingMap(gallery, MapFile(searcher.index.state_folder, shared))
    table = None if labels is None else ClassTable(cached, labels, None if shared is None else SharedTable(shared))

    def warm_up() -> None:
        """Do everything that the first requests would wait for."""
        cached.warm_up()
        app.openapi()
        if table is not None:
            table.current()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            await run_in_threadpool(warm_up)
            await _search_once(app, access)
        except Exception as error:  # searches will fail in the same way, until its reason is gone
            reason = one_line(error) if isinstance(error, ValueError | OSError) else None
            logging.getLogger(__name__).error("the first search failed: %s", reason, exc_info=reason is None)
        if indexing is not None:
            indexing.start()
        yield
        if indexing is not None:
            await run_in_threadpool(indexing.stop)
        if table is not None:
            await run_in_threadpool(table.stop)
        await run_in_threadpool(embedding_map.stop)

    # The interactive documentation would load its parts from elsewhere; the document itself is at /openapi.json.
    app = FastAPI(
        title="forclip", version=__version__, docs_url=None, redoc_url=None, responses=ERRORS, lifespan=lifespan
    )
    # A fast level: a page of results is a quarter of its size after 0.1 ms. Pictures are left as they are.
    app.add_middleware(GZipMiddleware, minimum_size=1000, compresslevel=4)
    app.add_middleware(Guard, access=access, content_policy=content_policy(page))
    registry = add_metrics(app, gallery)  # added last, so it sees every request first
    app.include_router(search_routes(service))
    app.include_router(image_routes(service))
    app.include_router(class_routes(table))
    app.include_router(column_routes(gallery))
    app.include_router(duplicate_routes(gallery))
    app.include_router(indexing_routes(indexing))
    app.include_router(map_routes(service, embedding_map))
    app.include_router(selection_routes(gallery, selections))
    app.include_router(review_routes(gallery, reviews))
    app.include_router(queue_routes(service, reviews))
    app.include_router(export_routes(service, selections))
    app.include_router(service_routes(gallery, registry, access, page, searcher.model.calibration is not None))
    add_error_handlers(app)
    return app


async def _search_once(app: FastAPI, access: Access) -> None:
    """Send a search through the whole application: threads start and libraries load parts with the first request."""
    # As the page searches: many images, so that what is known of them is read from all parts of the table.
    body = json.dumps({"text": "a first text", "k": 60}).encode()
    token = [] if access.token is None else [(b"authorization", f"Bearer {access.token}".encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/search",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), *token],
        WARM_UP: True,
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        """Ignore the answer."""

    await app(scope, receive, send)


def listen(access: Access, port: int, is_shared: bool = False) -> socket.socket:
    """Bind a socket. Raises OSError where the port is taken or the address is not this machine's.

    is_shared: other sockets of this user may be bound to the same port.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(access.host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if is_shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        hint = "; choose another one with --port" if error.errno == errno.EADDRINUSE else ""
        raise OSError(f"{access.host}:{port}: {error.strerror}{hint}") from None
    return listener


def page_link(access: Access, port: int) -> str:
    """The address of the page; with a token, the link that logs in."""
    name = "127.0.0.1" if access.host in ("0.0.0.0", "::") else access.host
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
    return address if access.token is None else f"{address}login?token={quote(access.token, safe='')}"


def serve(
    searcher: AnySearcher,
    access: Access,
    listener: socket.socket,
    labels: StoreLabels | None = None,
    picture_cache: int = limits.PICTURE_CACHE_BYTES,
    shared: Path | None = None,
    started: Callable[[], None] = lambda: None,
    indexing: Indexing | None = None,
) -> None:
    """Serve until interrupted. started: is called when the service listens; the others are those of `create_app`."""
    gc.collect()
    app = create_app(searcher, access, labels, picture_cache, shared, indexing)
    # No access log: it would hold the token of the login link.
    _Server(uvicorn.Config(app, access_log=False, log_level="warning"), started).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._call_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Everything loaded by now stays. Otherwise each full collection scans all of it while requests wait.
        gc.freeze()
        if self.started:
            self._call_started()
