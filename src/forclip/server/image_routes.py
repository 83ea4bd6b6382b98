"""Pictures and thumbnails by key, and a closer look at one image: its details, regions and heatmap."""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import APIRouter, Query, Request, Response

from forclip.data.images.capture import Capture, read_capture
from forclip.data.images.frame_location import split_frame
from forclip.location import parse_location, without_range
from forclip.search.look import look_at
from forclip.search.request import combined_query
from forclip.server import limits
from forclip.server.cache import StoreCache
from forclip.server.cacheable import accepts, cacheable
from forclip.server.errors import Refused
from forclip.server.gallery import NO_IMAGE, StoredImage
from forclip.server.image_schemas import DetailsOut
from forclip.server.pictures import (
    THUMBNAIL_SIDE,
    ThumbnailFormat,
    browser_picture,
    decode,
    make_thumbnail,
    picture_bytes,
)
from forclip.server.schemas import Frame, HeatmapOut, LookBody, LookOut, Problem, RegionOut, SampleImage, box_fields
from forclip.server.search_routes import SearchService
from forclip.server.threads import in_threads

_THUMBNAIL_BYTES = 256_000_000  # kept in memory
_READERS = 24  # pictures that are read at a time, also from slow buckets
_ERRORS: dict[int | str, dict[str, Any]] = {status: {"model": Problem} for status in (403, 404, 409, 415)}
_KEPT = "private, max-age=3600"  # a key always stands for the same picture
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}, "image/webp": {}}, "description": "The picture."},
    304: {"description": "The picture is the one that the ETag names."},
}


def image_routes(service: SearchService) -> APIRouter:
    """Routes below /api."""
    routes = APIRouter(prefix="/api", tags=["images"], responses=_ERRORS)
    gallery = service.gallery
    thumbnails: StoreCache[tuple[int, ThumbnailFormat], bytes] = StoreCache(_THUMBNAIL_BYTES, len)
    looks: StoreCache[tuple[object, ...], LookOut] = StoreCache(maxsize=64)
    reading = in_threads(CapacityLimiter(_READERS))

    @routes.get("/sample")
    def sample(count: Annotated[int, Query(ge=1, le=limits.SAMPLE)] = 24) -> list[SampleImage]:
        """Some images of the collection, the same each time; none of an empty one."""
        rows = [(image, image.row) for image in gallery.sample(count)]
        return [SampleImage(key=str(i.key), name=i.name, width=r["width"], height=r["height"]) for i, r in rows]

    @routes.get("/image/{key}", response_class=Response, responses=_PICTURE)
    @reading
    def image(key: str, request: Request) -> Response:
        """The whole picture, unless its file changed since it was indexed."""
        stored = gallery.one(key)
        content, media_type = browser_picture(picture_bytes(stored.file))
        return cacheable(request, f"{stored.key}", lambda: content, media_type, _KEPT)

    @routes.get("/thumbnail/{key}", response_class=Response, responses=_PICTURE)
    @reading
    def thumbnail(key: str, request: Request) -> Response:
        """A small picture: WebP where the request accepts it, which is a third smaller, else JPEG."""
        stored = gallery.one(key)
        kind: ThumbnailFormat = "webp" if accepts(request.headers.get("accept", ""), "image/webp") else "jpeg"
        tag = f"{stored.key}-{THUMBNAIL_SIDE}-{kind}"
        make = partial(thumbnails.get, (stored.key, kind), lambda: make_thumbnail(stored.file, kind))
        return cacheable(request, tag, make, f"image/{kind}", _KEPT, vary="Accept")

    @routes.get("/details/{key}")
    @reading
    def details(key: str) -> DetailsOut:
        """Where an image's file is, and when and with which camera it was taken. Reads the file."""
        stored, capture, problem = gallery.one(key), Capture(), None
        if split_frame(parse_location(stored.file.uri)) is None:  # frames of videos have no such metadata
            try:
                capture = read_capture(BytesIO(picture_bytes(stored.file)))
            except Refused as error:
                problem = str(error.detail)
        path = without_range(stored.file.uri)
        return DetailsOut(path=path, taken=capture.time, camera=capture.camera, problem=problem)

    @routes.post("/look")
    @reading
    def look(body: LookBody) -> LookOut:
        """Where an image's vectors come from. With a text also each region's score, and the heatmap of the best one.

        The heatmap needs the picture, which must not have changed since it was indexed.
        """
        stored = gallery.one(body.key)
        if not body.has_texts:
            _, boxes = gallery.vectors(stored.key)
            return LookOut(regions=[_region(box, None) for box in boxes], text=None, winner=None, heatmap=None)
        key = (stored.key, body.text, *body.any_of, None, *body.all_of, body.where)
        return looks.get(key, lambda: _look(service, stored, body), gallery.index.view())

    return routes


def _look(service: SearchService, stored: StoredImage, body: LookBody) -> LookOut:
    request, searcher = body.to_request(), service.searcher
    with service.public_errors(request):
        query = combined_query(searcher, request)
        look = look_at(searcher.index, stored.key, query, request.where, searcher.model.calibration)
    if look is None:
        raise Refused(*NO_IMAGE)
    picture = decode(picture_bytes(stored.file), 415, "the picture")
    heatmap = searcher.heatmap(picture, look.vectors[look.winner])
    rows, columns = heatmap.values.shape
    values = [round(value, 4) for value in heatmap.values.ravel().tolist()]
    frame = Frame(**dict(zip(("x0", "y0", "x1", "y1"), heatmap.frame, strict=True)))
    return LookOut(
        regions=[_region(box, float(score)) for box, score in zip(look.boxes, look.scores, strict=True)],
        text=request.wanted[look.decided_by],
        winner=look.winner,
        heatmap=HeatmapOut(rows=rows, columns=columns, values=values, frame=frame, agreement=heatmap.agreement),
    )


def _region(box: Sequence[float], score: float | None) -> RegionOut:
    return RegionOut.model_validate({"box": box_fields(box), "score": score})
