"""A closer look at an image: all its places, and the heatmap of the one that answers a text."""

from typing import TYPE_CHECKING

from fastapi import APIRouter

from forclip.looking import Look
from forclip.server.gallery import Described, Gallery
from forclip.server.pictures import decoded, picture_bytes
from forclip.server.ranker import Ranker
from forclip.server.recent import Recent
from forclip.server.schemas import Frame, HeatmapOut, LookAnswer, LookRequest, PlaceOut, Problem, box_of
from forclip.types import Floats

if TYPE_CHECKING:
    from forclip.heatmap import Heatmap  # made by what is handed in: the service itself knows no model

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
            return LookAnswer(places=_places(gallery.vectors(image.number)[1]), text=None, winner=None, heatmap=None)
        version = gallery.index.store.version if len(texts) > 1 else 0  # which of several decides, the others tell
        key = (image.number, *request.alternatives, None, *request.all_of, request.where, version)
        return recent.get(key, lambda: _seen(ranker, image, request, texts))

    return routes


def _seen(ranker: Ranker, image: Described, request: LookRequest, texts: list[str]) -> LookAnswer:
    found = ranker.looked(image.number, ranker.query(request.alternatives, request.all_of), request.where)
    picture = decoded(picture_bytes(image.file), 415, "the picture")
    heatmap = ranker.heatmap(picture, found.vectors[found.winner])
    return LookAnswer(
        places=_scored(found), text=texts[found.decided_by], winner=found.winner, heatmap=_heatmap(heatmap)
    )


def _places(boxes: Floats) -> list[PlaceOut]:
    return [PlaceOut(box=box_of(box), score=None) for box in boxes]


def _scored(found: Look) -> list[PlaceOut]:
    pairs = zip(found.boxes, found.scores, strict=True)
    return [PlaceOut(box=box_of(box), score=float(score)) for box, score in pairs]


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
