"""Remember which images an export holds, so that a later one has only new images."""

import json
from collections.abc import Iterable
from pathlib import Path


def record_file(to: Path) -> Path:
    """The hidden file next to an export that lists the ids of its images."""
    return to.with_name(f".{to.name}.exported.json")


def exported_ids(to: Path) -> frozenset[str]:
    """The ids of the images that were exported to a target so far; none if it has no record.

    Raises ValueError for a record that can't be read, and for a target that exists without a record.
    """
    file = record_file(to)
    try:
        ids = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if to.exists():
            raise ValueError(f"{to}: has no record of its images ({file.name}); choose another name") from None
        return frozenset()
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: the record of exported images can't be read: {error}") from None
    if not isinstance(ids, list) or not all(isinstance(image_id, str) for image_id in ids):
        raise ValueError(f"{file}: is no list of image ids")
    return frozenset(ids)


def write_record(file: Path, ids: Iterable[str]) -> None:
    """Write a record to a file."""
    file.write_text(json.dumps(sorted(ids), indent=0), encoding="utf-8")
