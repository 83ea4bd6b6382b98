"""Pictures and thumbnails, by key only."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response

from forclip.server.gallery import Gallery
from forclip.server.pictures import picture_bytes, shown_picture
from forclip.server.schemas import Problem
from forclip.server.thumbnails import SIDE, Thumbnails

_GONE: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (403, 404, 409, 415)}
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}}, "description": "The picture."},
    304: {"description": "The picture is the one that the ETag names."},
}


def image_routes(gallery: Gallery, thumbnails: Thumbnails) -> APIRouter:
    """Under /api."""
    routes = APIRouter(prefix="/api", tags=["images"], responses={**_GONE, **_PICTURE})

    @routes.get("/image/{key}", response_class=Response)
    def image(key: str, request: Request) -> Response:
        """The whole picture, unless its file is not what was indexed any more."""
        found = gallery.one(key)
        content, media_type = shown_picture(picture_bytes(found.file))
        return _tagged(request, f"{found.number}", lambda: content, media_type)

    @routes.get("/thumbnail/{key}", response_class=Response)
    def thumbnail(key: str, request: Request) -> Response:
        """A small JPEG."""
        found = gallery.one(key)
        return _tagged(request, f"{found.number}-{SIDE}", lambda: thumbnails.of(found), "image/jpeg")

    return routes


def _tagged(request: Request, tag: str, make: Callable[[], bytes], media_type: str) -> Response:
    """A key stands for the same picture for ever, so a browser that has it need not get it again."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, max-age=3600"}
    if headers["ETag"] in [t.strip().removeprefix("W/") for t in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(make(), media_type=media_type, headers=headers)
