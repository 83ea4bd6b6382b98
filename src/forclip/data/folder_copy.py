"""Copy a dataset's folder from a URL, so that readers of local folders can read its labels.

Pictures are copied as empty files: a label file's names are matched with theirs, and their content stays at the URL.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from forclip.file_systems import ListedFile, Unreachable, list_files, read_file
from forclip.location import Location, Uri
from forclip.types import SkippedEntry

_HEAD = 1 << 16  # bytes by which a label file is recognised
_HEADS = 20  # files of a folder and an ending of which they are copied, and
_MOST_HEADS = 400  # of all
_AT_ONCE = 16  # requests
_LABELS = (".txt", ".xml", ".json", ".csv", ".tsv", ".yaml", ".yml", ".data", ".names", ".labels")


class FolderCopy:
    """A folder at a URL as it is listed, in a local folder.

    The first files of each kind have their first bytes, by which a format is recognised; `fill` copies the rest.
    left_out: files with names that no local file can have.
    """

    def __init__(self, url: str, folder: Path, only_labels: bool = False) -> None:
        """folder: a local one, empty; only_labels: leave it empty if no file may hold labels.

        Raises ValueError for a URL below which nothing is, or that can't be reached.
        """
        self.url, self.folder = url.rstrip("/"), folder
        self._listed: dict[str, ListedFile] = {}
        self._heads: set[str] = set()
        self.left_out: list[SkippedEntry] = []
        try:
            files = list(list_files(self.url))
            if not only_labels or any(Path(file.url).suffix.lower() in _LABELS for file in files):
                for file in files:
                    self._add(file)
        except FileNotFoundError:
            raise ValueError(f"{self.url}: no such file or folder") from None
        except Unreachable as error:
            raise ValueError(str(error)) from None
        self._copy(self._first_of_each_kind(), _HEAD)

    def fill(self, suffixes: Collection[str]) -> None:
        """Copy the files with one of these endings, in lower case, as a whole."""
        whole = {name for name in self._heads if self._listed[name].size <= _HEAD}
        self._copy([n for n in self._listed if Path(n).suffix.lower() in suffixes and n not in whole])

    def location(self, path: Location) -> Location:
        """Return where a file of the copy really is; other locations as they are."""
        if not isinstance(path, Path) or not path.is_relative_to(self.folder):
            return path
        name = path.relative_to(self.folder).as_posix()
        known = self._listed.get(name)
        return Uri(f"{self.url}/{name}") if known is None else Uri(known.url, size=known.size, modified=known.modified)

    def _add(self, file: ListedFile) -> None:
        name = file.url.removeprefix(f"{self.url}/")
        target = self.folder / name
        try:
            if any(part in ("", ".", "..") for part in name.split("/")):
                raise ValueError("it has an empty part, . or ..")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        except (OSError, ValueError) as error:  # too long for a local file's name, or a folder has this name
            problem = (isinstance(error, OSError) and error.strerror) or str(error)
            self.left_out.append(SkippedEntry(file.url, "no file of a folder can have this name", problem))
        else:
            self._listed[name] = file

    def _first_of_each_kind(self) -> list[str]:
        found: list[str] = []
        counts: Counter[tuple[str, str]] = Counter()
        by_depth: dict[int, list[str]] = defaultdict(list)
        for name in self._listed:
            if Path(name).suffix.lower() in (*_LABELS, ""):
                by_depth[name.count("/")].append(name)
        for depth in sorted(by_depth):
            for name in sorted(by_depth[depth]):
                kind = name.rpartition("/")[0], Path(name).suffix.lower()
                counts[kind] += 1
                if counts[kind] <= _HEADS and len(found) < _MOST_HEADS:
                    found.append(name)
        self._heads.update(found)
        return found

    def _copy(self, names: Iterable[str], limit: int = -1) -> None:
        def copy(name: str) -> None:
            length = -1 if limit < 0 else min(limit, self._listed[name].size)
            (self.folder / name).write_bytes(read_file(self._listed[name].url, 0, length) if length else b"")

        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(copy, names))
        except FileNotFoundError as error:
            raise ValueError(f"{self.url}: changed while it was read: {error}") from None
        except Unreachable as error:
            raise ValueError(str(error)) from None
