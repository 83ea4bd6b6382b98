"""A closer look at an image: all its places, and the heatmap of the one that answers a text."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from forclip.search.look import Look
from forclip.server.gallery import Described, Gallery
from forclip.server.pictures import decoded, picture_bytes, shown_picture
from forclip.server.ranker import Ranker
from forclip.server.recent import Recent
from forclip.server.schemas import Frame, HeatmapOut, LookAnswer, LookRequest, Problem, RegionOut, box_of
from forclip.server.thumbnails import SIDE, Thumbnails
from forclip.types import Floats

if TYPE_CHECKING:
    from forclip.embedding.heatmap import Heatmap  # made by what is handed in: the service itself knows no model

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
        return _tagged(request, f"{found.key}", lambda: content, media_type)

    @routes.get("/thumbnail/{key}", response_class=Response)
    def thumbnail(key: str, request: Request) -> Response:
        """A small JPEG."""
        found = gallery.one(key)
        return _tagged(request, f"{found.key}-{SIDE}", lambda: thumbnails.of(found), "image/jpeg")

    return routes


def _tagged(request: Request, tag: str, make: Callable[[], bytes], media_type: str) -> Response:
    """A key stands for the same picture for ever, so a browser that has it need not get it again."""
    headers = {"ETag": f'"{tag}"', "Cache-Control": "private, max-age=3600"}
    if headers["ETag"] in [t.strip().removeprefix("W/") for t in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(make(), media_type=media_type, headers=headers)


_LOOKS = 64
_DIGITS = 4  # of a heatmap's values


def look_routes(ranker: Ranker, gallery: Gallery) -> APIRouter:
    """Under /api."""
    routes = APIRouter(prefix="/api", tags=["images"])
    recent: Recent[LookAnswer] = Recent(_LOOKS)

    @routes.post("/look", responses={status: {"model": Problem} for status in (404, 409, 415)})
    def look(request: LookRequest) -> LookAnswer:
        """Where an image's vectors come from. With a text also how well each answers it, and the heatmap of the best,
        for which the picture is read: it must still be the one that was indexed."""
        image = gallery.one(request.key)
        texts = request.texts
        if not texts:
            return LookAnswer(regions=_regions(gallery.vectors(image.key)[1]), text=None, winner=None, heatmap=None)
        version = gallery.index.store.version if len(texts) > 1 else 0  # which of several decides, the others tell
        key = (image.key, *request.alternatives, None, *request.all_of, request.where, version)
        return recent.get(key, lambda: _seen(ranker, image, request, texts))

    return routes


def _seen(ranker: Ranker, image: Described, request: LookRequest, texts: list[str]) -> LookAnswer:
    found = ranker.looked(image.key, ranker.query(request.alternatives, request.all_of), request.where)
    picture = decoded(picture_bytes(image.file), 415, "the picture")
    heatmap = ranker.heatmap(picture, found.vectors[found.winner])
    return LookAnswer(
        regions=_scored(found), text=texts[found.decided_by], winner=found.winner, heatmap=_heatmap(heatmap)
    )


def _regions(boxes: Floats) -> list[RegionOut]:
    return [RegionOut(box=box_of(box), score=None) for box in boxes]


def _scored(found: Look) -> list[RegionOut]:
    pairs = zip(found.boxes, found.scores, strict=True)
    return [RegionOut(box=box_of(box), score=float(score)) for box, score in pairs]


def _heatmap(found: "Heatmap") -> HeatmapOut:
    rows, columns = found.values.shape
    x0, y0, x1, y1 = found.frame
    return HeatmapOut(
        rows=rows,
        columns=columns,
        values=[round(value, _DIGITS) for value in found.values.ravel().tolist()],
        frame=Frame(x0=x0, y0=y0, x1=x1, y1=y1),
        agreement=found.agreement,
    )
