"""Read a stored image's picture file, only while it is still what was indexed, and make thumbnails."""

import hashlib
import os
import re
import stat
from io import BytesIO
from threading import BoundedSemaphore

from PIL import Image

from forclip.data.images.decode import UnreadableImage, decode_image
from forclip.index.store import ImageFile
from forclip.server.cache import StoreCache
from forclip.server.errors import Refused

THUMBNAIL_SIDE = 360  # pixels of the longer side
_THUMBNAIL_BYTES = 256_000_000  # kept in memory
# Formats that browsers show, by Pillow's names. Others are sent as JPEG.
_BROWSER_FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
_decoding = BoundedSemaphore(4)  # the largest allowed picture takes half a gigabyte while it is decoded


def picture_bytes(file: ImageFile) -> bytes:
    """Read a picture file.

    Raises:
        Refused: 404 for a missing file, 403 for a link that leads out of what was indexed, 409 for a file that changed
            since it was indexed.
    """
    path = _path(file.uri)
    root = file.source if os.path.isdir(file.source) else os.path.dirname(path)
    try:
        real = os.path.realpath(path, strict=True)
        inside = os.path.commonpath([real, os.path.realpath(root)]) == os.path.realpath(root)
    except (OSError, ValueError):
        raise Refused(404, "the picture's file no longer exists") from None
    if not inside:
        raise Refused(403, "the picture's file is now a link that leads out of what was indexed")
    return _read(real, file)


def browser_picture(content: bytes) -> tuple[bytes, str]:
    """Return the file and its media type where browsers show its format, else a JPEG. Raises Refused (415)."""
    try:
        with Image.open(BytesIO(content)) as image:
            media_type = _BROWSER_FORMATS.get(image.format or "")
    except Exception:
        media_type = None
    if media_type is not None:
        return content, media_type
    return _jpeg(decode(content, 415, "the picture"), quality=92), "image/jpeg"


def decode(content: bytes, status: int, name: str) -> Image.Image:
    """Decode to RGB, in the frame of the stored pixels. Raises Refused with this status; `name` names the picture."""
    with _decoding:
        try:
            return decode_image(BytesIO(content), name)
        except UnreadableImage as error:
            raise Refused(status, " ".join(str(error).split())[:200]) from None


class Thumbnails:
    """Makes JPEG thumbnails and keeps the most recently used ones in memory."""

    def __init__(self, max_bytes: int = _THUMBNAIL_BYTES) -> None:
        self._cache: StoreCache[int, bytes] = StoreCache(max_bytes, len)

    def get(self, key: int, file: ImageFile) -> bytes:
        """Return the thumbnail of the image with this key. Raises Refused as picture_bytes and decode do."""
        return self._cache.get(key, lambda: _thumbnail(file))


def _thumbnail(file: ImageFile) -> bytes:
    picture = decode(picture_bytes(file), 415, "the picture")
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return _jpeg(picture, quality=82)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _read(real: str, file: ImageFile) -> bytes:
    """Check and read through one open file, so that renames in between do not matter."""
    try:
        # O_NONBLOCK: do not wait for the other end of a pipe.
        descriptor = os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        raise Refused(404, "the picture's file no longer exists") from None
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Refused(409, "the picture's path is no longer a regular file")
        if file.size and status.st_size != file.size:
            raise Refused(409, "the picture has changed since it was indexed")
        content = opened.read()
    same_time = not file.modified or status.st_mtime_ns == file.modified
    if not same_time and hashlib.blake2b(content, digest_size=16).hexdigest() != file.content_hash:
        raise Refused(409, "the picture has changed since it was indexed")
    return content


def _path(uri: str) -> str:
    """Decode the escapes that stand for bytes of a name that is not UTF-8, unless the escaped name itself exists."""
    if os.path.lexists(uri):
        return uri
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda m: chr(0xDC00 + int(m[1], 16)), uri)
