"""Result grids: for a text query, each method's first images as thumbnails inside the page."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from forclip.data.images.decode import UnreadableImage, read_image

THUMBNAIL_SIDE = 200  # pixels of the longer side
_QUALITY = 72

Edges = tuple[float, float, float, float]


@dataclass(frozen=True)
class GridHit:
    """One image found. relevant: None where nobody has checked; box: the place found, xyxy as fractions, or None."""

    image: Path
    image_id: str
    score: float
    relevant: bool | None
    box: Edges | None = None

    @property
    def verdict(self) -> str:
        return "unverified" if self.relevant is None else "right" if self.relevant else "wrong"


@dataclass(frozen=True)
class GridRow:
    """One method's first images, best first. average_precision: percent, of its whole ranking for this query."""

    method: str
    average_precision: float | None
    hits: tuple[GridHit, ...]


@dataclass(frozen=True)
class QueryGrid:
    """One text query. num_relevant: images of the gallery that show it."""

    text: str
    is_novel: bool
    num_relevant: int
    rows: tuple[GridRow, ...]


def pictures_of(grids: Sequence[QueryGrid]) -> list[Path]:
    """All that they show."""
    return [hit.image for grid in grids for row in grid.rows for hit in row.hits]


@dataclass(frozen=True)
class _Thumbnail:
    width: int
    height: int
    data: str


class EmbeddedThumbnails:
    """The thumbnails of one page. A picture used many times is stored once, and drawn by reference."""

    def __init__(self, pictures: Iterable[Path]) -> None:
        used = dict.fromkeys(pictures)
        self._numbers = {path: number for number, path in enumerate(used)}
        self._made: dict[Path, _Thumbnail | str] = {path: _thumbnail(path) for path in used}

    def definitions(self) -> Markup:
        """Goes once into the page, before the first picture."""
        made = [
            Markup('<image id="t{}" width="{}" height="{}" href="data:image/webp;base64,{}"/>').format(
                self._numbers[path], thumbnail.width, thumbnail.height, thumbnail.data
            )
            for path, thumbnail in self._made.items()
            if isinstance(thumbnail, _Thumbnail)
        ]
        return Markup('<svg width="0" height="0" class="store" aria-hidden="true"><defs>{}</defs></svg>').format(
            Markup("\n").join(made)
        )

    def picture(self, image: Path, name: str, note: str, box: Edges | None) -> Markup:
        """The whole picture in a square, with the place found outlined; a grey tile where it could not be read. note:
        what is said of it beside its name."""
        thumbnail = self._made[image]
        label = f"{name}: {note}"
        if isinstance(thumbnail, str):
            return Markup(
                '<svg viewBox="0 0 100 100" role="img" aria-label="{}, not readable"><title>{}</title>'
                '<path class="gone" d="M28 32h44v36h-44z M28 62l14-14 10 9 8-7 12 12"/>'
                '<text class="gone" x="50" y="84">no picture</text></svg>'
            ).format(label, thumbnail)
        drawn = Markup('<use href="#t{}"/>').format(self._numbers[image]) + _outline(box, thumbnail)
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>').format(
            thumbnail.width, thumbnail.height, label, name, drawn
        )


def _outline(box: Edges | None, thumbnail: _Thumbnail) -> Markup:
    """Light on dark, so that it shows on any picture. Kept a little inside, or the tile's edge would cut it."""
    if box is None:
        return Markup("")
    inset = 2.0
    x0, x1 = (min(max(x * thumbnail.width, inset), thumbnail.width - inset) for x in (box[0], box[2]))
    y0, y1 = (min(max(y * thumbnail.height, inset), thumbnail.height - inset) for y in (box[1], box[3]))
    rectangle = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3"/>')
    size = max(0.0, x1 - x0), max(0.0, y1 - y0)
    return rectangle.format("halo", x0, y0, *size) + rectangle.format("place", x0, y0, *size)


def _thumbnail(path: Path) -> _Thumbnail | str:
    """The reason, as text, where the picture cannot be read."""
    try:
        image = read_image(path)
    except UnreadableImage as error:
        return str(error)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY, method=4)
    return _Thumbnail(image.width, image.height, base64.b64encode(stream.getvalue()).decode("ascii"))
