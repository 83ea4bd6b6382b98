"""A folder of images without labels."""

import glob
from pathlib import Path

import numpy as np

from forclip.types import Annotations

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"})


def list_images(source: str) -> list[Path]:
    """List the images below a folder, or those that a glob pattern matches, sorted. Raises ValueError for none."""
    folder = Path(source)
    if folder.is_dir():
        images = [p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    elif glob.has_magic(source):
        images = [Path(p) for p in glob.glob(source, recursive=True) if Path(p).is_file()]
    elif folder.exists():
        raise ValueError(f"{source}: not a folder; give a folder or a pattern such as 'photos/**/*.jpg'")
    else:
        raise ValueError(f"{source}: no such folder")
    if not images:
        raise ValueError(f"{source}: no images ({', '.join(sorted(IMAGE_SUFFIXES))}) found")
    return sorted(images)


def load_image_folder(folder: Path) -> Annotations:
    """Load all images below the folder, sorted by id (the path relative to it, with slashes), without classes.

    Raises ValueError for a folder that is missing or holds no image.
    """
    # `list_images` would take a missing folder such as photos[1] for a pattern.
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    paths = dict(sorted((path.relative_to(folder).as_posix(), path) for path in list_images(str(folder))))
    return Annotations(tuple(paths), tuple(paths.values()), class_names=(), labels=np.zeros((len(paths), 0), bool))
