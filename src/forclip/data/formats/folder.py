"""A folder of images without labels."""

from pathlib import Path

import numpy as np

from forclip.data.images.listing import list_pictures
from forclip.location import Location, Uri, as_location, file_on_disk, is_at_url
from forclip.types import Annotations


def load_image_folder(folder: Path) -> Annotations:
    """Load all images below the folder, sorted by id (the path relative to it, with slashes), without classes.

    The folder may be at a URL. What is left out is in `skipped`. Raises ValueError for a folder that is missing or
    holds no image.
    """
    # `list_pictures` would take a missing folder such as photos[1] for a pattern.
    source = str(as_location(folder))
    if not is_at_url(folder) and not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    listing = list_pictures(source)
    if not listing.pictures:
        raise ValueError(listing.why_empty(source))
    paths = dict(sorted(((_id_of(path, source), path) for path in listing.pictures), key=lambda pair: pair[0]))
    return Annotations(
        image_ids=tuple(paths),
        paths=tuple(paths.values()),
        class_names=(),
        labels=np.zeros((len(paths), 0), bool),
        skipped=listing.skipped_entries(),
    )


def _id_of(path: Location, folder: str) -> str:
    """The path relative to the folder; of a shard's member, the shard's, # and the member."""
    if isinstance(path, Uri) and path.is_remote:
        return str(path).removeprefix(f"{folder.rstrip('/')}/")
    name = file_on_disk(path).relative_to(folder).as_posix()
    return name if isinstance(path, Path) else f"{name}#{path.member}"
