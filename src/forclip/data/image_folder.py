"""A folder of pictures as a set without labels: something to search, not to learn from."""

from pathlib import Path

import numpy as np

from forclip.data.folder import list_images
from forclip.types import Annotations


def load_image_folder(folder: Path) -> Annotations:
    """All pictures below the folder, sorted by id: the path relative to it, with slashes. No classes: labels [n, 0].

    Raises ValueError where there is no such folder, or no picture in it.
    """
    # `list_images` would take a name such as photos[1] that is not there for a pattern.
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    paths = {path.relative_to(folder).as_posix(): path for path in list_images(str(folder))}
    ids = sorted(paths)
    return Annotations(
        image_ids=tuple(ids),
        paths=tuple(paths[i] for i in ids),
        class_names=(),
        labels=np.zeros((len(ids), 0), bool),
        boxes=np.zeros((0, 4), np.float32),
        box_images=np.zeros(0, np.int64),
        box_classes=np.zeros(0, np.int64),
    )
