"""Result grids: the first images that each method finds for a text query, as thumbnails embedded in the page."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from forclip.data.images.decode import UnreadableImage, read_image

THUMBNAIL_SIDE = 200  # pixels of the longer side
_QUALITY = 72

Box = tuple[float, float, float, float]  # xyxy, fractions of width and height


@dataclass(frozen=True)
class GridHit:
    """One result. relevant: None if the label is unverified; box: the region that matched, or None."""

    image: Path
    image_id: str
    score: float
    relevant: bool | None
    box: Box | None = None

    @property
    def verdict(self) -> str:
        """Right, wrong or unverified."""
        return "unverified" if self.relevant is None else "right" if self.relevant else "wrong"


@dataclass(frozen=True)
class GridRow:
    """One method's first images, best first. average_precision: percent, of its whole ranking for the query."""

    method: str
    average_precision: float | None
    hits: tuple[GridHit, ...]


@dataclass(frozen=True)
class QueryGrid:
    """One text query. num_relevant: how many gallery images show it."""

    text: str
    is_novel: bool
    num_relevant: int
    rows: tuple[GridRow, ...]


@dataclass(frozen=True)
class _Thumbnail:
    """data: a WebP file in base64."""

    width: int
    height: int
    data: str


class EmbeddedThumbnails:
    """The thumbnails of a page. Each image is stored once and drawn by reference."""

    def __init__(self, images: Iterable[Path]) -> None:
        self._thumbnails = {path: _make_thumbnail(path) for path in dict.fromkeys(images)}
        self._ids = {path: f"t{number}" for number, path in enumerate(self._thumbnails)}

    def definitions(self) -> Markup:
        """The stored images. Goes into the page once, before the first picture."""
        images = [
            Markup('<image id="{}" width="{}" height="{}" href="data:image/webp;base64,{}"/>').format(
                self._ids[path], thumbnail.width, thumbnail.height, thumbnail.data
            )
            for path, thumbnail in self._thumbnails.items()
            if isinstance(thumbnail, _Thumbnail)
        ]
        return Markup('<svg width="0" height="0" class="store" aria-hidden="true"><defs>{}</defs></svg>').format(
            Markup("\n").join(images)
        )

    def picture(self, image: Path, name: str, note: str, box: Box | None) -> Markup:
        """The whole image with the box outlined, or a grey tile if it can't be read. note: follows the name."""
        thumbnail = self._thumbnails[image]
        label = f"{name}: {note}"
        if isinstance(thumbnail, str):
            return Markup(
                '<svg viewBox="0 0 100 100" role="img" aria-label="{}, not readable"><title>{}</title>'
                '<path class="gone" d="M28 32h44v36h-44z M28 62l14-14 10 9 8-7 12 12"/>'
                '<text class="gone" x="50" y="84">no image</text></svg>'
            ).format(label, thumbnail)
        drawn = Markup('<use href="#{}"/>').format(self._ids[image]) + _outline(box, thumbnail)
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>').format(
            thumbnail.width, thumbnail.height, label, name, drawn
        )


def _outline(box: Box | None, thumbnail: _Thumbnail) -> Markup:
    """Light on dark, so that it shows on any image, and a little inside, so that the tile's edge doesn't cut it."""
    if box is None:
        return Markup("")
    inset = 2.0
    x0, x1 = (min(max(x * thumbnail.width, inset), thumbnail.width - inset) for x in (box[0], box[2]))
    y0, y1 = (min(max(y * thumbnail.height, inset), thumbnail.height - inset) for y in (box[1], box[3]))
    rectangle = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3"/>')
    size = max(0.0, x1 - x0), max(0.0, y1 - y0)
    return rectangle.format("halo", x0, y0, *size) + rectangle.format("place", x0, y0, *size)


def _make_thumbnail(path: Path) -> _Thumbnail | str:
    """The thumbnail, or the reason why the image can't be read."""
    try:
        image = read_image(path)
    except UnreadableImage as error:
        return str(error)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY, method=4)
    return _Thumbnail(image.width, image.height, base64.b64encode(stream.getvalue()).decode("ascii"))
