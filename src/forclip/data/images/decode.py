"""Reading a picture that may be anything, without ever losing the job to it."""

import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

# A larger picture is refused from its header, before decoding. Pillow itself refuses those of 179 million.
MAX_PIXELS = 178_000_000


class UnreadableImage(ValueError):
    """The file is no picture that can be read; the message names it and says why."""


def read_image(path: Path) -> Image.Image:
    """An RGB image in the frame of the stored pixels, which is the frame that COCO boxes are in: EXIF is not applied.

    16-bit pictures are scaled to 8 bits, transparency is laid on white. Raises UnreadableImage.
    """
    return decode_image(path, str(path))


def decode_image(file: Path | BinaryIO, told: str) -> Image.Image:
    """As read_image, of bytes that came another way. told: how the message names them."""
    try:
        with warnings.catch_warnings():
            # Our own limit is checked below; Pillow's warning would only repeat it at another size.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnreadableImage(f"{told}: {image.width} x {image.height} is over {MAX_PIXELS} pixels")
                image.load()
                return to_rgb(image)
    except UnreadableImage:
        raise
    except FileNotFoundError:
        raise UnreadableImage(f"{told}: no such file") from None
    except UnidentifiedImageError:
        raise UnreadableImage(f"{told}: not a picture that Pillow knows") from None
    # For damaged data Pillow's decoders raise anything: SyntaxError, struct.error, RuntimeError from AVIF among them.
    except Exception as error:
        raise UnreadableImage(f"{told}: {error}") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to RGB: 16-bit scaled by 1/256, transparency on white, palettes and CMYK through Pillow."""
    if image.mode.startswith("I"):
        shallow = (np.asarray(image).astype(np.int64) // 256).clip(0, 255).astype(np.uint8)
        return Image.fromarray(shallow).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        ground = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, opaque).convert("RGB")
    return image.convert("RGB")
