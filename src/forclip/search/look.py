"""A picture with a heatmap and the places of its vectors drawn on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from rich.table import Table

from forclip.calibration.model import Calibration
from forclip.data.images.content import content_digest
from forclip.data.images.decode import read_image
from forclip.embedding.heatmap import Heatmap
from forclip.index.image_index import Index
from forclip.search.combined import CombinedQuery, combine, text_scales
from forclip.search.searcher import Searcher
from forclip.types import Floats


@dataclass(frozen=True)
class Look:
    """vectors: [N, dim], boxes: [N, 4], of an image as it is stored; scores: [N], each one's cosine with the text that
    decided, the one with that number among the wanted; winner: the vector with the highest."""

    vectors: Floats
    boxes: Floats
    scores: Floats
    decided_by: int
    winner: int


def look_at(
    index: Index,
    key: int,
    query: CombinedQuery,
    where: str | None = None,
    calibration: Calibration | None = None,
) -> Look | None:
    """An image by its key, as a search for `query` sees it: where, calibration as search_combined takes them.

    None where it is not in the store any more. Raises ValueError for bad SQL.
    """
    stored = index.vectors_of(key)
    if stored is None:
        return None
    vectors, boxes = stored
    scores = query.wanted @ vectors.T
    decided = _decided_by(index, query, scores.max(1), where, calibration)
    return Look(vectors, boxes, scores[decided], decided, int(scores[decided].argmax()))


def _decided_by(
    index: Index, query: CombinedQuery, best: Floats, where: str | None, calibration: Calibration | None
) -> int:
    """best: [wanted], the image's scores. One text needs no comparing with others."""
    if len(best) == 1:
        return 0
    scales = text_scales(index, query.wanted, where, calibration)
    normalised_scores = [
        scale.normalised_score(score[None].astype(np.float64)) for scale, score in zip(scales, best, strict=True)
    ]
    return combine(query, np.stack(normalised_scores))[1][0]


_HEAT = (230, 0, 126)  # one hue, as on the page
_MOST = 0.8  # how opaque the strongest position is
_WINNER, _OTHER, _RIM = (255, 176, 0), (255, 255, 255), (0, 0, 0)


def draw_look(picture: Image.Image, look: Look, heatmap: Heatmap) -> Image.Image:
    """RGB, of the picture's size, which loses its colours: none can be mistaken for the heatmap's, which is laid over
    it as a veil. The winner's place is outlined boldly, all others' thinly."""
    veil = Image.new("RGB", picture.size, _HEAT)
    drawn = Image.composite(veil, picture.convert("L").convert("RGB"), _opacity(picture.size, heatmap))
    canvas = ImageDraw.Draw(drawn)
    bold = max(2, round(max(picture.size) / 200))
    for row, box in enumerate(look.boxes):
        if row != look.winner:
            _outline(canvas, box, picture.size, 1, _OTHER)
    _outline(canvas, look.boxes[look.winner], picture.size, bold + 2, _RIM)
    _outline(canvas, look.boxes[look.winner], picture.size, bold, _WINNER)
    return drawn


def _opacity(size: tuple[int, int], heatmap: Heatmap) -> Image.Image:
    """Of the veil over every pixel, the map laid where its frame says; between positions it goes in a straight line."""
    rows, columns = heatmap.values.shape
    (x0, y0, x1, y1), (width, height) = heatmap.frame, size
    # From a pixel of the picture to one of the map, as Pillow's affine maps go.
    across, down = columns / ((x1 - x0) * width), rows / ((y1 - y0) * height)
    edged = np.pad(heatmap.values, 1, mode="edge")  # so that the line goes on to the edges
    map_of = Image.fromarray(np.round(255 * _MOST * edged).astype(np.uint8))
    affine = (across, 0, 1 - x0 * width * across, 0, down, 1 - y0 * height * down)
    everywhere = map_of.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    # What the model was given may be less than the picture, or more.
    left, top = max(0, round(x0 * width)), max(0, round(y0 * height))
    seen = (left, top, min(width, round(x1 * width)), min(height, round(y1 * height)))
    opacity = Image.new("L", size)
    opacity.paste(everywhere.crop(seen), seen)
    return opacity


def _outline(
    canvas: ImageDraw.ImageDraw, box: Floats, size: tuple[int, int], width: int, colour: tuple[int, int, int]
) -> None:
    """Round a box, xyxy as fractions; of a line wider than a pixel the outer half lies outside of it."""
    left, top, right, bottom = (round(float(edge) * side) for edge, side in zip(box, (*size, *size), strict=True))
    if left < right and top < bottom:
        out = (width - 1) // 2
        canvas.rectangle((left - out, top - out, right - 1 + out, bottom - 1 + out), outline=colour, width=width)


@dataclass(frozen=True)
class Seen:
    """What a look at a picture, in the frame of its stored pixels, found for a text."""

    image_id: str
    text: str
    picture: Image.Image
    look: Look
    heatmap: Heatmap


def look_for(searcher: Searcher, image_id: str, text: str) -> Seen:
    """An image of the store. Raises ValueError for one that is not in it, whose file changed since it was indexed or
    can't be read, and for an empty text."""
    index = searcher.index
    file = index.store.files([image_id]).get(image_id)
    keys = index.store.keys("id = '" + image_id.replace("'", "''") + "'")
    if file is None or not len(keys):
        raise ValueError(f"{image_id}: is not in {index.store.folder}; forclip index adds pictures")
    asked, none = searcher.encode_text(text), np.zeros((0, searcher.model.dim), np.float32)
    look = look_at(index, int(keys[0]), CombinedQuery(asked[None], none, none))
    picture = read_image(Path(image_id))
    if file.content_hash and content_digest(Path(image_id)) != file.content_hash:
        raise ValueError(f"{image_id}: has changed since it was indexed; forclip index renews it")
    assert look is not None
    return Seen(image_id, text, picture, look, searcher.heatmap(picture, look.vectors[look.winner]))


def seen_json(seen: Seen) -> dict[str, Any]:
    """Places in the order of the image's vectors, the number of the one that answers, and its heatmap."""
    pairs = zip(seen.look.boxes.tolist(), seen.look.scores.tolist(), strict=True)
    return {
        "image_id": seen.image_id,
        "text": seen.text,
        "winner": seen.look.winner,
        "places": [{"box": box, "score": score} for box, score in pairs],
        "heatmap": {
            "values": seen.heatmap.values.tolist(),
            "frame": seen.heatmap.frame,
            "agreement": seen.heatmap.agreement,
        },
    }


def seen_table(seen: Seen) -> Table:
    """Places, best first."""
    table = Table("score", "place (x0 y0 x1 y1)", "", title=f"{seen.text!r} in {Path(seen.image_id).name}")
    for row in np.argsort(-seen.look.scores, kind="stable").tolist():
        place = " ".join(f"{edge:.2f}" for edge in seen.look.boxes[row])
        table.add_row(f"{seen.look.scores[row]:.3f}", place, "answers" if row == seen.look.winner else "")
    return table
