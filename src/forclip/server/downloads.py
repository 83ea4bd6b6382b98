"""A selection as a download: one file, or a zip of a folder, made in a temporary folder that is gone afterwards."""

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from threading import BoundedSemaphore
from typing import IO

from starlette.responses import Response, StreamingResponse

from forclip.search.export import FORMATS, write_fiftyone
from forclip.search.selection import Item, Selection
from forclip.server import limits
from forclip.server.errors import Refused
from forclip.server.gallery import Described
from forclip.server.pictures import picture_bytes
from forclip.server.schemas import Format

_KINDS: dict[Format, tuple[str, str]] = {
    "coco": ("json", "application/json"),
    "csv": ("csv", "text/csv; charset=utf-8"),
    "fiftyone": ("zip", "application/zip"),
    "files": ("txt", "text/plain; charset=utf-8"),
}
_CHUNK = 1 << 20
_zipping = BoundedSemaphore(2)  # each may take twice EXPORTED_BYTES of the disk while it is made


Images = Mapping[str, Described]  # by image id


def download(selection: Selection, format: Format, images: Images, name: str) -> Response:
    """images: those of the selection, at least; name: without an ending. Raises Refused, naming files without their
    folder: 409 for an image that can't be handed on so, 404 where there is none, 413 for too many bytes of pictures."""
    if not selection.items:
        raise Refused(404, "there is no image to hand on")
    _check(selection, format)
    ending, media_type = _KINDS[format]
    # As a download, so that no browser shows it as something else.
    headers = {"Content-Disposition": f'attachment; filename="{name}.{ending}"'}
    if format == "fiftyone":
        with _zipping:
            made = _zipped(selection, images)
        headers["Content-Length"] = str(made.seek(0, os.SEEK_END))
        return StreamingResponse(_read(made), media_type=media_type, headers=headers)
    with TemporaryDirectory() as folder:
        to = Path(folder) / name
        FORMATS[format](selection, to)
        return Response(to.read_bytes(), media_type=media_type, headers=headers)


def _check(selection: Selection, format: Format) -> None:
    """What the formats can't hold, told without the folder it lies in."""
    for item in selection.items:
        if format in ("coco", "csv") and item.box is not None and not (item.width > 0 and item.height > 0):
            raise Refused(409, f"{item.path.name}: the store does not know its size in pixels: index it anew")
        if format == "files" and ("\n" in str(item.path) or "\r" in str(item.path)):
            raise Refused(409, f"{item.path.name!r}: a list of files can't hold a path with a line end")


def _zipped(selection: Selection, images: Images) -> IO[bytes]:
    """An open file without a name, which ends with whoever reads it."""
    copied = 0

    def copy(item: Item, to: Path) -> None:
        nonlocal copied
        content = _checked(images[item.image_id])
        copied += len(content)
        if copied > limits.EXPORTED_BYTES:
            raise Refused(413, f"the pictures have more than {limits.EXPORTED_BYTES} bytes: export fewer, or as COCO")
        to.write_bytes(content)

    made = TemporaryFile()  # noqa: SIM115 (closed by its reader)
    with TemporaryDirectory() as folder, zipfile.ZipFile(made, "w") as zipped:
        write_fiftyone(selection, Path(folder), copy)
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                zipped.write(file, file.relative_to(folder))
                file.unlink()
    return made


def _checked(image: Described) -> bytes:
    """The picture, if it still is what was indexed."""
    try:
        return picture_bytes(image.file)
    except Refused as refused:
        raise Refused(409, f"{image.name}: {refused.detail}") from None


def _read(made: IO[bytes]) -> Iterator[bytes]:
    with made:
        made.seek(0)
        while chunk := made.read(_CHUNK):
            yield chunk
