"""The picture file behind a key, opened only where it still is what was indexed."""

import hashlib
import os
import re
import stat
from io import BytesIO
from threading import BoundedSemaphore

from PIL import Image

from forclip.data.images.decode import UnreadableImage, decode_image
from forclip.index.store import ImageFile
from forclip.server.errors import Refused

# What browsers show, by Pillow's names. Anything else is sent as JPEG.
_SHOWN = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
_decoding = BoundedSemaphore(4)  # a picture of the largest size takes half a gigabyte while it is decoded


def picture_bytes(file: ImageFile) -> bytes:
    """Raises Refused: 404 for a file that is gone, 403 for one that a link leads out of what was indexed to, 409 for
    one that is not what was indexed."""
    path = _path(file.uri)
    root = file.source if os.path.isdir(file.source) else os.path.dirname(path)
    try:
        real = os.path.realpath(path, strict=True)
        inside = os.path.commonpath([real, os.path.realpath(root)]) == os.path.realpath(root)
    except (OSError, ValueError):
        raise Refused(404, "the picture's file is not there any more") from None
    if not inside:
        raise Refused(403, "the picture's file is now a link that leads out of what was indexed")
    return _read(real, file)


def shown_picture(content: bytes) -> tuple[bytes, str]:
    """The file as it is where browsers show its format, else as JPEG; and the media type. Raises Refused, 415."""
    try:
        with Image.open(BytesIO(content)) as image:
            media_type = _SHOWN.get(image.format or "")
    except Exception:
        media_type = None
    if media_type is not None:
        return content, media_type
    made = BytesIO()
    decoded(content, 415, "the picture").save(made, "JPEG", quality=92)
    return made.getvalue(), "image/jpeg"


def decoded(content: bytes, status: int, told: str) -> Image.Image:
    """RGB, in the frame of the stored pixels. Raises Refused with this status."""
    with _decoding:
        try:
            return decode_image(BytesIO(content), told)
        except UnreadableImage as error:
            raise Refused(status, " ".join(str(error).split())[:200]) from None


def _read(real: str, file: ImageFile) -> bytes:
    """What is checked is what is read: one open file, whatever happens to its name meanwhile."""
    try:
        # Without waiting for the other end of a pipe.
        opened = os.open(real, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        raise Refused(404, "the picture's file is not there any more") from None
    with os.fdopen(opened, "rb") as reading:
        found = os.fstat(reading.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise Refused(409, "the picture's file is no file any more")
        if file.size and found.st_size != file.size:
            raise Refused(409, "the picture has changed since it was indexed")
        content = reading.read()
    same_time = not file.modified or found.st_mtime_ns == file.modified
    if not same_time and hashlib.blake2b(content, digest_size=16).hexdigest() != file.content_hash:
        raise Refused(409, "the picture has changed since it was indexed")
    return content


def _path(uri: str) -> str:
    """Undoes the escapes that stand for bytes of a name that is not UTF-8, where the name is not there as it is."""
    if os.path.lexists(uri):
        return uri
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda m: chr(0xDC00 + int(m[1], 16)), uri)
