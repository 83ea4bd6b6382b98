"""Decode untrusted image files; failures are reported, never fatal."""

from pathlib import Path
from typing import BinaryIO
from warnings import catch_warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

# A larger image is refused from its header, before decoding. Pillow itself refuses those of 179 million.
MAX_PIXELS = 178_000_000


class UnreadableImage(ValueError):
    """An image file can't be decoded; the message names the file and the reason."""


def read_image(path: Path) -> Image.Image:
    """Decode an image file to RGB, in the frame of the stored pixels, as COCO boxes are: EXIF orientation is ignored.

    16-bit images are divided by 256, transparency becomes white, the rest is Pillow's. Raises UnreadableImage.
    """
    return decode_image(path, str(path))


def decode_image(file: Path | BinaryIO, name: str) -> Image.Image:
    """Decode an image like `read_image`, from a file or a stream. name: what the error message calls it."""
    try:
        # Our own limit is below Pillow's, which only warns.
        with catch_warnings(action="ignore", category=Image.DecompressionBombWarning), Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} is over {MAX_PIXELS} pixels")
            image.load()
            if image.mode.startswith("I"):
                eight_bits = (np.asarray(image).astype(np.int64) // 256).clip(0, 255).astype(np.uint8)
                return Image.fromarray(eight_bits).convert("RGB")
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                with_alpha = image.convert("RGBA")
                white = Image.new("RGBA", with_alpha.size, (255, 255, 255, 255))
                return Image.alpha_composite(white, with_alpha).convert("RGB")
            return image.convert("RGB")
    except FileNotFoundError:
        raise UnreadableImage(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise UnreadableImage(f"{name}: not an image that Pillow can read") from None
    # For damaged data Pillow's decoders raise SyntaxError, struct.error, RuntimeError (AVIF) and others.
    except Exception as error:
        raise UnreadableImage(f"{name}: {error}") from None


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels, from the file's header, or None for an image that can't be read."""
    try:
        # Nothing is decoded here, so a large image does no harm.
        with catch_warnings(action="ignore", category=Image.DecompressionBombWarning), Image.open(path) as image:
            return image.size
    # For damaged headers Pillow's plugins raise struct.error, SyntaxError and others.
    except Exception:
        return None
