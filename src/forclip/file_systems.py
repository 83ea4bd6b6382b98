"""Open and list files at URLs: S3, Google Cloud Storage and Azure through Arrow, other schemes through fsspec.

Credentials come only from the environment. Network errors are retried.
"""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from forclip.bucket_errors import reason_of, without_secrets
from forclip.location import refuse_credentials
from forclip.one_line import one_line

_ATTEMPTS = 4
_PART = 8 << 20  # bytes of an upload in memory
_FIRST_WAIT = 0.25  # seconds, doubled after each attempt
_ENVIRONMENT = ("AWS_", "GOOGLE_", "GCS_", "AZURE_", "STORAGE_EMULATOR_HOST", "HF_")
_SAME_SECOND = 3_000_000_000  # nanoseconds: a second, and clocks that differ a little
# Errors that a retry does not change.
_FINAL = ("ACCESS_DENIED", "AccessDenied", "NO_SUCH_BUCKET", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden")
_NETWORK_LIBRARIES = ("aiohttp", "botocore", "aiobotocore", "requests", "httpx", "gcsfs", "google", "azure")
_BUCKETS = ("s3", "s3a", "s3n", "gs", "gcs", "az", "abfs", "abfss", "adl")  # read by Arrow
_SAME_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "az", "abfss": "az", "adl": "az"}
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "modified", "created")  # in listings of fsspec

Result = TypeVar("Result")


class Unreachable(OSError):
    """A file could not be fetched, which says nothing of the file: the network, the service or the access failed."""


@dataclass(frozen=True)
class ListedFile:
    """A file of a listing. size: bytes; modified: nanoseconds since 1970, 0 where the store does not say.

    Buckets give times in whole seconds. A file of the last seconds may change once more in the same second and keep its
    size, so its time is that of the listing: a later listing gives another one, and the file is compared by content.
    """

    url: str
    size: int
    modified: int


def open_file(url: str) -> pa.NativeFile:
    """Open a file at a URL for reading at any position. Raises FileNotFoundError and Unreachable."""
    files, path = file_system(url)
    return retry(url, lambda: files.open_input_file(path))


def read_file(url: str, start: int = 0, length: int = -1) -> bytes:
    """Read a file at a URL, or a part of it. Raises FileNotFoundError and Unreachable."""
    files, path = file_system(url)

    def read() -> bytes:
        with files.open_input_file(path) as opened:
            if length < 0 and start == 0:
                return bytes(opened.readall())
            return bytes(opened.read_at(length, start))

    return retry(url, read)


def upload_folder(folder: Path, url: str) -> None:
    """Write the files of a local folder below a URL. Raises Unreachable, and then no new one of them is there.

    A file that is there already is replaced.
    """
    files, path = file_system(url)
    names = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
    new: list[str] = []
    try:
        for name in names:
            source, target = folder / name, f"{path.rstrip('/')}/{name}"
            if retry(url, lambda t=target: files.get_file_info(t)).type == pafs.FileType.NotFound:  # type: ignore[misc]
                new.append(target)
            retry(f"{url.rstrip('/')}/{name}", lambda s=source, t=target: _upload(files, s, t))  # type: ignore[misc]
    except Exception:
        for target in new:
            with suppress(Exception):
                files.delete_file(target)
        raise


def _upload(files: pafs.FileSystem, source: Path, target: str) -> None:
    with source.open("rb") as read, files.open_output_stream(target) as write:
        shutil.copyfileobj(read, write, _PART)


def file_info(url: str) -> ListedFile | None:
    """Return a file's size and time of change, or None if there is no such file. Raises Unreachable."""
    files, path = file_system(url)
    found = retry(url, lambda: files.get_file_info(path))
    return ListedFile(url, found.size or 0, _distinct(found.mtime_ns)) if found.type == pafs.FileType.File else None


def is_folder(url: str) -> bool:
    """Whether some file lies below a URL. Raises Unreachable."""
    files, path = file_system(url)
    return bool(retry(url, lambda: files.get_file_info(path)).type == pafs.FileType.Directory)


def list_files(folder: str, recursive: bool = True) -> Iterator[ListedFile]:
    """List the files below a URL, in no particular order, by a call for about a thousand of them.

    Raises FileNotFoundError if there is nothing, and Unreachable.
    """
    files, path = file_system(folder)
    base = folder.rstrip("/")
    if isinstance(files, pafs.PyFileSystem):
        yield from _list_by_fsspec(files, path, base, recursive)
        return
    path = path.rstrip("/")
    # A folder at a time, so that memory does not hold the whole bucket's listing.
    pending = [path]
    while pending:
        top = pending.pop()
        selector = pafs.FileSelector(top, recursive=recursive and top != path)
        for found in retry(folder, lambda s=selector: files.get_file_info(s)):  # type: ignore[misc]
            if found.path == top == path and found.type == pafs.FileType.Directory and recursive:
                pending.append(f"{top}/")  # a folder without a name
            if not found.path.startswith(f"{top}/"):
                continue  # in s3://bucket//a, Arrow also lists what is not below the folder
            if found.type == pafs.FileType.File:
                yield ListedFile(f"{base}{found.path[len(path) :]}", found.size or 0, _distinct(found.mtime_ns))
            elif top == path and recursive:
                pending.append(found.path)


def list_names(folder: str) -> list[str]:
    """List the names of the files and folders directly below a URL. Raises FileNotFoundError and Unreachable."""
    files, path = file_system(folder)
    path = path.rstrip("/")
    if isinstance(files, pafs.PyFileSystem):
        found = retry(folder, lambda: files.handler.fs.ls(path, detail=False))
        return [str(name).rstrip("/").rpartition("/")[2] for name in found]
    found = retry(folder, lambda: files.get_file_info(pafs.FileSelector(path)))
    return [info.base_name for info in found]


def _list_by_fsspec(files: pafs.PyFileSystem, path: str, base: str, recursive: bool) -> Iterator[ListedFile]:
    """As `list_files`. Arrow's own listing of these file systems leaves out most times of change."""
    backend = files.handler.fs
    listed = retry(base, lambda: backend.find(path, maxdepth=None if recursive else 1, detail=True))
    if not listed:
        raise FileNotFoundError(f"{base}: no such folder")
    for name, details in listed.items():
        inside = name[len(path.rstrip("/")) :] if name.startswith(path.rstrip("/")) else f"/{name}"
        yield ListedFile(f"{base}{inside}", int(details.get("size") or 0), _distinct(_modified(details)))


def _distinct(modified: int | None) -> int:
    now = time.time_ns()
    is_rounded_and_recent = modified and modified % 1_000_000_000 == 0 and modified > now - _SAME_SECOND
    return now if is_rounded_and_recent else modified or 0


def _modified(details: Mapping[str, Any]) -> int:
    for name in _TIMES:
        match details.get(name):
            case datetime() as moment:
                return int(moment.timestamp() * 1e9)
            case bool():
                continue
            case int() | float() as seconds:
                return int(seconds * 1e9)
            case str() as text:
                try:
                    return int(datetime.fromisoformat(text).timestamp() * 1e9)
                except ValueError:
                    continue
    return 0


def file_system(url: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a URL, and the file's path in it.

    Raises ValueError for an unknown scheme, one whose package is missing, and a URL that holds credentials or names no
    bucket; Unreachable for an empty name between two slashes if fsspec's package for it is missing.
    """
    scheme, _, rest = refuse_credentials(url).partition("://")
    scheme = scheme.lower()
    if scheme in _BUCKETS and not rest.partition("/")[0]:
        raise ValueError(f"{url}: names no bucket")
    if "::" in url:
        raise ValueError(f"{url}: chained URLs are not read; give the URL of the files themselves")
    # The environment is part of the key, so that credentials that change are used.
    environment = tuple(item for item in sorted(os.environ.items()) if item[0].startswith(_ENVIRONMENT))
    authority, _, inside = rest.partition("/")
    if scheme in _BUCKETS and "//" in rest:  # an empty part of a key, which Arrow refuses
        usual = _SAME_SCHEMES.get(scheme, scheme)
        try:
            return _fsspec(f"{usual}://{authority}", environment), rest
        except ValueError:
            package = _PACKAGES[usual]
            problem = f"has an empty name between two slashes, which needs a package to be read: pip install {package}"
            raise Unreachable(f"{url}: {problem}") from None
    match scheme:
        case "s3" | "s3a" | "s3n":
            return _s3(authority, environment), rest
        case "gs" | "gcs":
            return _gcs(environment), rest
        case "az" | "abfs" | "abfss" | "adl":
            container, at, host = authority.partition("@")
            return _azure(host if at else "", environment), f"{container}/{inside}"
        case _:
            files = _fsspec(f"{scheme}://{authority}", environment)
            return files, str(files.handler.fs._strip_protocol(url))


Environment = tuple[tuple[str, str], ...]


@lru_cache(maxsize=64)
def _s3(bucket: str, environment: Environment) -> pafs.S3FileSystem:
    given = dict(environment)
    endpoint = given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL") or given.get("AWS_ENDPOINT")
    region = given.get("AWS_REGION") or given.get("AWS_DEFAULT_REGION")
    if not region and not endpoint:
        try:
            region = pafs.resolve_s3_region(bucket)
        except OSError as error:
            raise _reworded(f"s3://{bucket}", error) from None
    unsigned = given.get("AWS_NO_SIGN_REQUEST") or given.get("AWS_SKIP_SIGNATURE") or ""
    # With a delayed open, a small file is one request, so that a kill leaves no unfinished upload.
    options: dict[str, Any] = {"allow_delayed_open": True} | ({"endpoint_override": endpoint} if endpoint else {})
    retrying = pafs.AwsStandardS3RetryStrategy(max_attempts=3)
    is_anonymous = unsigned.lower() in ("1", "true", "yes")
    return pafs.S3FileSystem(region=region, anonymous=is_anonymous, retry_strategy=retrying, **options)


@lru_cache(maxsize=8)
def _gcs(environment: Environment) -> pafs.GcsFileSystem:
    given = dict(environment)
    options: dict[str, Any] = {"retry_time_limit": timedelta(seconds=60)}
    if emulator := given.get("STORAGE_EMULATOR_HOST"):
        scheme, _, host = emulator.rpartition("://")
        options |= {"endpoint_override": host, "scheme": scheme or "http", "anonymous": True}
    return pafs.GcsFileSystem(**options)


@lru_cache(maxsize=8)
def _azure(host: str, environment: Environment) -> pafs.FileSystem:
    given = dict(environment)
    account = host.partition(".")[0] or given.get("AZURE_STORAGE_ACCOUNT_NAME") or given.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise ValueError("az:// needs the environment variable AZURE_STORAGE_ACCOUNT, the account's name")
    key = given.get("AZURE_STORAGE_ACCOUNT_KEY") or given.get("AZURE_STORAGE_KEY")
    token = given.get("AZURE_STORAGE_SAS_TOKEN")
    return pafs.AzureFileSystem(account, account_key=None if token else key, sas_token=token)


@lru_cache(maxsize=16)
def _fsspec(host: str, environment: Environment) -> pafs.PyFileSystem:
    """The file system of a scheme; of sftp://, hdfs:// and the like that of one host."""
    from fsspec.core import url_to_fs

    scheme = host.partition("://")[0]
    try:
        return pafs.PyFileSystem(pafs.FSSpecHandler(url_to_fs(f"{host}/")[0]))
    except ImportError as error:
        raise ValueError(f"{scheme}://: {error}") from None
    except ValueError:
        raise ValueError(f"{scheme}://: no such kind of URL; known are s3, gs, az, file and those of fsspec") from None
    except OSError as error:
        raise ValueError(f"{host}: can't be opened: {one_line(str(error).partition(chr(10))[0])[:200]}") from None


def retry(name: str, action: Callable[[], Result]) -> Result:
    """Call a function that uses the network, again after a growing wait where it fails.

    Raises FileNotFoundError for what does not exist, and Unreachable, naming the file, after the last attempt.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return action()
        except (FileNotFoundError, Unreachable):
            raise
        except Exception as error:
            # fsspec's back ends raise errors of their own libraries.
            if not isinstance(error, OSError) and not _is_network_error(error):
                raise
            if attempt == _ATTEMPTS - 1 or isinstance(error, PermissionError) or _is_final(error):
                raise _reworded(name, error) from None
            time.sleep(_FIRST_WAIT * 2**attempt * random.uniform(0.5, 1.5))
    raise AssertionError


def _is_network_error(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in _NETWORK_LIBRARIES


def _is_final(error: Exception) -> bool:
    return any(mark in str(error) for mark in _FINAL)


def _reworded(name: str, error: Exception) -> Unreachable:
    """The error in plain words, or its own without line breaks and what follows a question mark in URLs."""
    scheme = name.partition("://")[0].lower()
    if reason := reason_of(error, _SAME_SCHEMES.get(scheme, scheme)):
        return Unreachable(f"{name}: {reason}")
    text = one_line(without_secrets(str(error)) or type(error).__name__)
    words = [word.partition("?")[0] if "://" in word else word for word in text.split(" ")]
    return Unreachable(f"{name}: can't be fetched: {' '.join(words)[:400]}")
