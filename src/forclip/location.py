"""Where a picture is: a file on this machine (`Path`), or at a URL or inside a shard (`Uri`).

A shard is a file that holds many pictures: a tar archive, or a Parquet or Arrow table. A picture in it is written
`shard.tar#member` or `part.parquet#row`, and a frame of a video `video.mp4#t=1.000`.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from forclip.path_text import path_to_text, text_to_path

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
TABLE_SUFFIXES = (".parquet", ".arrow")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: C:// is a drive
_URL_AS_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
_SHORTENED = re.compile(r"\b(s3[an]?|gcs?|gs|az|abfss?|adl|hf|https?|s?ftp|hdfs|memory):/(?!/)")
_SUFFIX = "|".join(map(re.escape, (*TAR_SUFFIXES, *TABLE_SUFFIXES)))
_MEMBER = re.compile(rf"(.+?(?:{_SUFFIX}))#(.+)", re.IGNORECASE | re.DOTALL)
_FRAME = re.compile(r"(.+)#(t=[\d.]+)")
_RANGE = re.compile(r"(.+)&bytes=(\d+)-(\d+)", re.DOTALL)
_SAME_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs"}  # names that other programs use
_SECRET = re.compile(r"sig|token|key|secret|password|credential|policy", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Uri:
    """A picture, or another file, that is no file of its own on this machine.

    container: the URL of a file, or the path or URL of a shard; member: the member's name, or the number of the row,
    or the time `t=1.000` of a video's frame; empty for the file itself. start, length: the bytes of a tar's member, and
    size, modified: the container's size in bytes and time of change (ns), all -1 where they are not known. Two
    locations are equal if container and member are.
    """

    container: str
    member: str = ""
    start: int = field(default=-1, compare=False)
    length: int = field(default=-1, compare=False)
    size: int = field(default=-1, compare=False)
    modified: int = field(default=-1, compare=False)

    def __str__(self) -> str:
        return f"{self.container}#{self.member}" if self.member else self.container

    @property
    def name(self) -> str:
        """The last part of the name, for display and for the ending."""
        return str(self).rpartition("/")[2]

    @property
    def is_remote(self) -> bool:
        """Whether it is at a URL, not in a shard on this machine."""
        return is_url(self.container)

    def whole(self) -> "Uri":
        """The container."""
        return replace(self, member="", start=-1, length=-1)


Location = Path | Uri


def is_url(text: str) -> bool:
    """Whether a text is a URL. `file://` is one too."""
    return _URL.match(text) is not None


def is_absolute(text: str) -> bool:
    """Whether a text is a URL or an absolute path."""
    return text.startswith("/") or is_url(text)


def parse_location(text: str) -> Location:
    """Return the location that a text names: a path, a URL, a shard's member, or a frame. `file://` is a path.

    A URL is written as `canonical_url` writes it. What looks like a member but is the name of a file is a path.
    Raises ValueError for a URL that holds credentials.
    """
    text, start, length = _split_range(text)
    if not is_url(text):
        if (match := _MEMBER.fullmatch(text)) is None or os.path.lexists(text):
            return text_to_path(text)
        return Uri(str(text_to_path(match[1])), match[2], start, length)
    text = canonical_url(text)
    if not is_url(text):
        return parse_location(text)
    match = _MEMBER.fullmatch(text) or _FRAME.fullmatch(text)
    return Uri(text, "", start, length) if match is None else Uri(match[1], match[2], start, length)


def canonical_url(url: str) -> str:
    """Return a URL as all its spellings are written, so that an object has one name; another text as it is.

    `S3://` and `s3a://` become `s3://`, and `file://` the path. Raises ValueError for a URL that holds credentials.
    """
    if not is_url(url):
        return url
    scheme, _, rest = refuse_credentials(url).partition("://")
    scheme = scheme.lower()
    if scheme == "file":
        return unquote(rest.removeprefix("localhost"))
    return f"{_SAME_SCHEMES.get(scheme, scheme)}://{rest}"


def as_location(path: Location | str) -> Location:
    """Return the location that a path stands for: pathlib makes s3:/bucket/x of a URL, and knows no shards."""
    if isinstance(path, str):
        return parse_location(path)
    if isinstance(path, Uri):
        return path
    text = str(path)
    if ":/" not in text and "#" not in text:
        return path
    return parse_location(_URL_AS_PATH.sub(r"\1://", text, count=1) if _URL_AS_PATH.match(text) else text)


def is_at_url(path: Location) -> bool:
    """Whether a path, also pathlib's s3:/bucket/x of a URL, is that of something at a URL."""
    location = as_location(path)
    return isinstance(location, Uri) and location.is_remote


def with_urls(text: str) -> str:
    """Return a message in which URLs that pathlib has shortened, as s3:/bucket/x, are written as URLs."""
    return _SHORTENED.sub(r"\1://", text)


def location_text(location: Location) -> str:
    r"""Return the text that `parse_location` reads. Bytes of a name that are not UTF-8 become `\xe9` and the like."""
    if isinstance(location, Path):
        return path_to_text(location)
    return path_to_text(str(location)) + range_text(location)


def range_text(location: Location) -> str:
    """Return where a member's bytes are in its tar, such as `&bytes=512-1535`; empty if it is not known."""
    if isinstance(location, Path) or location.start < 0:
        return ""
    return f"&bytes={location.start}-{location.start + location.length - 1}"


def without_range(text: str) -> str:
    """Return a location's text without the bytes of a tar's member."""
    return _split_range(text)[0]


def _split_range(text: str) -> tuple[str, int, int]:
    if "&bytes=" not in text or (match := _RANGE.fullmatch(text)) is None:
        return text, -1, -1
    return match[1], int(match[2]), int(match[3]) + 1 - int(match[2])


def refuse_credentials(url: str) -> str:
    """Return a URL. Raises ValueError, which does not repeat them, if it holds a password or a signature."""
    if "@" not in url and "?" not in url:
        return url
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    secret = "a password" if at and ":" in user else ""
    if any(_SECRET.search(name) for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        secret = "a key or a signature"
    if secret:
        shown = f"{parts.scheme}://{host}{parts.path}"
        raise ValueError(f"{shown}: the URL holds {secret}; give credentials in environment variables instead")
    return url


def is_tar(name: str) -> bool:
    """Whether a file's ending is that of a tar archive."""
    return name.lower().endswith(TAR_SUFFIXES)


def is_table(name: str) -> bool:
    """Whether a file's ending is that of a Parquet or Arrow table."""
    return name.lower().endswith(TABLE_SUFFIXES)


def is_shard(name: str) -> bool:
    """Whether a file's ending is that of a file that may hold many pictures."""
    return is_tar(name) or is_table(name)


def in_reading_order(names: Sequence[str], locations: Sequence[Location]) -> list[str]:
    """Sort names of locations so that each shard is read once, from its start to its end; others keep their order."""
    first: dict[str, int] = {}  # position of each shard's first member

    def key(position: int) -> tuple[int, int, int]:
        location = locations[position]
        if not isinstance(location, Uri) or not location.member:
            return position, 0, position
        start = int(location.member) if location.member.isdecimal() else location.start
        return first.setdefault(location.container, position), start, position

    return [names[position] for position in sorted(range(len(names)), key=key)]


def join(folder: Location, name: str) -> Location:
    """Return a file of a folder by its relative name, which may be that of a shard's member."""
    if isinstance(folder, Path):
        return parse_location(str(folder / name))
    return parse_location(f"{str(folder).rstrip('/')}/{name}")


def absolute(location: Location) -> Location:
    """Return a location that does not depend on the working folder."""
    if isinstance(location, Path):
        return Path(os.path.abspath(location))
    return location if location.is_remote else replace(location, container=os.path.abspath(location.container))


def file_on_disk(location: Location) -> Path:
    """Return the file on this machine that holds a picture: itself, or its shard."""
    return location if isinstance(location, Path) else Path(location.container)


def local_path(location: Location) -> Path:
    """Return the path of a file on this machine. Raises ValueError for any other location."""
    if isinstance(location, Path):
        return location
    raise ValueError(f"{location}: is not a file on this machine")


def parent(location: Location) -> Location:
    """Return the folder that holds a file."""
    return location.parent if isinstance(location, Path) else Uri(location.container.rpartition("/")[0])
