"""Read a stored image's picture file, only while it is still what was indexed, and make thumbnails."""

import hashlib
import os
import stat
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Literal

from cachetools import LRUCache
from PIL import Image

from forclip.data.images.content import bytes_digest, content_digest, file_state
from forclip.data.images.decode import UnreachableImage, UnreadableImage, decode_picture, read_header
from forclip.data.images.fetch import Unreachable, read_bytes
from forclip.data.images.frame_location import split_frame
from forclip.data.images.picture import ChooseReduction, in_full, reduction_for
from forclip.data.images.views import Size
from forclip.index.store import ImageFile
from forclip.location import Location, Uri, parse_location
from forclip.one_line import one_line
from forclip.server import limits
from forclip.server.errors import Refused

THUMBNAIL_SIDE = 360  # pixels of the longer side
ThumbnailFormat = Literal["jpeg", "webp"]
# Formats that browsers show, by Pillow's names. Others are sent as JPEG. MPO is JPEG with further pictures behind it.
_BROWSER_FORMATS = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
_decoding = BoundedSemaphore(4)  # the largest allowed picture takes half a gigabyte while it is decoded


def picture_bytes(file: ImageFile) -> bytes:
    """Read a picture file, which must have the content that was indexed. Links are followed, wherever they lead.

    Of a file whose content the store does not know, no link is followed, and it must be a picture.

    Raises:
        Refused: 404 for a missing file, 403 for a link in place of a file of unknown content, 409 for a file that
            changed since it was indexed, 503 for one that can't be fetched at the moment.
    """
    path = parse_location(file.uri)
    if frame := split_frame(path):
        return _frame_bytes(file, path, *frame)
    if isinstance(path, Uri):
        return _fetch(file, path)
    try:
        if not file.content_hash and os.path.islink(path):
            raise Refused(403, "the picture's file is a link, and the store does not know what it led to")
        # O_NONBLOCK: do not wait for the other end of a pipe.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError):
        raise Refused(404, "the picture's file no longer exists") from None
    # Check and read through one open file, so that renames in between do not matter.
    with os.fdopen(descriptor, "rb") as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Refused(409, "the picture's path is no longer a regular file")
        # Size and time alone would let a link, or a store that names any file, lead to another file.
        content = b"" if file.size and status.st_size != file.size else opened.read()
    if file.content_hash:
        unchanged = hashlib.blake2b(content, digest_size=16).hexdigest() == file.content_hash
    else:
        unchanged = read_header(BytesIO(content)) is not None
    if not unchanged:
        raise Refused(409, "the picture has changed since it was indexed")
    return content


class FetchedPictures:
    """Pictures that were fetched from URLs and shards, up to a number of bytes. Thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._lock = Lock()
        self.resize(max_bytes)

    def resize(self, max_bytes: int) -> None:
        """Keep this many bytes at most from now on, and begin with none."""
        with self._lock:
            self._pictures: LRUCache[tuple[str, str], bytes] = LRUCache(max(1, max_bytes), getsizeof=len)

    def get(self, uri: str, content_hash: str) -> bytes | None:
        """Return a picture by its location and content, or None."""
        with self._lock:
            return self._pictures.get((uri, content_hash))

    def keep(self, uri: str, content_hash: str, content: bytes) -> None:
        """Keep a picture, unless it is larger than all that may be kept."""
        with self._lock, suppress(ValueError):
            self._pictures[uri, content_hash] = content


fetched_pictures = FetchedPictures(limits.PICTURE_CACHE_BYTES)


def _fetch(file: ImageFile, uri: Uri) -> bytes:
    """Read a picture at a URL or in a shard, which must have the content that was indexed."""
    if (kept := fetched_pictures.get(file.uri, file.content_hash)) is not None:
        return kept
    try:
        content = read_bytes(uri)
    except Unreachable:
        raise Refused(503, "the picture can't be fetched at the moment") from None
    except FileNotFoundError:
        raise Refused(404, "the picture's file no longer exists") from None
    except (OSError, ValueError):
        raise Refused(409, "the picture's file can't be read any more") from None
    if file.content_hash:
        unchanged = bytes_digest(content) == file.content_hash
    else:
        unchanged = read_header(BytesIO(content)) is not None
    if not unchanged:
        raise Refused(409, "the picture has changed since it was indexed")
    fetched_pictures.keep(file.uri, file.content_hash, content)
    return content


def _frame_bytes(file: ImageFile, path: Location, video: Location, seconds: float) -> bytes:
    """Decode a video's frame to a JPEG. The video is read whole only if its size or time of change differ."""
    from forclip.data.images.video import VideoReader  # loads FFmpeg, for videos alone

    try:
        state = file_state(path)
    except Unreachable:
        raise Refused(503, "the picture can't be fetched at the moment") from None
    if state == (-1, -1):
        raise Refused(404, "the picture's file no longer exists")
    if isinstance(video, Path) and not video.is_file():
        raise Refused(409, "the picture's path is no longer a regular file")
    if state != (file.size, file.modified) and content_digest(path) != file.content_hash:
        raise Refused(409, "the picture has changed since it was indexed")
    with _decoding:
        try:
            with VideoReader(video, "the video") as reader:
                return _jpeg(reader.frame_at(seconds), quality=95)
        except UnreachableImage:
            raise Refused(503, "the picture can't be fetched at the moment") from None
        except UnreadableImage as error:
            raise Refused(415, str(error)[:200]) from None


def browser_picture(content: bytes) -> tuple[bytes, str]:
    """Return the file and its media type where browsers show it as `decode` does, else a JPEG.

    Raises Refused (415).
    """
    header = read_header(BytesIO(content))
    if header is not None and header.format in _BROWSER_FORMATS and not header.is_deep:
        media_type = _BROWSER_FORMATS[header.format]
        # All browsers turn JPEGs as EXIF says; for other formats, and for other metadata, they differ.
        is_turned_alike = media_type == "image/jpeg" and header.orientation_in_exif
        if header.orientation == 1 or is_turned_alike:
            return content, media_type
    return _jpeg(decode(content, 415, "the picture"), quality=92), "image/jpeg"


def decode(content: bytes, status: int, name: str, choose_reduction: ChooseReduction = in_full) -> Image.Image:
    """Decode to upright RGB. Raises Refused with this status; `name` names the picture.

    choose_reduction: as `decode_picture` takes it.
    """
    with _decoding:
        try:
            return decode_picture(BytesIO(content), name, choose_reduction).pixels
        except UnreadableImage as error:
            raise Refused(status, one_line(error)[:200]) from None


def make_thumbnail(file: ImageFile, kind: ThumbnailFormat = "jpeg") -> bytes:
    """Return a thumbnail of a picture file. Raises Refused as picture_bytes and decode do."""
    picture = decode(picture_bytes(file), 415, "the picture", _reduction_for_thumbnail)
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    if kind == "jpeg":
        return _jpeg(picture, quality=82)
    buffer = BytesIO()
    picture.save(buffer, "WEBP", quality=76, method=2)  # as sharp as that JPEG, with a third less bytes
    return buffer.getvalue()


def _reduction_for_thumbnail(size: Size) -> int:
    return reduction_for(max(size) / THUMBNAIL_SIDE)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
