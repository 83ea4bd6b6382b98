"""Named roots: the folders that the image locations of a store are relative to."""

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from forclip.bucket_path import BucketPath, StorePath, is_url
from forclip.location import Uri
from forclip.path_text import path_to_text

_ABSOLUTE = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*://")  # a path or a URL


@dataclass(frozen=True)
class Roots:
    """The folder of each root by its name.

    A location (`ImageFile.uri`) is `ROOT/path/in/root`, with / as separator, or an absolute path or URL, which no root
    applies to. So photos that move change a root, and no image. A root's folder is an absolute path or a URL.
    """

    folders: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, uri: str) -> str:
        """Return where an image is: its location with the root's folder. Other locations are returned unchanged."""
        name, _, inside = uri.partition("/")
        start = self._starts.get(name)
        if start is None or _ABSOLUTE.match(uri):
            return uri
        return start + inside if inside else self.folders[name]

    @cached_property
    def _starts(self) -> dict[str, str]:
        """What the paths of each root's files begin with."""
        return {
            name: f"{folder}/" if is_url(folder) else os.path.join(folder, "") for name, folder in self.folders.items()
        }

    def reference(self, path: str | os.PathLike[str] | Uri) -> str | None:
        """Return the location of a file in the deepest root that contains it, or None if no root does.

        Links are followed only where the path as written is in no root: those in the way to the file, then the last.
        """
        path = str(path) if isinstance(path, Uri) else path
        if (written := _within(self.folders, _absolute(path))) is not None or is_url(path):
            return written
        real = {name: os.path.realpath(folder) for name, folder in self.folders.items()}
        folder, name = os.path.split(os.path.abspath(path))
        return _within(real, os.path.join(os.path.realpath(folder), name)) or _within(real, os.path.realpath(path))

    def id_of(self, path: str | os.PathLike[str] | Uri) -> str:
        """Return the id that `forclip index` gives a file: its location in a root. Outside all roots: its path or URL.

        Of a picture in a shard it is the shard's id, # and the member.
        """
        path = str(path) if isinstance(path, Uri) else path
        return self.reference(path) or path_to_text(_absolute(path))

    def ids_of(self, names: Sequence[str], known_ids: Callable[[Sequence[str]], set[str]]) -> list[str]:
        """Return the ids that names stand for: ids, or paths of images. What is neither stays as it is.

        known_ids: which of some ids are stored.
        """
        names = [path_to_text(name) for name in names]
        by_path = {name: self.id_of(name) for name in names}
        stored = known_ids([*names, *by_path.values()])
        return [name if name in stored or by_path[name] not in stored else by_path[name] for name in names]

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
        path = _absolute(folder)
        base = name = path_to_text(os.path.basename(path)) or "root"
        count = 1
        while name in self.folders:
            count += 1
            name = f"{base}-{count}"
        return self.with_root(name, path)

    def with_root(self, name: str, folder: str | os.PathLike[str]) -> "Roots":
        """Return the roots with another folder for one of them."""
        return Roots({**self.folders, name: path_to_text(_absolute(folder))})


def _absolute(path: str | os.PathLike[str]) -> str:
    """Return an absolute path, or a URL without a / at the end."""
    return os.fspath(path).rstrip("/") if is_url(path) else os.path.abspath(path)


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
    inside = _relative(path_to_text(_absolute(source)), roots.folders[name])
    return source if inside is None else name if inside == "." else f"{name}/{inside}"


def common_folder(paths: Iterable[Path]) -> str:
    """Return the deepest folder that contains all files."""
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])


def to_json(roots: Roots, store: StorePath) -> dict[str, dict[str, str]]:
    """Describe roots for a store's header: each folder as an absolute path or URL, and relative to the store.

    Only folders in the bucket of the store, or on the machine of a local store, have a path relative to it.
    """
    described = {}
    for name, folder in roots.folders.items():
        relative = _relative(folder, _place(store))
        described[name] = {"path": folder} | ({} if relative is None else {"from_store": relative})
    return described


def from_json(content: Mapping[str, Mapping[str, str]], store: StorePath) -> Roots:
    """Read the roots of a header. A folder that is missing is looked for at the same place relative to the store."""
    folders = {}
    for name, root in content.items():
        moved, folder = _join(_place(store), root.get("from_store")), root["path"]
        is_elsewhere = moved not in (None, folder) and not _is_folder(folder) and _is_folder(moved)
        folders[name] = moved if moved is not None and is_elsewhere else folder
    return Roots(folders)


def _place(store: StorePath) -> str:
    return str(store) if isinstance(store, BucketPath) else path_to_text(os.path.abspath(store))


def _relative(path: str, start: str) -> str | None:
    """Return a path or URL relative to another; None if they have no folder in common."""
    if not (is_url(path) or is_url(start)):
        return os.path.relpath(path, start)
    (bucket, inside), (other, from_inside) = _split_url(path), _split_url(start)
    return posixpath.relpath(f"/{inside}", f"/{from_inside}") if bucket == other else None


def _join(start: str, relative: str | None) -> str | None:
    """Invert `_relative`."""
    if relative is None or not is_url(start):
        return relative and os.path.normpath(os.path.join(start, relative))
    bucket, inside = _split_url(start)
    return f"{bucket}{posixpath.normpath(f'/{inside}/{relative}')}".rstrip("/")


def _split_url(url: str) -> tuple[str, str]:
    """Split a URL into its bucket, with the scheme, and what is in it. A local path is in the bucket ""."""
    if not is_url(url):
        return "", url
    scheme, _, path = url.partition("://")
    bucket, _, inside = path.partition("/")
    return f"{scheme}://{bucket}", inside


def _is_folder(folder: str | None) -> bool:
    if folder is None or not is_url(folder):
        return folder is not None and os.path.isdir(folder)
    try:
        return BucketPath(folder).is_dir()
    except ValueError:  # another kind of URL, or no access to it
        return False
