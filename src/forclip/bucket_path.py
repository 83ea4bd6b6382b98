"""Paths in object storage, with the methods of `pathlib.Path` that a store's files need.

Credentials, endpoint and region come only from the environment, as cloud providers name them: AWS_ACCESS_KEY_ID,
AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL, GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_ACCOUNT_NAME and so on.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from forclip.bucket_errors import endpoint_of, reason_of, without_secrets

BUCKET_SCHEMES = ("s3", "gs", "az")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(:/*)(.*)", re.DOTALL)


@dataclass(frozen=True, order=True)
class BucketPath:
    """A file or folder in object storage, by its URL without a / at the end.

    Files are written whole or not at all. A folder exists while something is below it. Raises ValueError for a URL
    without a bucket, with options or credentials, or with characters that object stores decode differently.
    """

    url: str

    def __post_init__(self) -> None:
        scheme, _, path = self.url.partition("://")
        bucket, *inside = path.rstrip("/").split("/")
        if "@" in bucket or ":" in bucket:
            raise ValueError(f"{scheme}://…: a URL must not hold credentials or a port; set the environment instead")
        if not bucket or scheme not in BUCKET_SCHEMES:
            raise ValueError(f"{self.url}: names no bucket")
        if any(part in ("", ".", "..") for part in inside) or set("?#%\\") & set(path):
            shown = self.url.partition("?")[0]  # a signature may follow
            raise ValueError(f"{shown}: empty parts, . and .., and the characters ? # % \\ can't be in a URL")
        object.__setattr__(self, "url", self.url.rstrip("/"))

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> "BucketPath":
        return BucketPath(f"{self.url}/{name}")

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def bucket(self) -> str:
        return self._key.partition("/")[0]

    @property
    def name(self) -> str:
        """The last part; of a bucket, its name."""
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> "BucketPath":
        """The folder; of a bucket, itself."""
        return self if self._key == self.bucket else BucketPath(self.url.rpartition("/")[0])

    @property
    def _key(self) -> str:
        return self.url.partition("://")[2]

    @property
    def _files(self) -> Any:
        from forclip.file_systems import file_system  # late: Arrow's file systems take long to import

        return file_system(self.url)[0]

    @property
    def endpoint(self) -> str | None:
        """The endpoint that the environment names, None for the provider's own."""
        return endpoint_of(self.scheme)

    def prepare(self) -> None:
        """Let Lance, which reads the environment itself, use an endpoint without encryption, as other clients do."""
        if (self.endpoint or "").startswith("http://"):
            os.environ.setdefault("AWS_ALLOW_HTTP", "true")

    def exists(self) -> bool:
        from pyarrow.fs import FileType

        with self.reworded():
            return bool(self._files.get_file_info(self._key).type != FileType.NotFound)

    def is_dir(self) -> bool:
        from pyarrow.fs import FileType

        with self.reworded():
            return bool(self._files.get_file_info(self._key).type == FileType.Directory)

    def read_bytes(self) -> bytes:
        with self.reworded(), self._files.open_input_file(self._key) as file:
            content: bytes = file.read()
        return content

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Write a file. Readers find the old content or all of the new one."""
        with self.reworded(), self._files.open_output_stream(self._key) as file:
            file.write(content)

    def check_writable(self) -> None:
        """Write an empty file here and remove it. Raises ValueError where that is not possible."""
        self.write_bytes(b"")
        self.unlink(missing_ok=True)

    def upload(self, file: Path) -> None:
        """Write a local file's content here."""
        from pyarrow.fs import LocalFileSystem, copy_files

        with self.reworded():
            copy_files(str(file.absolute()), self._key, LocalFileSystem(), self._files)

    def download(self, to: Path) -> None:
        """Write the content to a local file."""
        from pyarrow.fs import LocalFileSystem, copy_files

        with self.reworded():
            copy_files(self._key, str(to.absolute()), self._files, LocalFileSystem())

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self.reworded():
                self._files.delete_file(self._key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self) -> None:
        """Remove all that is below; nothing may be."""
        for name in sorted(self.sizes(), reverse=True):  # so that what marks a folder as complete can sort last
            (self / name).unlink(missing_ok=True)

    def iterdir(self) -> Iterator["BucketPath"]:
        """Yield what is directly below. Yields nothing if the folder does not exist."""
        yield from (self / name for name in dict.fromkeys(name.split("/")[0] for name in self._list(recursive=False)))

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file below, at any depth, by its path from here."""
        return self._list(recursive=True)

    def _list(self, recursive: bool) -> dict[str, int]:
        from pyarrow.fs import FileSelector, FileType

        with self.reworded():
            found = self._files.get_file_info(FileSelector(self._key, allow_not_found=True, recursive=recursive))
            start = len(self._key) + 1
            return {
                info.path[start:].rstrip("/"): info.size or 0
                for info in found
                if not recursive or info.type == FileType.File
            }

    @contextmanager
    def reworded(self) -> Iterator[None]:
        """Raise errors of the object store in one sentence that names the URL. A missing file stays what it is."""
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.url}: no such file") from None
        except OSError as error:
            raise ValueError(self.problem(error) or f"{self.url}: {without_secrets(str(error))[:300]}") from None

    def problem(self, error: BaseException) -> str | None:
        """Say in one sentence what an error of an object store means, None if it is another kind of error."""
        reason = reason_of(error, self.scheme)
        return reason and f"{self.url}: {reason}"


StorePath = Path | BucketPath


def store_path(place: str | os.PathLike[str] | BucketPath) -> StorePath:
    """Return where a store is: a local folder, or a folder in a bucket for a URL.

    Raises ValueError for a URL of another kind, and for a text that was meant as a URL.
    """
    if isinstance(place, BucketPath):
        return place
    text = os.fspath(place)
    if (url := _URL.match(text)) is None:
        return Path(text)
    scheme, slashes, path = url[1].lower(), url[2], url[3]
    if scheme == "file" and slashes.startswith("://"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{text}: a file URL has three slashes, file:///{parts.netloc}{parts.path}")
        return Path(url2pathname(unquote(parts.path)))
    if scheme in BUCKET_SCHEMES:
        if not slashes.startswith("://"):
            bucket = path.lstrip("/").partition("?")[0]
            raise ValueError(f"{scheme}:{slashes}{bucket}: write {scheme}://{bucket}, as a text")
        return BucketPath(f"{scheme}{slashes}{path}")
    if scheme.startswith("milvus"):
        raise ValueError(f"{scheme}://…: a published store is only searched; give the store that it was published from")
    if slashes.startswith("://"):
        raise ValueError(f"{scheme}://…: a store is in a local folder, or in a bucket: s3://, gs:// or az://")
    return Path(text)


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a location is a URL."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", os.fspath(place)) is not None
