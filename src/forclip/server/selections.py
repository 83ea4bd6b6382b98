"""Named lists of images, kept beside the store: what someone picked, to be handed on.

Images are kept by id, so that one that is indexed anew stays picked. The file is JSON and written whole.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock

from filelock import FileLock

from forclip.server import limits
from forclip.server.errors import Refused

_FILE, _LOCK = "selections.json", "selections.lock"
_FORMAT_VERSION = 1

Lists = dict[str, list[str]]


class Selections:
    """Of one store. Safe to use from several threads and processes."""

    def __init__(self, store: Path) -> None:
        self.file = store / _FILE
        self._lock, self._between_processes = Lock(), FileLock(store / _LOCK, timeout=30)

    def all(self) -> Lists:
        """Ids by the selection's name, in the order in which they were added. Raises ValueError for a damaged file."""
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            if content["format_version"] != _FORMAT_VERSION:
                raise ValueError(f"format version {content['format_version']!r}")
            return {str(name): [str(i) for i in ids] for name, ids in content["selections"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.file}: not readable as selections: {error}") from None

    def one(self, name: str) -> list[str]:
        """Raises Refused, 404."""
        return _known(self.all(), name)

    def create(self, name: str, image_ids: Sequence[str]) -> None:
        """Raises Refused: 409 for a name that is taken, or where there are too many."""
        with self._changing() as lists:
            if name in lists:
                raise Refused(409, "there is a selection of this name already")
            if len(lists) >= limits.SELECTIONS:
                raise Refused(409, f"there are {limits.SELECTIONS} selections already, which is the most")
            lists[name] = list(dict.fromkeys(image_ids))

    def add(self, name: str, image_ids: Sequence[str]) -> list[str]:
        """What it holds then. Raises Refused: 404, or 409 where it becomes too long."""
        return self._change(name, lambda held: list(dict.fromkeys([*held, *image_ids])))

    def remove(self, name: str, image_ids: Sequence[str]) -> list[str]:
        """What it holds then; ids that are not in it don't matter. Raises Refused, 404."""
        gone = set(image_ids)
        return self._change(name, lambda held: [i for i in held if i not in gone])

    def delete(self, name: str) -> None:
        """Raises Refused, 404. The pictures stay where they are."""
        with self._changing() as lists:
            _known(lists, name)
            del lists[name]

    def _change(self, name: str, change: Callable[[list[str]], list[str]]) -> list[str]:
        with self._changing() as lists:
            changed = lists[name] = change(_known(lists, name))
            if len(changed) > limits.SELECTED:
                raise Refused(409, f"a selection holds at most {limits.SELECTED} images")
            return changed

    @contextmanager
    def _changing(self) -> Iterator[Lists]:
        """Written if nothing is raised."""
        with self._lock, self._between_processes:
            lists = self.all()
            yield lists
            _write_whole(self.file, {"format_version": _FORMAT_VERSION, "selections": lists})


def _known(lists: Lists, name: str) -> list[str]:
    if name not in lists:
        raise Refused(404, "there is no selection of this name")
    return lists[name]


def _write_whole(file: Path, content: dict[str, object]) -> None:
    """All of it or nothing, whenever the machine stops."""
    with NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, prefix=f".{file.name}.", delete=False) as made:
        try:
            json.dump(content, made, indent=1)
            made.flush()
            os.fsync(made.fileno())
            os.replace(made.name, file)
        except BaseException:
            Path(made.name).unlink(missing_ok=True)
            raise
