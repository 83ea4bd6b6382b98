"""File names out of label files, kept inside the folder that they are relative to."""

import re
from pathlib import Path, PureWindowsPath


def inside(folder: Path, name: str, file: Path, entry: str) -> Path:
    """folder / name. The name may name sub-folders, but never lead out of the folder, here or on Windows.

    file and entry say where the name stands, for the message. Links in the folder are the owner's and are followed.
    Raises ValueError for a name that is empty, absolute, climbs by `..` or starts with a drive letter.
    """
    if not name.strip() or "\0" in name:
        raise ValueError(f"{file}: {entry} has no file name, but {name!r}")
    # Windows takes both slashes as separators, so its reading finds what POSIX' reading finds and more.
    windows = PureWindowsPath(name)
    if windows.root or ".." in windows.parts or re.match(r"[A-Za-z]:", name):
        raise ValueError(f"{file}: {entry} has a file name outside the folder {folder}: {name!r}")
    return folder / name
