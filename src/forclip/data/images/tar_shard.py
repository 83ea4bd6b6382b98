"""Read the members of tar archives, by name or in order. Webdataset writes its shards so."""

import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import IO, Any, cast

from forclip.data.images.compression import Decompressed
from forclip.location import Uri
from forclip.path_text import unescape

_BLOCK = 512  # bytes of a header
_LARGEST_NOTE = 1 << 16  # bytes of a text next to a picture
_DAMAGE = (tarfile.TarError, EOFError)


@dataclass(frozen=True)
class Member:
    """A file in a tar, or a link to one.

    start: of its bytes in the tar, -1 in a compressed one; content: if it was read; target: the member that a link
    leads to.
    """

    name: str
    start: int
    length: int
    content: bytes | None = None
    target: str | None = None


class Damaged(ValueError):
    """The rest of a shard can't be read; the message says from where on and why."""


def _open_tar(file: IO[bytes], compression: str | None) -> tarfile.TarFile:
    """Open a tar; a compressed one as a stream, since positions in it are of no use."""
    if compression is None:
        return tarfile.open(fileobj=file, mode="r:")
    return tarfile.open(fileobj=cast(Any, Decompressed(file, compression)), mode="r|")


def read_members(file: IO[bytes], compression: str | None, wanted: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the files of a tar, and the links, in order.

    compression: as `compression_of` gives it; wanted: by name, whether the content of a small file is read too.
    Raises Damaged at the place from which on the tar can't be read, and for a tar whose end is missing.
    """
    end, compressed = 0, compression is not None
    try:
        with _open_tar(file, compression) as tar:
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
                elif member.islnk():
                    yield Member(member.name, -1, 0, target=member.linkname)
                elif member.issym():
                    target = posixpath.join(posixpath.dirname(member.name), member.linkname)
                    yield Member(member.name, -1, 0, target=posixpath.normpath(target))
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

    def __init__(
        self, open_again: Callable[[], IO[bytes]], compression: str, names: Sequence[str], links: Mapping[str, str]
    ) -> None:
        """open_again: opens the file again; names: of the members, in order; links: member of each link among them."""
        self._open, self._compression, self._links, self._lock = open_again, compression, links, Lock()
        self._order = {name: position for position, name in enumerate(names)}
        self._members: Iterator[tuple[str, tarfile.TarFile, tarfile.TarInfo]] = iter(())
        self._reached = len(names)  # position of the last member that was passed
        self._last: tuple[int, bytes] = (-1, b"")

    def read(self, uri: Uri) -> bytes:
        """Read a member. Raises FileNotFoundError if there is none of this name, and Damaged."""
        name = uri.member if uri.member in self._order else unescape(uri.member)
        position = self._order.get(self._links.get(name, name), -1)
        if position < 0:
            raise FileNotFoundError(f"{uri.container}: has no member {uri.member!r}")
        with self._lock:
            if self._last[0] == position:
                return self._last[1]
            if position <= self._reached:
                self._members, self._reached = self._stream(), -1
            try:
                return self._read_on(position)
            except _DAMAGE as error:
                self._reached = len(self._order)
                raise Damaged(f"is cut off or damaged: {error}") from None

    def _read_on(self, position: int) -> bytes:
        for name, tar, member in self._members:
            self._reached = max(self._reached, self._order.get(name, -1))
            if self._order.get(name) == position:
                reader = tar.extractfile(member)
                self._last = position, reader.read() if reader else b""
                return self._last[1]
        raise tarfile.ReadError("before this member")

    def _stream(self) -> Iterator[tuple[str, tarfile.TarFile, tarfile.TarInfo]]:
        """Yield each regular file, to be read before the next one is taken."""
        with self._open() as file, _open_tar(file, self._compression) as tar:
            for member in tar:
                cast(Any, tar).members = []  # tarfile keeps all it has seen
                if member.isreg():
                    yield member.name, tar, member
