"""A list of search results that Jupyter shows as pictures."""

import base64
from html import escape
from io import BytesIO

from forclip.data.images.decode import UnreadableImage, read_image
from forclip.location import parse_location, without_range
from forclip.types import SearchResult

SHOWN = 24  # pictures
_SIDE = 200  # pixels of a picture's longer side
_FIGURE = "margin:0;width:200px;font:12px/1.4 sans-serif;overflow-wrap:anywhere"
_REGION = "position:absolute;box-sizing:border-box;border:2px solid #f60;outline:1px solid #fff"


class ResultList(list[SearchResult]):
    """Search results, best first. A list that notebooks show as a grid of pictures with their regions."""

    def _repr_html_(self) -> str:
        """HTML without scripts; the first SHOWN pictures are inside, as JPEGs. Unreadable ones become grey tiles."""
        if not self:
            return "<p>No results.</p>"
        figures = "".join(map(_figure, self[:SHOWN]))
        more = f"<p>The first {SHOWN} of {len(self)} results.</p>" if len(self) > SHOWN else ""
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px;align-items:flex-end">{figures}</div>{more}'


def _figure(result: SearchResult) -> str:
    name = escape(parse_location(result.uri).name)
    title = escape(without_range(result.uri))
    try:
        image = read_image(parse_location(result.uri))
    except UnreadableImage as error:
        shown = f'<div style="height:120px;background:#888;color:#fff;padding:4px">{escape(str(error))}</div>'
    else:
        image.thumbnail((_SIDE, _SIDE))
        file = BytesIO()
        image.save(file, "JPEG", quality=80)
        source = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
        region = ""
        if result.box is not None:
            x0, y0, x1, y1 = (100 * min(max(edge, 0.0), 1.0) for edge in result.box)
            place = f"left:{x0:.1f}%;top:{y0:.1f}%;width:{x1 - x0:.1f}%;height:{y1 - y0:.1f}%"
            region = f'<div style="{_REGION};{place}"></div>'
        picture = f'<img src="{source}" alt="{name}" style="display:block;margin:0">'
        shown = f'<div style="position:relative;display:inline-block">{picture}{region}</div>'
    caption = f"<figcaption>{result.rank}. {result.score:.3f} {name}</figcaption>"
    return f'<figure style="{_FIGURE}" title="{title}">{shown}{caption}</figure>'
