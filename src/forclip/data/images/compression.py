"""Read compressed files in order. The first bytes say how a file is compressed, whatever its ending says."""

import lzma
import tarfile
import zlib
from typing import IO, Any

import pyarrow as pa

from forclip.file_systems import Unreachable

_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_DAMAGE = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error)


def compression_of(file: IO[bytes]) -> str | None:
    """Return how a file is compressed: gzip, bz2, xz or zstd; None if it is not. The file is left at its start."""
    start = file.read(6)
    file.seek(0)
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


class Decompressed:
    """The content of a compressed file, in order, also of one in several parts, as parallel compressors write them."""

    def __init__(self, file: IO[bytes], kind: str) -> None:
        source: Any = file
        self._stream: Any = lzma.LZMAFile(source) if kind == "xz" else pa.CompressedInputStream(source, kind)  # noqa: SIM115

    def read(self, size: int) -> bytes:
        """Read the next bytes. Raises tarfile.ReadError if the file is damaged or cut off, and Unreachable."""
        try:
            return bytes(self._stream.read(size))
        except Unreachable:
            raise
        except _DAMAGE as error:
            raise tarfile.ReadError(str(error)) from None
