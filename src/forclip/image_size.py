"""The size of a model's input in pixels: one number for a square, or rows and columns."""

import re
from collections.abc import Sequence

ImageSize = int | tuple[int, int]  # pixels per side, or (rows, columns)


def parse_image_size(value: object) -> ImageSize | None:
    """Read an image size: 336, (288, 512), or a text such as "336" or "288x512" (rows x columns); None stays None.

    Equal rows and columns become one number, so that equal sizes are equal values. Raises ValueError for anything else.
    """
    match value:
        case None:
            return None
        case [rows, columns]:
            sides = [rows, columns]
        case str():
            sides = re.split("[xX]", value)
        case _:
            sides = [value]
    texts = [str(side).strip() for side in sides]
    if len(texts) > 2 or not all(text.isdecimal() for text in texts):
        raise ValueError(
            f"image_size {value!r}: must be pixels per side, such as 336, or rows and columns, such as [288, 512]"
        )
    rows, columns = int(texts[0]), int(texts[-1])
    if not rows or not columns:
        raise ValueError(f"image_size {value!r}: must have at least one pixel per side")
    return rows if rows == columns else (rows, columns)


def rows_and_columns(size: ImageSize | Sequence[int]) -> tuple[int, int]:
    rows, columns = (size, size) if isinstance(size, int) else size
    return rows, columns


def describe_image_size(size: ImageSize) -> str:
    """Write an image size as `--image-size` takes it: 336, or 288x512."""
    return str(size) if isinstance(size, int) else "x".join(map(str, size))
