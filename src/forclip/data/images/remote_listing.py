"""List the pictures below a URL, or those that a pattern with a URL matches."""

import glob
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase

from forclip.data.images.picture_types import SIGNATURE_BYTES, has_signature
from forclip.file_systems import ListedFile, file_info, is_folder, list_files, read_file
from forclip.location import is_url

_THREADS = 16


def list_url(source: str) -> list[ListedFile]:
    """List the files that a URL means: one file, all below a folder, or those that match a pattern, sorted.

    A file or folder whose name looks like a pattern is taken as it is. Raises ValueError if there is none, and
    Unreachable.
    """
    try:
        if glob.has_magic(source) and not _is_there(source):
            parts = source.split("/")
            fixed = next(k for k, part in enumerate(parts) if glob.has_magic(part))
            pattern = parts[fixed:]
            found = list_files("/".join(parts[:fixed]), recursive=len(pattern) > 1 or "**" in pattern)
            start = len("/".join(parts[:fixed])) + 1
            files = [file for file in found if matches(file.url[start:].split("/"), pattern)]
        else:
            single = None if source.endswith("/") else file_info(source)
            files = [single] if single is not None else list(list_files(source))
    except FileNotFoundError:
        files = []
    if not files:
        raise ValueError(f"{source}: no such folder or file")
    return sorted(files, key=lambda file: file.url.replace("/", "\0"))


def _is_there(url: str) -> bool:
    return file_info(url) is not None or is_folder(url)


def matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether the parts of a path match those of a glob pattern; ** stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and matches(parts[1:], pattern[1:])


def with_signature(urls: list[str]) -> set[str]:
    """Those of some files whose first bytes are a picture's. Reads the start of each."""

    def is_picture(url: str) -> bool:
        try:
            return has_signature(read_file(url, 0, SIGNATURE_BYTES), with_tiff=not os.path.splitext(url)[1])
        except OSError:
            return False

    with ThreadPoolExecutor(_THREADS) as pool:
        return {url for url, found in zip(urls, pool.map(is_picture, urls), strict=True) if found}


def expand_braces(pattern: str, is_there: Callable[[str], bool] | None = None) -> list[str]:
    """Expand {000..012} and {a,b} of a pattern, as shells and webdataset do. A name that exists is taken as it is.

    is_there: whether a name exists, by default on this machine, or at its URL. Raises Unreachable.
    """
    start = pattern.find("{")
    end = pattern.find("}", start)
    if start < 0 or end < 0:
        return [pattern]
    if is_there is None:
        is_there = _is_there if is_url(pattern) else os.path.lexists
    inside = pattern[start + 1 : end]
    first, dots, last = inside.partition("..")
    if dots and first.isdecimal() and last.isdecimal():
        step = 1 if int(first) <= int(last) else -1
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        choices = [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]
    elif "," in inside:
        choices = inside.split(",")
    else:
        return [pattern]
    if is_there(pattern):
        return [pattern]
    ends = expand_braces(pattern[end + 1 :], lambda name: False)
    return [f"{pattern[:start]}{choice}{rest}" for choice in choices for rest in ends]
