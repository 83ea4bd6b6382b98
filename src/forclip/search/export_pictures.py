"""Copy the pictures of a selection, and write the frames of videos."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from forclip.data.images.decode import UnreachableImage, UnreadableImage, fetch, read_image
from forclip.data.images.frame_location import split_frame
from forclip.location import Location
from forclip.path_text import path_to_text
from forclip.search.selection import Item, Selection

CopyPicture = Callable[[Item, Path], None]  # copies the picture of an item to a file

_UNSAFE = re.compile(r'[\x00-\x1f\\/:*?"<>|]')  # in file names, on some system


def copy_picture(item: Item, to: Path) -> None:
    """Copy an item's picture file, or write a video's frame.

    Raises UnreadableImage for a picture that can't be read, and OSError where the copy can't be written.
    """
    if split_frame(item.path):
        read_image(item.path).save(to, "JPEG", quality=95)
    else:
        to.write_bytes(fetch(item.path))


def stage_pictures(
    items: Iterable[Item], folder: Path, copy: CopyPicture = copy_picture
) -> tuple[CopyPicture, dict[str, str]]:
    """Copy the pictures of some items to a folder, so that one that can't be read stops no export.

    Returns a function that moves the staged picture of an item to its place, and by image id why a picture is missing.
    Errors of `copy` other than UnreadableImage are passed on, and UnreachableImage, as a failed network is.
    """
    folder.mkdir()
    staged: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for number, item in enumerate(items):
        to = folder / str(number)
        try:
            copy(item, to)
        except UnreachableImage:
            raise
        except UnreadableImage as error:
            missing[item.image_id] = str(error)
        else:
            staged[item.image_id] = to

    def place(item: Item, to: Path) -> None:
        staged[item.image_id].rename(to)

    return place, missing


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
