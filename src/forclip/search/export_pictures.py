"""Copy the pictures of a selection, and write the frames of videos."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from forclip.data.images.decode import fetch, read_image
from forclip.data.images.frame_location import split_frame
from forclip.location import Location
from forclip.path_text import path_to_text
from forclip.search.selection import Item, Selection

CopyPicture = Callable[[Item, Path], None]  # copies the picture of an item to a file

_UNSAFE = re.compile(r'[\x00-\x1f\\/:*?"<>|]')  # in file names, on some system


def copy_picture(item: Item, to: Path) -> None:
    """Copy an item's picture file, or write a video's frame. Raises ValueError where that fails, naming the file."""
    if split_frame(item.path):
        read_image(item.path).save(to, "JPEG", quality=95)
        return
    try:
        if isinstance(item.path, Path):
            shutil.copyfile(item.path, to)
        else:
            to.write_bytes(fetch(item.path))
    except OSError as error:
        raise ValueError(f"{item.path}: can't be copied: {error.strerror}") from None


def exported_name(rank: int, path: Location) -> tuple[str, str]:
    """The name and the ending of a copied picture. A video's frame becomes a JPEG with the time in its name."""
    if frame := split_frame(path):
        stem, suffix = f"{os.path.splitext(frame[0].name)[0]}_{frame[1]:.3f}s".replace(".", "-"), ".jpg"
    else:
        stem, suffix = os.path.splitext(path.name)
    # Two folders may hold the same name.
    return f"{rank:06d}_{_UNSAFE.sub('_', path_to_text(stem))}", _UNSAFE.sub("_", path_to_text(suffix))


def write_frames(selection: Selection, to: Path, copy: Callable[[Item, Path], None] = copy_picture) -> list[str]:
    """Write the frames of videos among a selection's images to a folder.

    Returns the file name of each image there, empty for images that have a file of their own.
    """
    names = []
    for rank, item in enumerate(selection.items, start=1):
        names.append("".join(exported_name(rank, item.path)) if split_frame(item.path) else "")
        if names[-1]:
            to.mkdir(parents=True, exist_ok=True)
            copy(item, to / names[-1])
    return names
