"""Find the picture that a file name in a label or metadata file means."""

import os
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unicodedata import normalize
from urllib.parse import parse_qs, unquote, urlsplit

from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.dataset_files import names_in
from forclip.location import refuse_credentials
from forclip.path_text import unescape

# Names that are more than parts with slashes between them: from the root, home or a drive, or with `.`, `..` or nothing
# as a part (URLs among them).
_UNUSUAL = re.compile(r"^[/~]|^[A-Za-z]:|(?:^|/)\.{0,2}(?:/|$)")
_FOREIGN = re.compile(r"[/~]|[A-Za-z]:|[A-Za-z][A-Za-z0-9+.-]+:/")
_BUCKET_URL = re.compile(r"(?:s3a?|gs|gcs|az|abfss?|hf)://")  # a picture itself; other URLs are those of a tool
NOT_FOUND = "the file is not in the image folder"
_LOCAL_FILES = "/data/local-files/"  # Label Studio's, with the path under ?d=
UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio puts it before the names of uploaded files


class FileNames:
    """The pictures of a folder by the names that label files of many tools and machines give them.

    A folder is listed once, when the first name needs it. Single files are not looked up, which would take minutes for
    100,000 names on a network drive.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._starts = (Path(os.path.abspath(folder)), Path(os.path.realpath(folder)))
        self._names = cache(self._list)
        self._alike = cache(self._list_alike)
        self._subfolder = cache(self._subfolder_now)
        self._meant: dict[Path, tuple[str, ...]] = {}  # the parts of the name that led to a picture by its end

    def resolve(self, name: str) -> Path:
        r"""Return the path of the picture that a name means. A relative name may lead to a file that is missing.

        The first of these that exists:

        - the file of exactly this name below the folder;
        - the file whose name has the bytes that `forclip.path_text` escapes, as in caf\xe9.jpg;
        - the file with `\` as separator, with %20 and the like decoded, or in another Unicode form or case, if only one
          file fits;
        - for an absolute name in the folder, also through links: that file;
        - for images/x.jpg in a folder called images: x.jpg;
        - for an absolute name of another machine, a Windows path, a URL, a name that climbs by `..`, or Label Studio's
          /data/local-files/?d=sub/x.jpg: the longest end of the name that is a file below the folder;
        - for Label Studio's /data/upload/3/ab12cd34-x.jpg: the same without the prefix.

        The result is always below the folder; links in the folder are followed. Raises UnusableEntry for a name that is
        empty or impossible, one from elsewhere of which no end is a file below the folder, one of another file outside
        the folder on this machine, and one whose end is a picture that another name has led to.
        """
        if path := self.find(name):
            return path
        if "\\" not in name and not _UNUSUAL.search(name):
            return self.folder / name
        if os.path.isabs(name) and (inside := self._inside(name)):
            return self.folder.joinpath(*inside)
        reading = _read(name.replace("\\", "/"))
        if reading.parts and not reading.is_foreign:
            return self.folder.joinpath(*reading.parts)
        raise UnusableEntry(NOT_FOUND, name)

    def find(self, name: str) -> Path | None:
        """Return the path of the picture that a name means, as `resolve` does, or None if there is no such file."""
        if not name.strip():
            raise UnusableEntry("no file name is given", name)
        if _BUCKET_URL.match(name):
            try:
                url = Path(refuse_credentials(name))
            except ValueError as error:
                raise UnusableEntry("the URL holds credentials", str(error)) from None
            return self._look_up(name) or url  # a copy in the folder first
        try:
            is_possible = b"\0" not in os.fsencode(name)
        except UnicodeEncodeError:
            is_possible = False
        if not is_possible:
            raise UnusableEntry("the file name is not possible", ascii(name)[1:-1])
        parent, _, base = name.rpartition("/")
        if not _UNUSUAL.search(name) and base in self._names(parent):
            return self.folder / name
        if (bytes_name := unescape(name)) != name and (path := self.find(bytes_name)):
            return path
        return self._look_up(name)

    def match(self, name: str) -> Path | None:
        """Return the file of a plain relative name, or the only one in another case or Unicode form, or None."""
        found = self._match(tuple(name.split("/")), fold_name)
        return self.folder.joinpath(*found) if found else None

    def _look_up(self, name: str) -> Path | None:
        inside = self._inside(name) if os.path.isabs(name) else None
        readings = _readings(name) if inside is None else [_Reading(inside, is_foreign=False)]
        for reading in readings:
            if not reading.is_foreign and (found := self._match(reading.parts, fold_name)):
                return self.folder.joinpath(*found)
        for reading in readings:
            uploaded = _without_upload_prefix(reading.parts)
            for start in range(len(reading.parts)):
                if not (reading.is_foreign or self._is_own_name(reading.parts[:start])):
                    continue
                found = self._match(reading.parts[start:], fold_name)
                if found is None and uploaded:
                    found = self._match(uploaded[start:], _fold_upload)
                if found:
                    return self._take(name, reading.parts, self.folder.joinpath(*found))
        return None

    def _inside(self, name: str) -> tuple[str, ...] | None:
        """The parts of an absolute name below the folder, or None if it lies elsewhere."""
        parent, base = os.path.split(os.path.normpath(name))
        subfolder = self._subfolder(parent)
        return None if subfolder is None else (*subfolder, base)

    def _subfolder_now(self, path: str) -> tuple[str, ...] | None:
        """The parts of an absolute path of a folder below this one, or None if it lies elsewhere."""
        for either in (Path(path), Path(os.path.realpath(path))):
            for start in self._starts:
                if either.is_relative_to(start):
                    return either.relative_to(start).parts
        return None

    def _is_own_name(self, parts: tuple[str, ...]) -> bool:
        """Whether the folder's own path ends with these parts."""
        return not parts or self._starts[0].parts[-len(parts) :] == parts

    def _match(self, parts: tuple[str, ...], fold: Callable[[str], str]) -> tuple[str, ...] | None:
        """The parts of the file below the folder, each the same or the only one that `fold` makes the same."""
        found: tuple[str, ...] = ()
        for part in parts:
            subfolder = "/".join(found)
            if part not in self._names(subfolder):
                alike = self._alike(subfolder, fold).get(fold(part), [])
                if len(alike) != 1:
                    return None
                part = alike[0]
            found = (*found, part)
        return found

    def _take(self, name: str, parts: tuple[str, ...], path: Path) -> Path:
        """Return a picture that was found by the end of a name. Raises UnusableEntry if it may be another picture."""
        # The pictures may have been copied here from another folder.
        size = _size(name) if os.path.isabs(name) else None
        if size is not None and size != _size(path):
            raise UnusableEntry("the file is outside the image folder", name)
        if self._meant.setdefault(path, parts) != parts:
            raise UnusableEntry("another file name leads to the same picture", name)
        return path

    def _list(self, subfolder: str) -> frozenset[str]:
        return frozenset(names_in(self.folder / subfolder))  # without a folder, reading the picture will report it

    def _list_alike(self, subfolder: str, fold: Callable[[str], str]) -> dict[str, list[str]]:
        alike = defaultdict(list)
        for name in self._names(subfolder):
            alike[fold(name)].append(name)
        return alike


@dataclass(frozen=True)
class _Reading:
    """One way to read a name. parts: without `.` and `..`; is_foreign: they start at an unknown folder."""

    parts: tuple[str, ...]
    is_foreign: bool


def _readings(name: str) -> list[_Reading]:
    """The ways to read a name, the likeliest first."""
    name = name.replace("\\", "/")
    texts = [name, *_paths_of_url(name)]
    texts += [unquote(text, errors="surrogateescape") for text in texts if "%" in text]
    return [reading for reading in dict.fromkeys(map(_read, texts)) if reading.parts]


def _paths_of_url(name: str) -> list[str]:
    try:
        url = urlsplit(name)
        inner = parse_qs(url.query).get("d", []) if url.path.endswith(_LOCAL_FILES) else []
    except ValueError:  # such as an unfinished IPv6 address
        return []
    # They are paths of another machine, so they start with a slash. In upload://3/x.jpg the host is a part of the path.
    inner = [path.replace("\\", "/") for path in inner]  # one that was escaped
    return [f"/{path}" for path in (*inner, f"{url.netloc}{url.path}")] if url.scheme or inner else []


def _read(text: str) -> _Reading:
    is_foreign = _FOREIGN.match(text) is not None
    parts: list[str] = []
    for part in re.sub(r"^[A-Za-z]:", "", text).split("/"):
        if part == "..":
            is_foreign |= not parts
            del parts[-1:]
        elif re.fullmatch(r"[A-Za-z]:", part):  # a drive, as in file:///C:/x.jpg
            is_foreign = True
            parts.clear()
        elif part not in ("", "."):
            parts.append(part)
    return _Reading(tuple(parts), is_foreign)


def _without_upload_prefix(parts: tuple[str, ...]) -> tuple[str, ...] | None:
    """The parts without Label Studio's prefix, if the last part has it. Digits alone may be a date."""
    prefix = UPLOAD_PREFIX.match(parts[-1])
    if prefix is None or (prefix[0][:-1].isdigit() and "upload" not in parts):
        return None
    return (*parts[:-1], parts[-1][prefix.end() :])


def fold_name(name: str) -> str:
    """A name without differences of Unicode's normal form, of case, and of blanks around it."""
    return normalize("NFC", normalize("NFC", name.strip()).casefold())


def _fold_upload(name: str) -> str:
    """A name as Label Studio keeps that of an uploaded file: underscores for blanks, no brackets and the like."""
    return fold_name(re.sub(r"[^-\w.]", "", name.strip().replace(" ", "_")))


def _size(path: str | Path) -> int | None:
    try:
        return os.path.getsize(path)
    except (OSError, ValueError):
        return None
