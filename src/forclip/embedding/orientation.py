"""A notice for a model input that is upright where the pictures are wide, or the other way round."""

from collections.abc import Sequence

from PIL import Image

from forclip.data.images.decode import image_size
from forclip.location import Location
from forclip.models.backbone import Backbone
from forclip.progress import notify

_SAMPLE = 20  # pictures whose size is read


def warn_about_orientation(backbone: Backbone, pictures: Sequence[Location]) -> None:
    """Tell the user if most pictures are turned against the model's input: rows and columns are easily swapped."""
    rows, columns = backbone.preprocess(Image.new("RGB", (8, 8))).shape[1:]
    if rows == columns or not pictures:
        return
    sizes = [image_size(picture) for picture in pictures[:: -(-len(pictures) // _SAMPLE)]]
    known = [size for size in sizes if size is not None]
    turned = sum((height - width) * (rows - columns) < 0 for width, height in known)
    if 2 * turned > len(known):
        kind = ("higher than wide", "wider than high")[:: 1 if rows > columns else -1]
        notify(
            f"the model's input is {kind[0]} ({rows} rows, {columns} columns), but most pictures are {kind[1]}:"
            f" was the image size {columns}x{rows} meant?"
        )
