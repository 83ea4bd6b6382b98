"""The page, logging in, and the state of the service: info, health, metrics."""

import hashlib
import os
import re
from collections.abc import Iterator
from importlib.resources import files

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info as Measurement

from forclip import __version__
from forclip.server import limits
from forclip.server.cacheable import cacheable
from forclip.server.errors import Refused
from forclip.server.gallery import Gallery
from forclip.server.schemas import Health, Info
from forclip.server.security import COOKIE, Access

WARM_UP = "forclip.warm_up"  # in the scope of a request that the service sends to itself
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_METHODS = ("GET", "HEAD", "POST", "DELETE")


def read_page() -> str:
    """Return the page as one HTML file: each line `<!-- FILE -->` is replaced by that style or script file."""
    static = files("forclip.server") / "static"
    page = (static / "page.html").read_text(encoding="utf-8")
    for name in re.findall(r"^<!-- (\S+\.(?:css|js)) -->$", page, re.MULTILINE):
        page = page.replace(f"<!-- {name} -->", (static / name).read_text(encoding="utf-8").rstrip("\n"))
    return page


class _Images(Collector):
    """The number of images, read at each request for metrics."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("forclip_images", "Images in the store", len(self.gallery.index))


def add_metrics(app: FastAPI, gallery: Gallery) -> CollectorRegistry:
    """Count and time requests by route, never by path: what users search for is not recorded.

    Where PROMETHEUS_MULTIPROC_DIR is set, the registry sums up what all processes write to that folder.
    """
    registry, labels = CollectorRegistry(), ("method", "route")
    requests = Counter("forclip_requests", "Answered requests", [*labels, "status"], registry=registry)
    seconds = Histogram("forclip_request_seconds", "Time until the answer", labels, registry=registry, buckets=_BUCKETS)
    registry.register(_Images(gallery))

    def record(measurement: Measurement) -> None:
        if WARM_UP in measurement.request.scope:
            return
        method = measurement.method if measurement.method in _METHODS else "other"
        requests.labels(method, measurement.modified_handler, measurement.modified_status).inc()
        seconds.labels(method, measurement.modified_handler).observe(measurement.modified_duration)

    Instrumentator(should_group_status_codes=False).add(record).instrument(app)
    if folder := os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        registry.register(_Images(gallery))
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry


def service_routes(
    gallery: Gallery, registry: CollectorRegistry, access: Access, page: str, has_calibration: bool
) -> APIRouter:
    """Routes at the root, and /api/info."""
    routes = APIRouter(tags=["service"])
    content = page.encode()
    tag = hashlib.blake2b(content, digest_size=16).hexdigest()

    @routes.get("/", response_class=HTMLResponse)
    def show_page(request: Request) -> Response:
        """The page to search on. Browsers keep it, and ask each time whether it has changed."""
        return cacheable(request, tag, lambda: content, "text/html; charset=utf-8", "private, no-cache")

    @routes.get("/login", status_code=303, response_class=RedirectResponse)
    def login(token: str = Query("", max_length=1000)) -> Response:
        """The target of the printed link: keeps the user logged in with a cookie that scripts cannot read."""
        if access.token is not None and not access.is_token(token):
            raise Refused(401, "this is not the token")
        answer = RedirectResponse("/", 303)
        if access.token is not None:
            answer.set_cookie(COOKIE, access.cookie, max_age=30 * 86400, httponly=True, samesite="strict")
        return answer

    @routes.get("/api/info")
    def info() -> Info:
        """What is searched."""
        described = gallery.index.info()
        sizes = {"images": described["images"], "vectors": described["vectors"], "store_version": described["version"]}
        columns = gallery.index.store.column_types
        return Info(
            version=__version__,
            columns=columns,
            has_calibration=has_calibration,
            most_listed=min(limits.K, gallery.index.most_results or limits.K),
            most_skipped=limits.OFFSET,
            **sizes,
        )

    @routes.get("/health")
    async def health() -> Health:
        """Answers while the service runs. Needs no token."""
        return Health()

    @routes.get("/metrics", response_class=Response)
    def read_metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
