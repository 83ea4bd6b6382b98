"""Result grids: the first images that each method finds for a text query, as thumbnails embedded in the page."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup
from PIL import Image

from forclip.data.images.decode import UnreadableImage, read_image
from forclip.location import Location

THUMBNAIL_SIDE = 200  # pixels of the longer side
_QUALITY = 72

Box = tuple[float, float, float, float]  # xyxy, fractions of width and height


@dataclass(frozen=True)
class GridHit:
    """One result. relevant: None if the label is unverified; box: the region that matched, or None."""

    image: Location
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


class EmbeddedThumbnails:
    """The thumbnails of a page. Each image is stored once and drawn by reference."""

    def __init__(self, images: Iterable[Location]) -> None:
        self._stored: list[Markup] = []
        self._thumbnails: dict[Location, tuple[str, int, int]] = {}  # id, width, height
        self._errors: dict[Location, str] = {}
        for k, path in enumerate(dict.fromkeys(images)):
            try:
                image = read_image(path)
            except UnreadableImage as error:
                self._errors[path] = str(error)
                continue
            image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
            stream = io.BytesIO()
            image.save(stream, "WEBP", quality=_QUALITY, method=4)
            data = base64.b64encode(stream.getvalue()).decode("ascii")
            self._thumbnails[path] = (f"t{k}", *image.size)
            self._stored.append(
                Markup('<image id="{}" width="{}" height="{}" href="data:image/webp;base64,{}"/>').format(
                    *self._thumbnails[path], data
                )
            )

    def definitions(self) -> Markup:
        """The stored images. Goes into the page once, before the first picture."""
        return Markup('<svg width="0" height="0" class="store" aria-hidden="true"><defs>{}</defs></svg>').format(
            Markup("\n").join(self._stored)
        )

    def picture(self, image: Location, name: str, note: str, box: Box | None) -> Markup:
        """The whole image with the box outlined, or a grey tile if it can't be read. note: follows the name."""
        label = f"{name}: {note}"
        if image in self._errors:
            return Markup(
                '<svg viewBox="0 0 100 100" role="img" aria-label="{}, not readable"><title>{}</title>'
                '<path class="gone" d="M28 32h44v36h-44z M28 62l14-14 10 9 8-7 12 12"/>'
                '<text class="gone" x="50" y="84">no image</text></svg>'
            ).format(label, self._errors[image])
        thumbnail_id, width, height = self._thumbnails[image]
        outline = Markup("")
        if box is not None:
            # Light on dark, so that it shows on any image, and a little inside, so that the tile's edge doesn't cut it.
            inset = 2.0
            x0, x1 = (min(max(x * width, inset), width - inset) for x in (box[0], box[2]))
            y0, y1 = (min(max(y * height, inset), height - inset) for y in (box[1], box[3]))
            rectangle = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3"/>')
            size = max(0.0, x1 - x0), max(0.0, y1 - y0)
            outline = rectangle.format("halo", x0, y0, *size) + rectangle.format("place", x0, y0, *size)
        return Markup(
            '<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title><use href="#{}"/>{}</svg>'
        ).format(width, height, label, name, thumbnail_id, outline)
