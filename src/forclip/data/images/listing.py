"""List the pictures of a folder or a pattern, and say what else is there and why it is left out."""

import glob
import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from mimetypes import MimeTypes
from pathlib import Path

import pyarrow as pa

from forclip.data.images.frame_location import is_video
from forclip.data.images.picture_types import (
    HEIC_HINT,
    HEIC_SUFFIXES,
    SIGNATURE_BYTES,
    has_signature,
    is_heic,
    picture_suffixes,
    reads_heic,
)
from forclip.data.images.remote_listing import expand_braces, list_url, with_signature
from forclip.data.images.shard_listing import BROKEN, NOT_FETCHED, join_columns, list_shard
from forclip.file_systems import ListedFile, Unreachable
from forclip.location import Location, Uri, canonical_url, is_shard, is_url
from forclip.path_text import path_to_text
from forclip.types import SkippedEntry

HIDDEN = "hidden files and folders"
SYSTEM = "folders of thumbnails, trash, databases and the system"
UNREADABLE = "folders that can't be read"
UNREADABLE_FILE = "files that can't be read"
BROKEN_LINK = "links to what does not exist"
LOOP = "links to a folder that they are in"
OTHER_MACHINE = "links to another machine"
LISTED_FOLDER = "folders that are listed under another name"
LISTED_FILE = "files that are listed under the name of a link"
SPECIAL = "pipes, sockets and devices"
CAMERA_RAW = "camera raw files"
VIDEO = "videos"
MISSING = "files that a pattern names and that are not there"
_OTHER, _UNKNOWN = "other files: ", "unknown"
_SHARDS_AT_ONCE = 8

_SYSTEM_FOLDERS = frozenset(
    {
        *("__macosx", "lost+found", "#recycle", "#snapshot", "@eadir", "@recycle", "@recently-snapshot"),
        *("$recycle.bin", "system volume information"),
    }
)
# Files of cameras that start like a TIFF, with a small preview in front.
_CAMERA_RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc"),
        *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf"),
        *(".srw", ".x3f"),
    }
)
_FILE_TYPES = MimeTypes()  # the table that comes with Python, equal on all machines
# Endings of files next to pictures that it does not have.
_OTHER_SUFFIXES = frozenset(
    {".aae", ".db", ".ini", ".log", ".md", ".parquet", ".pp3", ".thm", ".xmp", ".yaml", ".yml", ".zip"}
)
_NETWORK_FILE_SYSTEMS = (
    *("nfs", "cifs", "smb", "afs", "ceph", "lustre", "beegfs", "gpfs", "davfs"),
    *(f"fuse.{name}" for name in ("sshfs", "s3fs", "rclone", "gcsfuse", "glusterfs", "gvfsd", "mount-s3", "juicefs")),
)
_MOUNTS = "/proc/self/mountinfo"


@dataclass(frozen=True)
class LeftOut:
    """What is left out for one reason. count: how many; examples: some of their paths."""

    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """The pictures below a folder, sorted, and what else is there.

    left_out: paths by reason; other_files: how many files with each ending, in lower case, are no pictures; columns:
    values next to the pictures of shards, which are the last of the pictures, a row for each; None without shards.
    """

    pictures: tuple[Location, ...]
    left_out: dict[str, tuple[str, ...]]
    other_files: dict[str, int]
    columns: pa.Table | None = None

    def may_hold(self, path: str) -> bool:
        """Whether a file may be in a folder that can't be read. path: absolute, as `path_to_text` writes it."""
        shard = path.partition("#")[0]
        if any(text.startswith(shard) for reason in (BROKEN, NOT_FETCHED) for text in self.left_out.get(reason, ())):
            return True
        folders = (path_to_text(os.path.abspath(folder)) for folder in self.left_out.get(UNREADABLE, ()))
        return any(path.startswith(os.path.join(folder, "")) for folder in folders)

    def summary(self, examples: int = 5) -> dict[str, LeftOut]:
        """What is left out, by reason, with this number of examples of each."""
        summary = {
            reason: LeftOut(len(paths), tuple(map(path_to_text, paths[:examples])))
            for reason, paths in self.left_out.items()
        }
        for suffix, count in sorted(self.other_files.items(), key=lambda item: (-item[1], item[0])):
            summary[_OTHER + (suffix or "without an ending")] = LeftOut(count, ())
        return summary

    def skipped_entries(self) -> tuple[SkippedEntry, ...]:
        """What may be pictures and is left out, as entries of a set of labels."""
        return tuple(
            SkippedEntry(path_to_text(path), reason) for reason, paths in self.left_out.items() for path in paths
        )

    def why_empty(self, source: str) -> str:
        """One sentence for a source without pictures."""
        found = "; ".join(describe_left_out(self.summary(examples=1)))
        return f"{source}: no images found" + (f". Not indexed: {found}" if found else "")


def describe_left_out(summary: Mapping[str, LeftOut]) -> list[str]:
    """One line per reason of `Listing.summary`, and one for all other files."""
    lines, others = [], []
    for reason, left_out in summary.items():
        if reason.startswith(_OTHER):
            others.append(f"{left_out.count:,} {reason.removeprefix(_OTHER)}")
            continue
        more = ", ..." if left_out.count > len(left_out.examples) else ""
        lines.append(f"{reason}: {left_out.count:,} ({', '.join(left_out.examples)}{more})")
    return [*lines, f"other files: {', '.join(others)}"] if others else lines


def list_pictures(source: str) -> Listing:
    """List the pictures below a folder, those that a glob pattern matches, or one file. The listing may be empty.

    A file is a picture by its ending, or by its first bytes where the ending says nothing. Links are followed where
    they stay on this machine. Each folder is listed once, under its own name rather than a link's; files are listed
    under every name they have. The pictures of tar archives, and of Parquet and Arrow tables, come after the others.
    A source may be a URL, and a pattern may have braces: train-{000..012}.tar. Raises ValueError for a source
    that does not exist.
    """
    source = canonical_url(source)
    try:
        sources = expand_braces(source)
    except Unreachable as error:
        raise ValueError(str(error)) from None
    if len(sources) > 1:
        return _join([_list_or_miss(one) for one in sources])
    if is_url(source):
        return _list_remote(source)
    folder = Path(source)
    if folder.is_dir():
        walk = _Walk(source)
        walk.add(source)
    elif glob.has_magic(source):
        walk = _walk_pattern(source)
    elif folder.is_file():
        walk = _Walk(source)
        walk.add_named_file(source)
    else:
        raise ValueError(f"{source}: no such folder")
    return walk.listing()


def _list_or_miss(source: str) -> Listing:
    try:
        return list_pictures(source)
    except ValueError as error:
        return Listing((), {MISSING: (f"{error}",)}, {})


def _join(listings: Sequence[Listing]) -> Listing:
    """All that several listings list, shards last."""
    left_out: dict[str, tuple[str, ...]] = {}
    others: Counter[str] = Counter()
    files: list[Location] = []
    members: list[Location] = []
    for one in listings:
        count = 0 if one.columns is None else len(one.columns)
        files += one.pictures[: len(one.pictures) - count]
        members += one.pictures[len(one.pictures) - count :]
        others.update(one.other_files)
        for reason, paths in one.left_out.items():
            left_out[reason] = (*left_out.get(reason, ()), *paths)
    tables = [one.columns for one in listings if one.columns is not None]
    return Listing((*files, *members), left_out, dict(others), join_columns(tables) if tables else None)


def _list_remote(source: str) -> Listing:
    """List what is at a URL. Raises ValueError if there is nothing, or the store can't be reached."""
    try:
        files = list_url(source)
    except Unreachable as error:
        raise ValueError(str(error)) from None
    start = len(source) if len(files) == 1 and files[0].url == source else 0
    left_out: dict[str, list[str]] = defaultdict(list)
    others: Counter[str] = Counter()
    pictures: list[Uri] = []
    shards: list[tuple[str, int, int]] = []
    unknown: list[ListedFile] = []
    fixed = 0 if start else len(source.rstrip("/")) if not glob.has_magic(source) else 0
    for file in files:
        uri = Uri(file.url, size=file.size, modified=file.modified)
        suffix = os.path.splitext(uri.name)[1].lower()
        parts = file.url[fixed:].lower().split("/") if fixed else [uri.name.lower()]
        if any(part.startswith(".") for part in parts):
            left_out[HIDDEN].append(file.url)
        elif any(part in _SYSTEM_FOLDERS or part.endswith((".lrdata", ".lance")) for part in parts[:-1]):
            left_out[SYSTEM].append(file.url)
        elif is_shard(uri.name):
            shards.append((file.url, file.size, file.modified))
        elif (reason := _reason_by_name(uri, suffix)) is None:
            pictures.append(uri)
        elif reason == _UNKNOWN:
            unknown.append(file)
        elif reason == _OTHER:
            others[suffix] += 1
        else:
            left_out[reason].append(file.url)
    found = with_signature([file.url for file in unknown if file.size])
    for file in unknown:
        if file.url in found:
            pictures.append(Uri(file.url, size=file.size, modified=file.modified))
        else:
            others[os.path.splitext(file.url)[1].lower()] += 1
    return _with_shards(pictures, shards, left_out, others)


def _with_shards(
    pictures: Sequence[Location],
    shards: Sequence[tuple[str, int, int]],
    left_out: dict[str, list[str]],
    others: Counter[str],
) -> Listing:
    """Add the pictures of shards, each given with its size and time of change, to what is listed."""
    members: list[Location] = []
    tables: list[pa.Table] = []
    with ThreadPoolExecutor(_SHARDS_AT_ONCE) as pool:
        # datasets keeps intermediate results in files called so.
        wanted = [s for s in shards if not re.match(r"(cache|tmp)-.*\.arrow", os.path.basename(s[0]))]
        for contents in pool.map(lambda s: list_shard(*s), wanted):
            members += contents.pictures
            if contents.pictures:
                tables.append(contents.columns)
            others.update(contents.others)
            for reason, texts in contents.left_out.items():
                left_out.setdefault(reason, []).extend(texts)
    columns = join_columns(tables) if tables else None
    if columns is not None and not columns.num_columns:
        columns = pa.table({"": pa.nulls(len(members))})
    return Listing(
        (*pictures, *members),
        {reason: tuple(sorted(paths)) for reason, paths in left_out.items() if paths},
        dict(others),
        columns,
    )


def _walk_pattern(pattern: str) -> "_Walk":
    parts = Path(pattern).parts
    position = parts.index("**") if "**" in parts else len(parts)
    if position == len(parts):
        walk = _Walk(os.path.dirname(pattern) or ".")
        for name in sorted(glob.glob(pattern)):
            if not os.path.isdir(name):
                walk.add_named_file(name)
        return walk
    starts = sorted(glob.glob(str(Path(*parts[:position])))) if position else ["."]
    walk = _Walk(starts[0] if starts else ".")
    for start in filter(os.path.isdir, starts):
        walk.add(start, lambda path: _matches(Path(path).parts, parts))
    return walk


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a glob pattern; ** stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


class _Walk:
    """Collects pictures and what is left out."""

    def __init__(self, start: str) -> None:
        self._left_out: dict[str, list[str]] = defaultdict(list)
        self._other_files: Counter[str] = Counter()
        self._pictures: list[str] = []
        self._shards: list[str] = []
        self._visited: set[tuple[int, int]] = set()  # device and number of each folder
        self._around: set[tuple[int, int]] = set()  # and of each folder around what is listed
        self._linked: set[tuple[int, int]] = set()  # and of each file that a link leads to
        self._nameless: dict[str, tuple[int, int]] = {}  # pictures whose name has no ending
        self._home = os.stat(start).st_dev if os.path.exists(start) else -1

    def listing(self) -> Listing:
        # A cache of blobs and the links that name them: the links' names are the ones that people know.
        blobs = {path for path, key in self._nameless.items() if key in self._linked}
        # The order of Paths, faster: folder by folder.
        ordered = sorted(set(self._pictures) - blobs, key=lambda path: path.replace(os.sep, "\0"))
        self._left_out[LISTED_FILE] = [*blobs]
        shards = []
        for path in sorted(self._shards, key=lambda path: path.replace(os.sep, "\0")):
            try:
                status = os.stat(path)
            except OSError:
                self._left_out[UNREADABLE_FILE].append(path)
                continue
            shards.append((path, status.st_size, status.st_mtime_ns))
        return _with_shards(tuple(map(Path, ordered)), shards, self._left_out, self._other_files)

    def add(self, folder: str, wanted: Callable[[str], bool] = lambda path: True) -> None:
        """Add what is below a folder. wanted: whether a file is wanted."""
        links = [folder]
        while links:  # after all others, so that a folder is listed under its own name rather than a link's
            for parent in (parent for link in links for parent in Path(os.path.realpath(link)).parents):
                with suppress(OSError):
                    self._around.add(_key_of(parent))
            pending, links = sorted(links, reverse=True), []
            while pending:
                self._add_folder(pending.pop(), wanted, pending, links)

    def add_named_file(self, path: str) -> None:
        """Add a file that may be anything, and may be hidden."""
        try:
            is_file = stat.S_ISREG(os.stat(path).st_mode)
        except OSError:
            self._left_out[BROKEN_LINK].append(path)
            return
        if is_file:
            self.add_file(path)
        else:
            self._left_out[SPECIAL].append(path)

    def _add_folder(self, folder: str, wanted: Callable[[str], bool], folders: list[str], links: list[str]) -> None:
        """Add the files in a folder. Appends the folders in it, and the links to folders."""
        try:
            if (key := _key_of(folder)) in self._visited:
                self._left_out[LISTED_FOLDER].append(folder)
                return
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError:
            self._left_out[UNREADABLE].append(folder)
            return
        self._visited.add(key)
        for entry in found:
            try:
                self._add_entry(entry, wanted, folders, links)
            except OSError:
                self._left_out[UNREADABLE_FILE].append(entry.path)

    def _add_entry(
        self, entry: "os.DirEntry[str]", wanted: Callable[[str], bool], folders: list[str], links: list[str]
    ) -> None:
        """Add a file, or append a folder to the folders or to the links to folders."""
        if entry.is_symlink():
            if self._add_link(entry, wanted):
                links.append(entry.path)
        elif entry.is_dir():
            if not self._is_skipped(entry):
                folders.append(entry.path)
        elif wanted(entry.path) and not self._is_skipped(entry):
            if entry.is_file():
                self.add_file(entry.path, is_link=False)
            else:
                self._left_out[SPECIAL].append(entry.path)

    def _is_skipped(self, entry: "os.DirEntry[str]") -> bool:
        """Whether a file or folder is hidden, or is the system's own."""
        if entry.name.startswith("."):
            self._left_out[HIDDEN].append(entry.path)
            return True
        name = entry.name.lower()
        # Lightroom's previews, a store's own table, and what Apple's Photos derives from the originals.
        is_system = name in _SYSTEM_FOLDERS or name.endswith((".lrdata", ".lance"))
        is_system |= name == "resources" and os.path.dirname(entry.path).endswith(".photoslibrary")
        if is_system and entry.is_dir():
            self._left_out[SYSTEM].append(entry.path)
            return True
        return False

    def _add_link(self, entry: "os.DirEntry[str]", wanted: Callable[[str], bool]) -> bool:
        """Add a link to a file. Returns whether it leads to a folder that is to be added."""
        try:
            status = entry.stat()
        except OSError:  # no target, no permission, or a link to itself
            if wanted(entry.path) and not self._is_skipped(entry):
                self._left_out[BROKEN_LINK].append(entry.path)
            return False
        is_folder = stat.S_ISDIR(status.st_mode)
        if (not is_folder and not wanted(entry.path)) or self._is_skipped(entry):
            return False
        if is_folder and (status.st_dev, status.st_ino) in self._around:
            self._left_out[LOOP].append(entry.path)
        elif status.st_dev != self._home and status.st_dev in _network_devices():
            self._left_out[OTHER_MACHINE].append(entry.path)
        elif is_folder:
            return True
        elif not stat.S_ISREG(status.st_mode):
            self._left_out[SPECIAL].append(entry.path)
        elif self.add_file(entry.path):
            self._linked.add((status.st_dev, status.st_ino))
        return False

    def add_file(self, path: str, is_link: bool = True) -> bool:
        """Add a file, and return whether it is a picture."""
        suffix = os.path.splitext(path)[1].lower()
        if is_shard(path):
            self._shards.append(path)
            return False
        try:
            reason = _why_left_out(path, suffix)
        except OSError:
            reason = UNREADABLE_FILE
        if reason is None:
            self._pictures.append(path)
            if not is_link and not suffix:
                self._nameless[path] = _key_of(path)
        elif reason == _OTHER:
            self._other_files[suffix] += 1
        else:
            self._left_out[reason].append(path)
        return reason is None


def _why_left_out(path: str, suffix: str) -> str | None:
    """Why a file is no picture, by its ending and then by its first bytes; None for a picture."""
    reason = _reason_by_name(Path(path), suffix)
    if reason != _UNKNOWN:
        return reason
    start = _read_start(path)
    if is_heic(start) and not reads_heic():
        return HEIC_HINT
    return None if has_signature(start, with_tiff=not suffix) else _OTHER


def _reason_by_name(path: Location, suffix: str) -> str | None:
    """Why a file is no picture, by its ending; None for a picture, _UNKNOWN if the ending says nothing."""
    if suffix in picture_suffixes():
        return None
    if suffix in HEIC_SUFFIXES:
        return HEIC_HINT
    if suffix in _CAMERA_RAW_SUFFIXES:
        return CAMERA_RAW
    kind = _FILE_TYPES.guess_type(f"file{suffix}")[0] or ""
    if is_video(path) or kind.startswith("video/"):
        return VIDEO
    return _OTHER if kind or suffix in _OTHER_SUFFIXES else _UNKNOWN


def _key_of(path: str | Path) -> tuple[int, int]:
    """What tells two files or folders apart, whatever their names."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _read_start(path: str) -> bytes:
    """The first bytes of a file."""
    # O_NONBLOCK: do not wait for the other end of what was a file a moment ago.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        return os.read(descriptor, SIGNATURE_BYTES)
    finally:
        os.close(descriptor)


@cache
def _network_devices() -> frozenset[int]:
    """Device numbers of mounted folders of other machines; empty where the system does not list them as Linux does."""
    devices = set()
    try:
        with open(_MOUNTS, encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                before, _, after = line.partition(" - ")
                if after.startswith(_NETWORK_FILE_SYSTEMS):
                    major, minor = map(int, before.split()[2].split(":"))
                    devices.add(os.makedev(major, minor))
    except (OSError, ValueError, IndexError):
        return frozenset()
    return frozenset(devices)
