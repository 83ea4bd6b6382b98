"""The list of images that could not be read: a file of the store to which jobs append, one JSON object a line.

A line without a reason takes an image off the list. A killed job leaves at most a torn line, which is ignored. In a
bucket, where nothing can be appended, each addition is a file of its own in a folder.
"""

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from forclip.atomic_write import write_text_atomically
from forclip.bucket_path import BucketPath, StorePath
from forclip.embedding.changes import UnreadableImage

SKIPPED_FILE = "skipped.jsonl"
OLD_SKIPPED_FILE = "skipped.json"  # of earlier versions of forclip: the whole list, rewritten at every change
_BUCKET_FOLDER = "skipped"
_MAX_BUCKET_FILES = 32  # more are joined
_LOCK = "skipped.lock"
_LOCK_SECONDS = 60.0
_MIN_OUTDATED = 1_000  # lines, from which the file is rewritten if half of it or more is outdated


def read_unreadable(store: StorePath) -> dict[str, UnreadableImage]:
    """Read, by id, which images earlier jobs could not read. Raises ValueError for a damaged list."""
    return _read(store)[0]


def write_unreadable(store: StorePath, listed: Mapping[str, UnreadableImage], removed: Iterable[str] = ()) -> None:
    """Add images to the list, or replace what it says of them, and take others off it. Raises ValueError as above."""
    lines = [{"id": image_id, **vars(image)} for image_id, image in listed.items()]
    lines += [{"id": image_id} for image_id in removed]
    text = "".join(_line(content) for content in lines)
    if isinstance(store, BucketPath):
        if lines:
            (store / _BUCKET_FOLDER / f"{time.time_ns()}-{uuid.uuid4().hex}.jsonl").write_bytes(text.encode())
        return
    with FileLock(store / _LOCK, timeout=_LOCK_SECONDS):
        if (store / OLD_SKIPPED_FILE).exists():
            _rewrite(store, _read(store)[0])
            (store / OLD_SKIPPED_FILE).unlink()
        with (store / SKIPPED_FILE).open("ab+") as file:
            if file.tell() and not _ends_a_line(file):
                text = f"\n{text}"
            file.write(text.encode())


def shorten_unreadable(store: StorePath) -> None:
    """Rewrite the list if most of its lines are outdated."""
    if isinstance(store, BucketPath):
        files = _bucket_files(store)
        if len(files) > _MAX_BUCKET_FILES:
            # Its name comes just before the last one that it replaces. Who reads both reads the same twice.
            joined = store / _BUCKET_FOLDER / files[-1].name.replace(".jsonl", ".1.jsonl")
            joined.write_bytes(b"".join(file.read_bytes() for file in files))
            for file in files:
                if file != joined:
                    file.unlink(missing_ok=True)
    elif (store / SKIPPED_FILE).exists():
        with FileLock(store / _LOCK, timeout=_LOCK_SECONDS):
            images, num_lines = _read(store)
            if num_lines - len(images) >= max(_MIN_OUTDATED, len(images)):
                _rewrite(store, images)


def _read(store: StorePath) -> tuple[dict[str, UnreadableImage], int]:
    """Return the list and how many lines its file has."""
    images: dict[str, UnreadableImage] = {}
    num_lines = 0
    file: StorePath = store / OLD_SKIPPED_FILE
    try:
        if isinstance(file, Path) and file.exists():  # until the first change
            images = {
                image_id: UnreadableImage(**content) for image_id, content in json.loads(file.read_text()).items()
            }
        file = store / (SKIPPED_FILE if isinstance(store, Path) else _BUCKET_FOLDER)
        for line in _lines(store):
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


def _lines(store: StorePath) -> Iterator[bytes]:
    if isinstance(store, BucketPath):
        for file in _bucket_files(store):
            with suppress(FileNotFoundError):  # joined with others meanwhile
                yield from file.read_bytes().splitlines()
    elif (store / SKIPPED_FILE).exists():
        with (store / SKIPPED_FILE).open("rb") as opened:
            yield from opened


def _bucket_files(store: BucketPath) -> list[BucketPath]:
    """Return the files of a list in a bucket, in the order in which they were written."""
    return sorted(store / _BUCKET_FOLDER / name for name in (store / _BUCKET_FOLDER).sizes())


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


def _rewrite(store: StorePath, images: Mapping[str, UnreadableImage]) -> None:
    lines = (_line({"id": image_id, **vars(image)}) for image_id, image in images.items())
    write_text_atomically(store / SKIPPED_FILE, "".join(lines))
