"""List the files of a dataset's folder."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

_OTHER_SYSTEMS = "__MACOSX"  # macOS' own entries in a zip; like those that start with a dot, they are no pictures


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """List the files below a folder whose suffix, in lower case, is one of these, sorted.

    Hidden files and folders are left out, macOS' `._` files among them. Links to folders are followed, each once.
    """
    found = (os.path.join(parent, name) for parent, names in _walk(folder) for name in names)
    return sorted(Path(name) for name in found if os.path.splitext(name)[1].lower() in suffixes)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or one that macOS adds."""
    return name.startswith(".") or name == _OTHER_SYSTEMS


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder with the names of its files."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        yield parent, [name for name in names if not is_hidden(name)]
