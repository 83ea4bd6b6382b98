"""List the files of a dataset's folder."""

import os
from collections.abc import Collection
from pathlib import Path

from forclip.data.images.picture_types import HEIC_SUFFIXES, picture_suffixes
from forclip.location import Uri, as_location
from forclip.types import SkippedEntry

# Folders that systems and network drives add, in lower case; like those that start with a dot, they hold no labels.
_SYSTEM_FOLDERS = ("__macosx", "@eadir", "#recycle", "#snapshot")


def image_suffixes() -> frozenset[str]:
    """Endings of image files, in lower case; HEIC's too, so that such a file is missed where it can't be decoded."""
    return picture_suffixes() | HEIC_SUFFIXES


def list_files(folder: Path, suffixes: Collection[str], skipped: list[SkippedEntry] | None = None) -> list[Path]:
    """List the files below a folder whose suffix, in lower case, is one of these, sorted.

    Hidden files and folders are left out, macOS' `._` files among them. Links to folders are followed, each folder
    once. Folders that can't be read are added to skipped.
    """
    unreadable: list[OSError] = []
    seen: set[str] = set()
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable.append, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        visible = (name for name in names if not is_hidden(name))
        found += (Path(parent, name) for name in visible if os.path.splitext(name)[1].lower() in suffixes)
    if skipped is not None:
        reason = "the folder can't be read"
        skipped += (SkippedEntry(str(error.filename), reason, error.strerror or "") for error in unreadable)
    return sorted(found)


def names_in(folder: Path) -> list[str]:
    """The names directly in a folder, which may be at a URL; empty if there is no such folder.

    Raises ValueError for a URL that can't be reached.
    """
    location = as_location(folder)
    if not isinstance(location, Uri):
        try:
            return os.listdir(folder)
        except (OSError, ValueError):
            return []
    from forclip.file_systems import Unreachable, list_names  # late: Arrow's file systems take long to import

    try:
        return list_names(location.container)
    except FileNotFoundError:
        return []
    except Unreachable as error:
        raise ValueError(str(error)) from None


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system adds."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS
