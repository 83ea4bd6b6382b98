"""Small versions of pictures, kept in memory up to a number of bytes."""

from collections import OrderedDict
from io import BytesIO
from threading import Lock

from PIL import Image

from forclip.server.gallery import Described
from forclip.server.pictures import decoded, picture_bytes

SIDE = 360  # pixels of the longer side
_QUALITY = 82


class Thumbnails:
    """bound: bytes kept; the least recently used go first."""

    def __init__(self, bound: int = 256_000_000) -> None:
        self.bound, self.held = bound, 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._lock = Lock()

    def of(self, image: Described) -> bytes:
        """JPEG. Raises Refused as picture_bytes and decoded do."""
        with self._lock:
            if image.key in self._kept:
                self._kept.move_to_end(image.key)
                return self._kept[image.key]
        made = _small(decoded(picture_bytes(image.file), 415, "the picture"))
        self._keep(image.key, made)
        return made

    def _keep(self, key: int, content: bytes) -> None:
        with self._lock:
            self.held += len(content) - len(self._kept.pop(key, b""))
            self._kept[key] = content
            while self.held > self.bound:
                self.held -= len(self._kept.popitem(last=False)[1])


def _small(picture: Image.Image) -> bytes:
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    made = BytesIO()
    picture.save(made, "JPEG", quality=_QUALITY)
    return made.getvalue()
