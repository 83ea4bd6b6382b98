"""What of a source a store lacks: pictures that are new or changed, those that vanished, and those known to be bad."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forclip.data.content import content_digest
from forclip.evaluation.metrics_file import write_whole
from forclip.index.store import ImageFile
from forclip.progress import Advance, silent

_FILE = "skipped.json"


@dataclass(frozen=True)
class BadPicture:
    """A picture that could not be read, as it was then, and why."""

    uri: str
    size: int
    modified: int
    reason: str


@dataclass(frozen=True)
class IndexPlan:
    """todo: by id, new pictures and changed ones; vanished: ids that were found in the same source and are not there
    any more; known_bad: not tried again."""

    todo: dict[str, ImageFile]
    changed: int
    unchanged: int
    vanished: tuple[str, ...]
    known_bad: dict[str, BadPicture]


def plan_index(
    found: Mapping[str, Path],
    present: Mapping[str, ImageFile],
    bad: Mapping[str, BadPicture],
    source: str,
    retry: bool,
    advance: Advance = silent,
) -> IndexPlan:
    """found: pictures of the source by id; present: those in the store. A file of the same size and time of change is
    taken to be the same, else its content decides. retry: try bad pictures again that have not changed."""
    todo: dict[str, ImageFile] = {}
    known_bad: dict[str, BadPicture] = {}
    changed = 0
    for image_id, path in found.items():
        advance(1)
        size, modified = _stat(path)
        failed = bad.get(image_id)
        if failed is not None and (failed.size, failed.modified) == (size, modified) and not retry:
            known_bad[image_id] = failed
            continue
        stored = present.get(image_id)
        if stored is not None and (stored.size, stored.modified) == (size, modified):
            continue
        digest = content_digest(path) or ""
        if stored is not None and digest == stored.content_hash:
            continue
        changed += stored is not None
        todo[image_id] = ImageFile(image_id, content_hash=digest, size=size, modified=modified, source=source)
    vanished = tuple(i for i, file in present.items() if file.source == source and i not in found)
    return IndexPlan(todo, changed, len(found) - len(todo) - len(known_bad), vanished, known_bad)


def read_bad(store: Path) -> dict[str, BadPicture]:
    """What earlier jobs could not read, by id. Raises ValueError for a damaged list."""
    file = store / _FILE
    if not file.exists():
        return {}
    try:
        return {image_id: BadPicture(**told) for image_id, told in json.loads(file.read_text()).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: damaged: {error}; it can be deleted, the pictures are tried again then") from None


def write_bad(store: Path, bad: Mapping[str, BadPicture]) -> None:
    write_whole(store / _FILE, json.dumps({image_id: vars(told) for image_id, told in bad.items()}, indent=1))


def _stat(path: Path) -> tuple[int, int]:
    """Bytes and time of change; (-1, -1) for a file that is not there any more."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns
