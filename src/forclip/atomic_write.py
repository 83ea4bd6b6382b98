"""Write files so that a reader finds the old content or all of the new one, never a part of it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from forclip.bucket_path import BucketPath


def write_atomically(path: Path, write: Callable[[Path], object], *, sync: bool = False) -> None:
    """Write a temporary file in the same folder, then rename it to `path`. Missing folders are created.

    write: called once with the temporary path; it must create that file. sync: flush the file to the disk before the
    rename, so that the content also survives a power cut. Safe when several processes or threads write the same path:
    the last one wins. On an error the temporary file is removed and `path` keeps what it had. An OSError names `path`.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    with created_folders(path.parent):
        try:
            write(temporary)
            if sync:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise type(error)(error.errno, error.strerror or str(error), str(path)) from None
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def created_folders(folder: Path) -> Iterator[None]:
    """Create a folder and those above it that are missing. On an error they are removed again, as far as empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise


def write_text_atomically(path: Path | BucketPath, text: str, *, sync: bool = False) -> None:
    """Write UTF-8 text as `write_atomically` does, also to a bucket. Characters that UTF-8 cannot encode become `?`.

    Such characters (lone surrogates) come from file names in other encodings.
    """
    write_bytes_atomically(path, text.encode("utf-8", "replace"), sync=sync)


def write_bytes_atomically(path: Path | BucketPath, content: bytes, *, sync: bool = False) -> None:
    """Write a file as `write_atomically` does, also to a bucket."""
    if isinstance(path, BucketPath):
        path.write_bytes(content)
    else:
        write_atomically(path, lambda temporary: temporary.write_bytes(content), sync=sync)
