"""Compare image files: by content, and by size and time of change."""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from forclip.data.images.frame_location import file_of, split_frame
from forclip.progress import Advance, silent


def find_identical_files(paths: Sequence[Path], advance: Advance = silent) -> list[list[int]]:
    """Group the rows of files that are equal byte for byte; rows and groups are in ascending order.

    Only files of equal size are read. A file that is missing or can't be read is in no group.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for row, path in enumerate(paths):
        with contextlib.suppress(OSError):
            by_size[file_of(path).stat().st_size].append(row)
        advance(1)
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for size, rows in by_size.items():
        for row in rows if len(rows) > 1 else ():
            if digest := content_digest(paths[row]):
                groups[size, digest].append(row)
    return sorted(group for group in groups.values() if len(group) > 1)


def content_digest(path: Path) -> str | None:
    """16 bytes of a file's BLAKE2b digest, in hexadecimal, or None if the file can't be read.

    For a frame, its video's digest and its time.
    """
    if frame := split_frame(path):
        digest = _video_digest(frame[0], *file_state(path))
        return digest and f"{digest}#t={frame[1]:.3f}"
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError:
        return None


@lru_cache(maxsize=1024)
def _video_digest(video: Path, size: int, modified: int) -> str | None:
    """The digest of a video in this state, read once for all its frames."""
    return content_digest(video)


def file_state(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and time of the last change in nanoseconds; (-1, -1) for a missing file.

    For a frame, those of its video.
    """
    try:
        status = file_of(path).stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
