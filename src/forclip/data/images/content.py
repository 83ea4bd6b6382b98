"""Compare image files: by content, and by size and time of change."""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from forclip.data.images.fetch import location_state, read_bytes
from forclip.data.images.frame_location import file_of, split_frame
from forclip.file_systems import Unreachable
from forclip.location import Location, Uri
from forclip.progress import Advance, silent


def find_identical_files(paths: Sequence[Location], advance: Advance = silent) -> list[list[int]]:
    """Group the rows of files that are equal byte for byte; rows and groups are in ascending order.

    Only files of equal size are read. A file that is missing or can't be read is in no group.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for row, path in enumerate(paths):
        if (size := _content_size(path)) is not None:
            by_size[size].append(row)
        advance(1)
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for size, rows in by_size.items():
        for row in rows if len(rows) > 1 else ():
            if digest := content_digest(paths[row]):
                groups[size, digest].append(row)
    return sorted(group for group in groups.values() if len(group) > 1)


def _content_size(path: Location) -> int | None:
    """The size of a file, of a member of a tar the member's; None if it is missing."""
    if isinstance(path, Uri) and path.member and split_frame(path) is None:
        try:
            return path.length if path.length >= 0 else len(read_bytes(path))
        except (OSError, ValueError):
            return None
    with contextlib.suppress(OSError):
        size = file_state(path)[0]
        return size if size >= 0 else None
    return None


def content_digest(path: Location) -> str | None:
    """16 bytes of a file's BLAKE2b digest, in hexadecimal, or None if the file can't be read.

    For a frame, its video's digest and its time.
    """
    if frame := split_frame(path):
        digest = _video_digest(frame[0], *file_state(path))
        return digest and f"{digest}#t={frame[1]:.3f}"
    try:
        if not isinstance(path, Path):
            return bytes_digest(read_bytes(path))
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except (OSError, ValueError):
        return None


def bytes_digest(content: bytes) -> str:
    """The digest of a file with this content, as `content_digest` gives it."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


@lru_cache(maxsize=1024)
def _video_digest(video: Location, size: int, modified: int) -> str | None:
    """The digest of a video in this state, read once for all its frames."""
    return content_digest(video)


def file_state(path: Location) -> tuple[int, int]:
    """Return a file's size in bytes and time of the last change in nanoseconds; (-1, -1) for a missing file.

    For a frame, those of its video, and for a shard's member, those of the shard. Raises Unreachable for a file at a
    URL, of which a failing network says nothing.
    """
    return location_state(file_of(path))


def is_missing(path: Location) -> bool:
    """Whether a file, a frame's video or a member's shard is missing. What can't be reached is not."""
    try:
        return file_state(path) == (-1, -1)
    except Unreachable:
        return False
