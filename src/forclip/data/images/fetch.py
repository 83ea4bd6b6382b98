"""Read the bytes of a picture, and its state, wherever it is: a file, a URL, or a member of a shard."""

import os
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import IO, cast

from cachetools import LRUCache

from forclip.data.images.compression import compression_of
from forclip.data.images.range_file import RangeFile
from forclip.data.images.table_shard import TableShard, row_of
from forclip.data.images.tar_index import TarIndex, read_tar_index
from forclip.data.images.tar_shard import CompressedTarShard, Damaged, Member, TarShard
from forclip.file_systems import Unreachable, file_info, is_folder, read_file, retry
from forclip.location import Location, Uri, is_table, is_tar, is_url

_OPEN_SHARDS = 32
_KNOWN_MEMBERS = 4_000_000  # of all tar indexes in memory

_Shard = TarShard | CompressedTarShard | TableShard
_shards: LRUCache[tuple[str, int, int, int], _Shard] = LRUCache(_OPEN_SHARDS)
_indexes: LRUCache[tuple[str, int, int], TarIndex] = LRUCache(_KNOWN_MEMBERS, getsizeof=lambda index: len(index) + 1)
_lock = Lock()


def read_bytes(location: Location, limit: int = -1) -> bytes:
    """Read a picture's file, or its first bytes up to a limit.

    Raises FileNotFoundError, OSError for a file that can't be read, Unreachable if the network fails, and ValueError
    for a member that can't be read: an empty row, or the damaged part of a shard.
    """
    if not isinstance(location, Uri):
        with location.open("rb") as file:
            return file.read(limit)
    if not location.member:
        return read_file(location.container, 0, limit)
    try:
        if is_url(location.container):
            return retry(location.container, lambda: _read_member(location))
        return _read_member(location)
    except Damaged as error:
        raise ValueError(f"{location.container} {error}") from None


def location_state(location: Location) -> tuple[int, int]:
    """Return the size in bytes and time of the last change (ns) of a file, of a member those of its shard.

    (-1, -1) for what does not exist. Raises Unreachable.
    """
    if isinstance(location, Uri):
        if location.size >= 0:
            return location.size, location.modified
        if is_url(location.container):
            found = file_info(location.container)
            return (-1, -1) if found is None else (found.size, found.modified)
    try:
        status = os.stat(location.container if isinstance(location, Uri) else location)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def is_there(location: Location) -> bool:
    """Whether a file, a folder or a shard exists. Raises Unreachable."""
    if isinstance(location, Uri) and is_url(location.container):
        return location_state(location) != (-1, -1) or is_folder(location.container)
    return os.path.exists(location.container if isinstance(location, Uri) else location)


def open_seekable(container: str) -> IO[bytes]:
    """Open a local file, or a file at a URL. Raises FileNotFoundError and Unreachable."""
    return cast(IO[bytes], RangeFile(container)) if is_url(container) else open(container, "rb")


def index_of(container: str, size: int, modified: int) -> TarIndex:
    """Return the members of a tar in this state, from memory where they are known. Raises as `read_tar_index`."""
    key = container, size, modified
    with _lock:
        if (known := _indexes.get(key)) is not None:
            return known
    index = read_tar_index(container, size, modified, open_seekable)
    with _lock, suppress(ValueError):  # larger than all that is kept
        _indexes[key] = index
    return index


def _read_member(uri: Uri) -> bytes:
    # A shard at a URL is not asked for its state before each member: what was indexed is compared by content.
    state = (uri.size, uri.modified) if is_url(uri.container) else location_state(uri.whole())
    if state == (-1, -1) and not is_url(uri.container):
        raise FileNotFoundError(f"{uri.container}: no such file")
    key = (uri.container, *state, os.getpid())  # an open file is not shared with a process that was forked
    with _lock:
        shard = _shards.get(key)
    if shard is None:
        shard = _open_shard(uri, state)
        with _lock:
            shard = _shards.setdefault(key, shard)
    return shard.read(row_of(uri)) if isinstance(shard, TableShard) else shard.read(uri)


def _open_shard(uri: Uri, state: tuple[int, int]) -> _Shard:
    container = uri.container
    if is_table(container):
        return TableShard(container)
    if not is_tar(container):
        raise FileNotFoundError(f"{uri}: {container} is no shard")

    def find_index() -> TarIndex:
        return index_of(container, *(location_state(uri.whole()) if state == (-1, -1) else state))

    file = open_seekable(container)
    if (compression := compression_of(file)) is not None:
        file.close()
        index = find_index()
        return CompressedTarShard(lambda: open_seekable(container), compression, index.names, index.links)
    find: Callable[[str], Member | None] = lambda name: find_index().member(name)  # noqa: E731
    return TarShard(file, find)


__all__ = ["Unreachable", "index_of", "is_there", "location_state", "open_seekable", "read_bytes"]
