"""A file at a URL as a seekable file, with reading ahead where it is read in order."""

import io
from typing import Any

from forclip.file_systems import open_file, retry

_SMALLEST, _LARGEST = 1 << 16, 1 << 23  # bytes of a request


class RangeFile(io.RawIOBase):
    """A file at a URL. Each request reads ahead: more and more while the file is read in order, little after a jump.

    So one picture of a large tar takes one small request, and all of them, in order, large ones. Not for use by several
    threads at a time. Raises FileNotFoundError and Unreachable.
    """

    def __init__(self, url: str) -> None:
        self._url, self._file = url, open_file(url)
        self.size: int = self._file.size()
        self._position = 0
        self._buffer, self._start, self._window = b"", 0, _SMALLEST

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, which costs nothing."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, as far as the file goes."""
        content = self.read_at(self._position, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def read_at(self, start: int, length: int) -> bytes:
        """Read bytes from a position; fewer at the end of the file."""
        length = max(0, min(length, self.size - start))
        end = self._start + len(self._buffer)
        if not (self._start <= start and start + length <= end):
            is_next = self._start <= start <= end + self._window
            self._window = min(2 * self._window, _LARGEST) if is_next else _SMALLEST
            kept = self._buffer[start - self._start :] if self._start <= start < end else b""
            wanted = min(max(length, self._window), self.size - start) - len(kept)
            first = start + len(kept)
            self._buffer = kept + retry(self._url, lambda: bytes(self._file.read_at(wanted, first)))
            self._start = start
        return self._buffer[start - self._start :][:length]

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()
