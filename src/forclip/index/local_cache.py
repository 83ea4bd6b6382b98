"""The folder on this machine for what is derived from stores in buckets: search segments and model files.

It can be deleted at any time. FORCLIP_CACHE names it, FORCLIP_CACHE_GB limits its size.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

from forclip.bucket_path import BucketPath

_DEFAULT_GB = 100.0
_USED = "used"  # a file whose time of change is that of the last use
_STORES = "stores"


def cache_folder() -> Path:
    """Return FORCLIP_CACHE, or `forclip` in the user's folder for caches."""
    if chosen := os.environ.get("FORCLIP_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "forclip"


def cache_limit() -> int:
    """Return the bytes that the cache may take. Raises ValueError for a FORCLIP_CACHE_GB that is no number."""
    text = os.environ.get("FORCLIP_CACHE_GB") or str(_DEFAULT_GB)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1
    if not 0 <= gigabytes < float("inf"):
        raise ValueError(f"FORCLIP_CACHE_GB must be a number of gigabytes, not {text!r}")
    return int(gigabytes * 1e9)


def cached_store(store: BucketPath, identity: str) -> Path:
    """Return the folder for what is derived from one store, and mark it as used. Other stores may be removed for it.

    identity: of the store's content. Raises ValueError if the folder can't be written.
    """
    limit = cache_limit()
    key = blake2b("\n".join([str(store), store.endpoint or "", identity]).encode(), digest_size=16).hexdigest()
    folder = cache_folder() / _STORES / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _USED).write_text(f"{store}\n", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"{folder}: can't be written: {reason}; FORCLIP_CACHE names another folder") from None
    trim_cache(limit, folder)
    return folder


def trim_cache(limit: int, kept: Path) -> None:
    """Remove the stores that were not used for the longest time until the cache takes at most `limit` bytes.

    kept: a store's folder that stays. Processes that have removed files mapped can still read them.
    """
    used = {folder: _last_use(folder) for folder in kept.parent.iterdir() if folder.is_dir()}
    sizes = {folder: sum(_sizes(folder)) for folder in used}
    for folder in sorted(used, key=lambda folder: used[folder]):
        if sum(sizes.values()) <= limit:
            return
        if folder != kept:
            shutil.rmtree(folder, ignore_errors=True)
            del sizes[folder]


def _last_use(folder: Path) -> int:
    with suppress(OSError):
        return (folder / _USED).stat().st_mtime_ns
    return 0


def _sizes(folder: Path) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                yield os.stat(f"{parent}/{name}").st_size


def download_folder(folder: BucketPath, to: Path) -> None:
    """Download all files of a folder. Nothing is there until all are; a folder without files is not made."""
    names = folder.sizes()
    if not names:
        return
    with TemporaryDirectory(prefix=f"{to.name}.", dir=to.parent) as temporary:
        for name in names:
            target = Path(temporary) / to.name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / name).download(target)
        with suppress(OSError):  # another process was faster
            (Path(temporary) / to.name).rename(to)
