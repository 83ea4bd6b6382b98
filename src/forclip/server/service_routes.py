"""The page, logging in, and how the service is."""

from importlib.metadata import version

from fastapi import APIRouter, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from forclip.server.errors import Refused
from forclip.server.gallery import Gallery
from forclip.server.metrics import Metrics
from forclip.server.schemas import Health, Info
from forclip.server.security import COOKIE, Access


def service_routes(gallery: Gallery, metrics: Metrics, access: Access, page: str, has_calibration: bool) -> APIRouter:
    """At the root, but for /api/info."""
    routes = APIRouter(tags=["service"])

    @routes.get("/", response_class=HTMLResponse)
    def show_page() -> str:
        """The page to search on."""
        return page

    @routes.get("/login", status_code=303, response_class=RedirectResponse)
    def login(token: str = Query("", max_length=1000)) -> Response:
        """Where the printed link leads: keeps who has the token logged in, by a cookie that scripts can't read."""
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
        return Info(
            version=version("forclip"),
            images=described["images"],
            vectors=described["vectors"],
            store_version=described["version"],
            columns=gallery.column_types(),
            has_calibration=has_calibration,
        )

    @routes.get("/health")
    def health() -> Health:
        """Answers where the service runs. Needs no token."""
        return Health()

    @routes.get("/metrics", response_class=Response)
    def read_metrics() -> Response:
        """For Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return routes
