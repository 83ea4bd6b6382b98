"""The service as an application: a searcher and who may ask it, put together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from forclip.search.labels import StoreLabels
from forclip.server.class_table import ClassTable, class_routes, measuring
from forclip.server.errors import REFUSALS, add_refusals
from forclip.server.gallery import Gallery
from forclip.server.image_routes import image_routes, look_routes
from forclip.server.judged_lists import Asked
from forclip.server.list_labels import LabelledLists
from forclip.server.metrics import Measured, Metrics
from forclip.server.page import content_policy, read_page
from forclip.server.ranker import Ranker
from forclip.server.search_routes import search_routes
from forclip.server.security import Access, Guard
from forclip.server.selection_routes import export_routes, selection_routes
from forclip.server.selections import Selections
from forclip.server.service_routes import service_routes
from forclip.server.thumbnails import Thumbnails

if TYPE_CHECKING:
    from forclip.search.searcher import Searcher  # handed in: the service itself knows no model


def create_app(
    searcher: "Searcher",
    access: Access = Access(),  # noqa: B008 (frozen)
    labels: StoreLabels | None = None,
) -> FastAPI:
    """Serves a store to whom `access` admits. labels: of its images, if there are any."""
    page = read_page()
    gallery, ranker = Gallery(searcher.index), Ranker(searcher)
    table = None if labels is None else ClassTable(ranker, labels)

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(warm_up, ranker, gallery)
        async with measuring(table):
            yield

    # The interactive documentation would load its parts from elsewhere; the document itself is at /openapi.json.
    app = FastAPI(
        title="forclip",
        version=version("forclip"),
        docs_url=None,
        redoc_url=None,
        responses=REFUSALS,
        lifespan=running,
    )
    labelled, selections = LabelledLists(ranker, labels), Selections(searcher.index.store.folder)
    metrics = Metrics(lambda: len(searcher.index))
    app.include_router(search_routes(ranker, gallery, labelled))
    app.include_router(look_routes(ranker, gallery))
    app.include_router(class_routes(table))
    app.include_router(image_routes(gallery, Thumbnails()))
    app.include_router(selection_routes(gallery, selections))
    app.include_router(export_routes(ranker, gallery, labelled, selections))
    app.include_router(service_routes(gallery, metrics, access, page, ranker.calibration is not None))
    add_refusals(app)
    # The last one added is the first to see a request.
    app.add_middleware(Guard, access=access, content_policy=content_policy(page))
    app.add_middleware(Measured, metrics=metrics)
    return app


def warm_up(ranker: Ranker, gallery: Gallery) -> None:
    """All that the first search would wait for: a first search."""
    ranker.searcher.warm_up()
    best = ranker.judged("a first text", Asked(None, False, 1)).best
    gallery.described_page([result.key for result in best])
