"""Read the members of tar archives, by name or in order. Webdataset writes its shards so."""

import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import IO, Any, cast

from forclip.location import Uri
from forclip.path_text import unescape

_BLOCK = 512  # bytes of a header
_LARGEST_NOTE = 1 << 16  # bytes of a text next to a picture
_DAMAGE = (tarfile.TarError, EOFError, zlib.error)


@dataclass(frozen=True)
class Member:
    """A regular file in a tar. start: of its bytes in the tar, -1 in a compressed one; content: if it was read."""

    name: str
    start: int
    length: int
    content: bytes | None = None


class Damaged(ValueError):
    """The rest of a shard can't be read; the message says from where on and why."""


def is_compressed(name: str) -> bool:
    """Whether a tar's ending says that it is compressed."""
    return not name.lower().endswith(".tar")


def read_members(file: IO[bytes], compressed: bool, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the regular files of a tar in order. wanted: by name, whether the content of a small one is read too.

    Raises Damaged at the place from which on the tar can't be read, and for a tar whose end is missing.
    """
    end = 0
    try:
        # Positions in a compressed tar are of no use, so it is read as a stream.
        with tarfile.open(fileobj=file, mode="r|gz" if compressed else "r:") as tar:
            size = None if compressed else _size_of(file)
            while (member := tar.next()) is not None:
                cast(Any, tar).members = []  # tarfile keeps all it has seen
                if member.isreg() and not member.issparse():
                    if size is not None and member.offset_data + member.size > size:
                        raise Damaged(f"is cut off in {member.name}")
                    content = None
                    if member.size <= _LARGEST_NOTE and wanted(member.name):
                        reader = tar.extractfile(member)
                        content = reader.read() if reader else None
                    start = -1 if compressed else member.offset_data
                    yield Member(member.name, start, member.size, content)
                end = member.offset_data + member.size
            if not compressed:
                file.seek(tar.offset)
                block = file.read(_BLOCK)
                if not block and tar.offset:
                    raise Damaged("ends without the blocks that end a tar; members may be missing")
                if block.strip(b"\0"):
                    raise Damaged(f"is damaged at byte {tar.offset:,}")
    except _DAMAGE as error:
        raise Damaged(f"is cut off or damaged after byte {end:,}: {error}") from None


def _size_of(file: IO[bytes]) -> int:
    here = file.tell()
    size = file.seek(0, 2)
    file.seek(here)
    return size


class TarShard:
    """An open tar that is not compressed, for use by several threads."""

    def __init__(self, file: IO[bytes], find: Callable[[str], Member | None]) -> None:
        """find: the member of this name; it is asked where a location does not say where the bytes are."""
        self._file, self._find, self._lock = file, find, Lock()

    def read(self, uri: Uri) -> bytes:
        """Read a member. Raises FileNotFoundError if there is none of this name, and Damaged."""
        with self._lock:
            if uri.start >= _BLOCK and (content := self._read_known(uri)) is not None:
                return content
        member = self._find(uri.member) or self._find(unescape(uri.member))
        if member is None:
            raise FileNotFoundError(f"{uri.container}: has no member {uri.member!r}")
        with self._lock:
            self._file.seek(member.start)
            content = self._file.read(member.length)
        if len(content) < member.length:
            raise Damaged("is cut off here")
        return content

    def _read_known(self, uri: Uri) -> bytes | None:
        """Read the bytes where they were, or return None if another member is there now."""
        self._file.seek(uri.start - _BLOCK)
        read = self._file.read(_BLOCK + uri.length)
        try:
            header = tarfile.TarInfo.frombuf(read[:_BLOCK], "utf-8", "surrogateescape")
        except tarfile.HeaderError:
            return None
        # Longer names stand in a header of their own, of which this one has the start.
        is_named_so = len(uri.member) >= 100 or header.name in (uri.member, unescape(uri.member))
        content = read[_BLOCK:]
        return content if is_named_so and header.size == uri.length == len(content) else None


class CompressedTarShard:
    """A compressed tar, whose members are read in order; going back starts again. For use by several threads."""

    def __init__(self, open_again: Callable[[], IO[bytes]], names: Sequence[str]) -> None:
        """open_again: opens the file again; names: of the members, in order."""
        self._open, self._lock = open_again, Lock()
        self._order = {name: position for position, name in enumerate(names)}
        self._members: Iterator[tuple[str, Callable[[], bytes]]] = iter(())
        self._reached = len(names)  # position of the last member that was passed
        self._last: tuple[int, bytes] = (-1, b"")

    def read(self, uri: Uri) -> bytes:
        """Read a member. Raises FileNotFoundError if there is none of this name, and Damaged."""
        position = self._order.get(uri.member, self._order.get(unescape(uri.member), -1))
        if position < 0:
            raise FileNotFoundError(f"{uri.container}: has no member {uri.member!r}")
        with self._lock:
            if self._last[0] == position:
                return self._last[1]
            if position <= self._reached:
                self._members, self._reached = _stream(self._open()), -1
            for name, read in self._members:
                self._reached = max(self._reached, self._order.get(name, -1))
                if self._order.get(name) == position:
                    self._last = position, read()
                    return self._last[1]
            self._reached = len(self._order)
            raise Damaged("is cut off before this member")


def _stream(file: IO[bytes]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yield the name of each member, and a function that reads it before the next one is taken."""

    def read(member: tarfile.TarInfo) -> bytes:
        reader = tar.extractfile(member)
        return reader.read() if reader else b""

    try:
        with file, tarfile.open(fileobj=file, mode="r|gz") as tar:
            for member in tar:
                cast(Any, tar).members = []  # tarfile keeps all it has seen
                if member.isreg():
                    yield member.name, partial(read, member)
    except _DAMAGE as error:
        raise Damaged(f"is cut off or damaged: {error}") from None
