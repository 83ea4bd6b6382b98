"""Write files here that belong at a URL, and upload them when they are complete."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from forclip.location import Uri, as_location, is_at_url

Named = Callable[[Path], Path]


@contextmanager
def written_to(to: Path, read: tuple[Path, ...] = ()) -> Iterator[tuple[Path, Named]]:
    """Yield where to write what belongs at `to`, and how such a path is named: as it is, unless `to` is at a URL.

    For a URL, the yielded path is in a temporary folder. After the block, the folder's files are uploaded next to the
    URL; if the block fails, none is. Raises ValueError for a URL that can't be written.

    read: files next to the URL that the block reads; they are copied into the folder. If there are any, other files
    whose names contain the URL's stem are there as empty ones, so that the block sees which names are taken. None of
    these is uploaded unless the block replaces it.
    """
    location = as_location(to)
    if not isinstance(location, Uri) or not is_at_url(to):
        yield to, lambda path: path
        return
    from forclip.data.formats.dataset_files import names_in  # late: Arrow's file systems take long to import
    from forclip.file_systems import Unreachable, read_file, upload_folder

    if not is_at_url(to.parent):
        raise ValueError(f"{location}: names no file in a bucket")
    with TemporaryDirectory(prefix="forclip-") as temporary:
        folder = Path(temporary, "written")
        folder.mkdir()
        before: dict[Path, tuple[int, int, int]] = {}
        # A folder in a bucket can have millions of names.
        for name in [name for name in names_in(to.parent) if to.stem in name] if read else ():
            file = folder / name
            try:
                file.touch()
                before[file] = _state(file)
            except OSError:  # longer than a local file's name
                continue
        try:
            for path in read:
                if (copy := folder / path.name) in before:
                    copy.write_bytes(read_file(str(as_location(path))))
                    before[copy] = _state(copy)
            yield folder / to.name, lambda path: to.parent / path.relative_to(folder)
            for file, state in before.items():
                if file.is_file() and _state(file) == state:
                    file.unlink()
            upload_folder(folder, str(as_location(to.parent)))
        except Unreachable as error:
            raise ValueError(str(error)) from None
        except ValueError as error:
            raise ValueError(str(error).replace(str(folder), str(as_location(to.parent)))) from None


def _state(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
