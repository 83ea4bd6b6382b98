"""Copies of label and metadata files at URLs, for the readers that need a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from forclip.file_systems import Unreachable, read_file
from forclip.location import Uri, as_location


@contextmanager
def local_copy(file: Path) -> Iterator[Path]:
    """Yield a file, or a copy of one at a URL that lasts as long as the block.

    Raises ValueError for a file at a URL that is missing or can't be fetched. Errors in the block name the URL.
    """
    location = as_location(file)
    if not isinstance(location, Uri):
        yield file
        return
    with TemporaryDirectory(prefix="forclip-") as folder:
        copy = Path(folder, location.name)
        try:
            copy.write_bytes(read_file(location.container))
        except FileNotFoundError:
            raise ValueError(f"{location}: no such file") from None
        except Unreachable as error:
            raise ValueError(str(error)) from None
        try:
            yield copy
        except ValueError as error:
            raise ValueError(str(error).replace(str(copy), str(location))) from None
