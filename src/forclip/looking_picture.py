"""A picture with a heatmap and the places of its vectors drawn on it."""

import numpy as np
from PIL import Image, ImageDraw

from forclip.heatmap import Heatmap
from forclip.looking import Look
from forclip.types import Floats

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
