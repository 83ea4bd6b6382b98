"""A folder of pictures as a set without labels: something to search, not to learn from."""

import glob
from pathlib import Path

import numpy as np

from forclip.types import Annotations

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


def list_images(source: str) -> list[Path]:
    """All pictures below a folder, or those a glob matches, sorted. Raises ValueError where there is none."""
    folder = Path(source)
    if folder.is_dir():
        found = [p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    elif glob.has_magic(source):
        found = [Path(p) for p in glob.glob(source, recursive=True) if Path(p).is_file()]
    elif folder.exists():
        raise ValueError(f"{source}: not a folder; give a folder or a pattern such as 'photos/**/*.jpg'")
    else:
        raise ValueError(f"{source}: no such folder")
    if not found:
        raise ValueError(f"{source}: no pictures ({', '.join(sorted(IMAGE_SUFFIXES))}) found")
    return sorted(found)


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
