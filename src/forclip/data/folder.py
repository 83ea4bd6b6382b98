"""A folder of pictures without labels, or a glob."""

import glob
from pathlib import Path

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
