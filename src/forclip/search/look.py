"""A closer look at one image of a store: the regions of its vectors, which one matches a text, and a heatmap."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from forclip.atomic_write import write_atomically
from forclip.calibration.model import Calibration
from forclip.data.images.content import content_digest, file_state
from forclip.data.images.decode import read_image
from forclip.data.images.frame_location import frame_path, split_frame
from forclip.embedding.regions import Heatmap
from forclip.index.protocol import SearchIndex
from forclip.location import as_location, location_text, parse_location
from forclip.search.combined import CombinedQuery, combine, text_scales
from forclip.search.searcher import AnySearcher
from forclip.types import Floats

_HEAT = (230, 0, 126)  # one hue, as on the page
_MAX_OPACITY = 0.8  # at the strongest position
_MOST_OUTLINES = 50  # with tiles an image may have hundreds of regions
_BEST, _OTHER, _BORDER = (255, 176, 0), (255, 255, 255), (0, 0, 0)


@dataclass(frozen=True)
class Look:
    """The stored vectors of an image, compared with one text.

    vectors: [N, dim]; boxes: [N, 4] xyxy as fractions of the upright image; scores: [N], cosines with the text that
    decided; decided_by: the position of that text among the wanted ones; winner: the vector with the highest score.
    """

    vectors: Floats
    boxes: Floats
    scores: Floats
    decided_by: int
    winner: int


def look_at(
    index: SearchIndex, key: int, query: CombinedQuery, where: str | None = None, calibration: Calibration | None = None
) -> Look | None:
    """Compare the vectors of the image with this key with a query, as search_combined does; None if it was deleted.

    Raises:
        ValueError: for a filter that is not valid SQL.
    """
    if (stored := index.vectors_of(key)) is None:
        return None
    vectors, boxes = stored
    scores = query.wanted @ vectors.T
    decided = 0
    if len(scores) > 1:
        scales = text_scales(index, query.wanted, where, calibration)
        best = scores.max(1).astype(np.float64)
        normalised = [scale.normalised_score(score[None]) for scale, score in zip(scales, best, strict=True)]
        decided = combine(query, np.stack(normalised))[1][0]
    return Look(vectors, boxes, scores[decided], decided, int(scores[decided].argmax()))


@dataclass(frozen=True)
class LookResult:
    """A closer look at a picture for a text. picture: upright; regions and heatmap refer to it."""

    image_id: str
    text: str
    picture: Image.Image
    look: Look
    heatmap: Heatmap

    def to_json(self) -> dict[str, Any]:
        """Return the regions in the order of the image's vectors, the best one's position, and its heatmap."""
        pairs = zip(self.look.boxes.tolist(), self.look.scores.tolist(), strict=True)
        return {
            "image_id": self.image_id,
            "text": self.text,
            "winner": self.look.winner,
            "box_frame": "upright",
            "regions": [{"box": box, "score": score} for box, score in pairs],
            "heatmap": {**vars(self.heatmap), "values": self.heatmap.values.tolist()},
        }

    def table(self) -> Table:
        """Return the regions as a table, best first."""
        title = Text(f"{self.text!r} in {self.image_id.rsplit('/', 1)[-1]}")
        table = Table("score", "region (x0 y0 x1 y1)", "", title=title, title_justify="left", box=SIMPLE_HEAD)
        for row in np.argsort(-self.look.scores, kind="stable").tolist():
            region = " ".join(f"{edge:.2f}" for edge in self.look.boxes[row])
            table.add_row(f"{self.look.scores[row]:.3f}", region, "best match" if row == self.look.winner else "")
        return table


def look_for(searcher: AnySearcher, image: str, text: str) -> LookResult:
    """Look for a text in an image of the store, whose picture file is read for the heatmap.

    image: its id or its path.

    Raises:
        ValueError: for an image that is not in the store, a file that changed since it was indexed or cannot be read,
            and an empty text.
    """
    index = searcher.index
    image = image if as_location(Path(image)) == Path(image) else location_text(as_location(Path(image)))
    frame = split_frame(parse_location(image))  # clip.mp4#t=2 is clip.mp4#t=2.000
    (image_id,) = index.store.ids_of([image if frame is None else location_text(frame_path(*frame))])
    file = index.store.files([image_id]).get(image_id)
    key = index.keys_of_ids([image_id]).get(image_id)
    if file is None or key is None:
        raise ValueError(f"{image}: is not in {index.name}; forclip index adds pictures")
    no_text = np.zeros((0, searcher.model.dim), np.float32)
    look = look_at(index, key, CombinedQuery(searcher.encode_text(text)[None], no_text, no_text))
    path = parse_location(index.store.resolve(file.uri))
    picture = read_image(path)
    is_same_video = split_frame(path) is not None and file_state(path) == (file.size, file.modified)
    if file.content_hash and not is_same_video and content_digest(path) != file.content_hash:
        raise ValueError(f"{path}: has changed since it was indexed; forclip index updates it")
    assert look is not None
    return LookResult(image_id, text, picture, look, searcher.heatmap(picture, look.vectors[look.winner]))


def draw_look(picture: Image.Image, look: Look, heatmap: Heatmap) -> Image.Image:
    """Draw the heatmap and the best regions on a grey copy of the picture, so that no colour is mistaken for the heat.

    The best region is outlined boldly, up to 49 others thinly. Returns RGB of the picture's size.
    """
    rows, columns = heatmap.values.shape
    (x0, y0, x1, y1), (width, height) = heatmap.frame, picture.size
    # Pillow's affine transform maps a pixel of the picture to one of the map, interpolated linearly.
    across, down = columns / ((x1 - x0) * width), rows / ((y1 - y0) * height)
    padded = np.pad(heatmap.values, 1, mode="edge")  # so that interpolation reaches the edges
    heat = Image.fromarray(np.round(255 * _MAX_OPACITY * padded).astype(np.uint8))
    affine = (across, 0, 1 - x0 * width * across, 0, down, 1 - y0 * height * down)
    everywhere = heat.transform(picture.size, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    # The model's input may cover less than the picture, or more.
    left, top = max(0, round(x0 * width)), max(0, round(y0 * height))
    covered = (left, top, min(width, round(x1 * width)), min(height, round(y1 * height)))
    opacity = Image.new("L", picture.size)
    opacity.paste(everywhere.crop(covered), covered)
    veil = Image.new("RGB", picture.size, _HEAT)
    drawn = Image.composite(veil, picture.convert("L").convert("RGB"), opacity)
    canvas, bold = ImageDraw.Draw(drawn), max(2, round(max(picture.size) / 200))
    best = np.argsort(-look.scores, kind="stable")[:_MOST_OUTLINES]
    outlines = [(look.boxes[row], 1, _OTHER) for row in best if row != look.winner]
    outlines += [(look.boxes[look.winner], bold + 2, _BORDER), (look.boxes[look.winner], bold, _BEST)]
    for box, line, colour in outlines:
        left, top, right, bottom = (round(float(edge) * side) for edge, side in zip(box, 2 * picture.size, strict=True))
        if left < right and top < bottom:
            out = (line - 1) // 2  # the outer half of a wide line lies outside the box
            canvas.rectangle((left - out, top - out, right - 1 + out, bottom - 1 + out), outline=colour, width=line)
    return drawn


def picture_format(to: Path) -> str:
    """Return Pillow's name of the format that a file's ending stands for. Raises ValueError for one it can't write."""
    format = Image.registered_extensions().get(to.suffix.lower())
    if format is None or format not in Image.SAVE:
        raise ValueError(
            f"{to}: no picture can be written as {to.suffix or 'a file without ending'!r}; use .png or .jpg"
        )
    return format


def save_picture(picture: Image.Image, to: Path) -> None:
    """Write a picture as its file's ending says, or leave what was there. Raises ValueError where that fails."""
    try:
        write_atomically(to, lambda temporary: picture.save(temporary, picture_format(to)))
    except OSError as error:
        raise ValueError(f"{to}: can't be written: {error.strerror or error}") from None
