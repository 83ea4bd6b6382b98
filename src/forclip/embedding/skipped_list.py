"""The list of images that could not be read, in a file of the store."""

import json
from collections.abc import Mapping
from pathlib import Path

from forclip.atomic_write import write_text_atomically
from forclip.embedding.changes import UnreadableImage

SKIPPED_FILE = "skipped.json"


def read_unreadable(store: Path) -> dict[str, UnreadableImage]:
    """Read, by id, which images earlier jobs could not read. Raises ValueError for a damaged list."""
    file = store / SKIPPED_FILE
    if not file.exists():
        return {}
    try:
        return {image_id: UnreadableImage(**content) for image_id, content in json.loads(file.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: damaged: {error}. Delete it to try its images again") from None


def write_unreadable(store: Path, images: Mapping[str, UnreadableImage]) -> None:
    """Replace the list, which is by id."""
    content = {image_id: vars(image) for image_id, image in images.items()}
    write_text_atomically(store / SKIPPED_FILE, json.dumps(content, indent=1))
