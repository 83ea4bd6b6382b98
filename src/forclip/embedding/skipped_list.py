"""The list of images that could not be read: a file of the store to which jobs append, one JSON object a line.

A line without a reason takes an image off the list. A killed job leaves at most a torn line, which is ignored.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from forclip.atomic_write import write_text_atomically
from forclip.embedding.changes import UnreadableImage

SKIPPED_FILE = "skipped.jsonl"
OLD_SKIPPED_FILE = "skipped.json"  # of earlier versions of forclip: all of the list, written anew at every change
_LOCK = "skipped.lock"
_LOCK_SECONDS = 60.0
_MIN_OUTDATED = 1_000  # lines, from which the file is written anew if half of it or more is outdated


def read_unreadable(store: Path) -> dict[str, UnreadableImage]:
    """Read, by id, which images earlier jobs could not read. Raises ValueError for a damaged list."""
    return _read(store)[0]


def write_unreadable(store: Path, listed: Mapping[str, UnreadableImage], removed: Iterable[str] = ()) -> None:
    """Add images to the list, or replace what it says of them, and take others off it. Raises ValueError as above."""
    lines = [{"id": image_id, **vars(image)} for image_id, image in listed.items()]
    lines += [{"id": image_id} for image_id in removed]
    text = "".join(_line(content) for content in lines)
    with FileLock(store / _LOCK, timeout=_LOCK_SECONDS):
        if (store / OLD_SKIPPED_FILE).exists():
            _rewrite(store, _read(store)[0])
            (store / OLD_SKIPPED_FILE).unlink()
        with (store / SKIPPED_FILE).open("ab+") as file:
            if file.tell() and not _ends_a_line(file):
                text = f"\n{text}"
            file.write(text.encode())


def shorten_unreadable(store: Path) -> None:
    """Write the list anew if most of its lines are outdated."""
    if (store / SKIPPED_FILE).exists():
        with FileLock(store / _LOCK, timeout=_LOCK_SECONDS):
            images, num_lines = _read(store)
            if num_lines - len(images) >= max(_MIN_OUTDATED, len(images)):
                _rewrite(store, images)


def _read(store: Path) -> tuple[dict[str, UnreadableImage], int]:
    """Return the list and how many lines its file has."""
    images: dict[str, UnreadableImage] = {}
    num_lines, file = 0, store / OLD_SKIPPED_FILE
    try:
        if file.exists():  # until the first change
            images = {
                image_id: UnreadableImage(**content) for image_id, content in json.loads(file.read_text()).items()
            }
        file = store / SKIPPED_FILE
        for line in file.open("rb") if file.exists() else ():
            num_lines += 1
            if (content := _parse(line)) is None:
                continue
            image_id = content.pop("id")
            if content:
                images[image_id] = UnreadableImage(**content)
            else:
                images.pop(image_id, None)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: damaged: {error}. Delete it to try its images again") from None
    return images, num_lines


def _parse(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds, None if it is empty or torn."""
    try:
        content: dict[str, Any] = json.loads(line)
        return content
    except ValueError:
        if not line.strip() or line.startswith(b'{"id"') or b'{"id": '.startswith(line.rstrip(b"\n")):
            return None
        raise


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content) + "\n"


def _rewrite(store: Path, images: Mapping[str, UnreadableImage]) -> None:
    lines = (_line({"id": image_id, **vars(image)}) for image_id, image in images.items())
    write_text_atomically(store / SKIPPED_FILE, "".join(lines))
