"""Named roots: the folders that the image locations of a store are relative to."""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from forclip.location import Uri, is_url
from forclip.path_text import path_to_text

_ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*://")  # a path or a URL


@dataclass(frozen=True)
class Roots:
    """The folder of each root by its name.

    A location (`ImageFile.uri`) is `ROOT/path/in/root`, with / as separator, or an absolute path or URL, which no root
    applies to. So photos that move change a root, and no image.
    """

    folders: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, uri: str) -> str:
        """Return where an image is: its location with the root's folder. Other locations are returned unchanged."""
        if _ABSOLUTE.match(uri):
            return uri
        name, _, inside = uri.partition("/")
        folder = self.folders.get(name)
        return uri if folder is None else os.path.join(folder, inside) if inside else folder

    def reference(self, path: str | os.PathLike[str] | Uri) -> str | None:
        """Return the location of a file in the deepest root that contains it, or None if no root does.

        Links are followed only where the path as written is in no root: those in the way to the file, then the last.
        """
        if isinstance(path, Uri):
            path = str(path)
        if isinstance(path, str) and is_url(path):
            return None
        if (written := _within(self.folders, os.path.abspath(path))) is not None:
            return written
        real = {name: os.path.realpath(folder) for name, folder in self.folders.items()}
        folder, name = os.path.split(os.path.abspath(path))
        return _within(real, os.path.join(os.path.realpath(folder), name)) or _within(real, os.path.realpath(path))

    def id_of(self, path: str | os.PathLike[str] | Uri) -> str:
        """Return the id that `forclip index` gives a file: its location in a root. Outside all roots: its path or URL.

        Of a picture in a shard it is the shard's id, # and the member.
        """
        path = str(path) if isinstance(path, Uri) else path
        if isinstance(path, str) and is_url(path):
            return path_to_text(path)
        return self.reference(path) or path_to_text(os.path.abspath(path))

    def locations_below(self, folder: str) -> list[str]:
        """Return the texts that the locations of all files below a folder begin with. The folder ends with /."""
        below, text = [], path_to_text(folder)
        for name, root in self.folders.items():
            start = root if root.endswith("/") else f"{root}/"
            if start.startswith(text):
                below.append(f"{name}/")
            elif text.startswith(start):
                below.append(f"{name}/{text[len(start) :]}")
        return [*below, text]

    def with_folder(self, folder: str | os.PathLike[str]) -> "Roots":
        """Return the roots with one for this folder: unchanged if a root contains it, else with a new root.

        The new root has the folder's name, with a number if that name is in use.
        """
        if self.reference(folder) is not None:
            return self
        path = os.path.abspath(folder)
        base = name = path_to_text(os.path.basename(path)) or "root"
        count = 1
        while name in self.folders:
            count += 1
            name = f"{base}-{count}"
        return self.with_root(name, path)

    def with_root(self, name: str, folder: str | os.PathLike[str]) -> "Roots":
        """Return the roots with another folder for one of them."""
        return Roots({**self.folders, name: path_to_text(os.path.abspath(folder))})


def _within(folders: Mapping[str, str], path: str) -> str | None:
    """Return a normal absolute path relative to the longest folder that contains it."""
    path, best = path_to_text(path), None
    for name, folder in folders.items():
        start = folder if folder.endswith("/") else f"{folder}/"
        if path.startswith(start) or path == folder:
            best = max(best or (0, ""), (len(start), name))
    if best is None:
        return None
    inside = path[best[0] :]
    return f"{best[1]}/{inside}" if inside else best[1]


def source_reference(roots: Roots, name: str, source: str) -> str:
    """Return a source (a folder, pattern or file) relative to one root, which it may lie outside of."""
    inside = os.path.relpath(path_to_text(os.path.abspath(source)), roots.folders[name])
    return name if inside == "." else f"{name}/{inside}"


def common_folder(paths: Iterable[Path]) -> str:
    """Return the deepest folder that contains all files."""
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])


def to_json(roots: Roots, store: Path) -> dict[str, dict[str, str]]:
    """Describe roots for a store's header: each folder as an absolute path and relative to the store."""
    here = path_to_text(os.path.abspath(store))
    return {n: {"path": f, "from_store": os.path.relpath(f, here)} for n, f in roots.folders.items()}


def from_json(content: Mapping[str, Mapping[str, str]], store: Path) -> Roots:
    """Read the roots of a header. A folder that is missing is looked for at the same place relative to the store."""
    folders = {}
    for name, root in content.items():
        moved = os.path.normpath(os.path.join(path_to_text(os.path.abspath(store)), root["from_store"]))
        folders[name] = moved if not os.path.isdir(root["path"]) and os.path.isdir(moved) else root["path"]
    return Roots(folders)
