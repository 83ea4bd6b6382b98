"""Tokens from a cache where they are there and still true; else encoded, and written to it."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from forclip.data.images.views import View
from forclip.embedding.embed import EncodedImages, encode_batches
from forclip.embedding.token_file import (
    FORMAT_VERSION,
    TokenSource,
    is_complete,
    open_tokens,
    read_header,
    write_tokens,
)
from forclip.models.backbone import Backbone
from forclip.progress import Advance, silent

Say = Callable[[str], None]


def cached_tokens(
    cache: Path,
    backbone: Backbone,
    image_ids: Sequence[str],
    paths: Sequence[Path],
    views: Sequence[View],
    advance: Advance = silent,
    say: Say = lambda message: None,
) -> EncodedImages:
    """As encode_views, with tokens mapped from a folder below cache that is this set's, these views' and backbone's.

    Pictures that changed since are encoded again, all of them. say: told what became of it. Raises ValueError for
    a damaged cache, a folder that can't be written to, a full disk, or where no picture can be read.
    """
    # Before encoding: a picture that changes meanwhile is then out of date in the cache, and not the other way round.
    source = token_source(backbone, image_ids, paths, views)
    folder = cache / cache_key(source)
    with _alone(folder, say):
        stale = _stale(folder, source)
        if stale is None:
            encoded = open_tokens(folder, backbone)
            advance(len(image_ids))
            say(f"tokens of {len(image_ids)} images are reused from {folder}")
            return encoded
        if stale:
            say(f"{folder}: {stale} since, so all are encoded again")
        write_tokens(folder, source, encode_batches(backbone, image_ids, paths, views, advance))
        # Checksums were made from what was written a moment ago.
        return open_tokens(folder, backbone, check=False)


def token_source(
    backbone: Backbone, image_ids: Sequence[str], paths: Sequence[Path], views: Sequence[View]
) -> TokenSource:
    """What tokens are of, as the files are now."""
    names = tuple(view.name for view in views)
    files = tuple(_file_now(path) for path in paths)
    return TokenSource(backbone.name, backbone.fingerprint, names, tuple(image_ids), files)


def cache_key(source: TokenSource) -> str:
    """16 hexadecimal digits, of everything but the files' sizes and times: a changed set replaces what it was."""
    paths = [path for path, _, _ in source.files]
    told = json.dumps([FORMAT_VERSION, source.fingerprint, source.views, source.image_ids, paths])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _stale(folder: Path, source: TokenSource) -> str | None:
    """None where the tokens there are those of the source, else how they are not; empty where there are none."""
    if not is_complete(folder):
        return ""
    found = read_header(folder).source
    if (found.fingerprint, found.views, found.image_ids) != (source.fingerprint, source.views, source.image_ids):
        return "another set was written there"  # keys are short
    changed = [new for old, new in zip(found.files, source.files, strict=True) if old != new]
    return f"{len(changed)} picture(s) changed, the first {changed[0][0]}," if changed else None


def _file_now(path: Path) -> tuple[str, int, int]:
    absolute = os.path.abspath(path)
    try:
        found = os.stat(absolute)
    except OSError:
        return absolute, -1, -1
    return absolute, found.st_size, found.st_mtime_ns


@contextmanager
def _alone(folder: Path, say: Say) -> Iterator[None]:
    """One process at a time: of two runs on the same set, the second finds what the first has made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise ValueError(f"{folder}: cannot write the cache of tokens there: {error}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that writes to {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
