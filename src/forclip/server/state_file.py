"""A JSON file of the service in the store's folder that several threads and processes change."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from filelock import FileLock

from forclip.atomic_write import write_text_atomically
from forclip.bucket_path import StorePath

_FORMAT_VERSION = 1


class StateFile:
    """One JSON object by name. Safe to use from several threads, and of a local store from several processes.

    A bucket has no locks: of two services that change the file of one store at the same moment, the last wins.
    """

    def __init__(self, store: StorePath, name: str, shared: Path | None = None) -> None:
        """name: of the object, and of the file without its ending.

        shared: a local folder that the workers of one service share; they do not overwrite each other's changes.
        """
        self.file, self._name = store / f"{name}.json", name
        self._lock = Lock()
        self._file_lock: AbstractContextManager[object] = nullcontext()
        if (folder := store if isinstance(store, Path) else shared) is not None:
            self._file_lock = FileLock(folder / f"{name}.lock", timeout=30)

    def read(self) -> dict[str, Any]:
        """Return the object, empty without a file. Raises ValueError for a damaged file."""
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
            if content["format_version"] != _FORMAT_VERSION:
                raise ValueError(f"format version {content['format_version']!r}")
            return dict(content[self._name])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.file}: not readable as {self._name}: {error}") from None

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """Yield the object, and write it back if nothing is raised."""
        with self._lock, self._file_lock:
            content = self.read()
            yield content
            # Without an indent, which would take ten times as long.
            text = json.dumps({"format_version": _FORMAT_VERSION, self._name: content})
            write_text_atomically(self.file, text, sync=True)
