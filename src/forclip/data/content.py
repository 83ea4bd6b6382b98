"""Which files hold the same bytes."""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from forclip.progress import Advance, silent


def same_content(paths: Sequence[Path], advance: Advance = silent) -> list[list[int]]:
    """Groups of rows whose files are equal byte for byte, each group and all groups in ascending order.

    Only files of equal size are read (BLAKE2b). A file that is not there, or can't be read, equals none.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for row, path in enumerate(paths):
        with contextlib.suppress(OSError):
            by_size[path.stat().st_size].append(row)
        advance(1)
    groups: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for size, rows in by_size.items():
        for row in rows if len(rows) > 1 else ():
            digest = _digest(paths[row])
            if digest is not None:
                groups[size, digest].append(row)
    return sorted(group for group in groups.values() if len(group) > 1)


def _digest(path: Path) -> bytes | None:
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "blake2b").digest()
    except OSError:
        return None
