"""Export a search, verdicts or a selection as a download. These files contain the pictures' paths."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copyfileobj
from tempfile import TemporaryDirectory, TemporaryFile
from threading import BoundedSemaphore
from typing import IO, Annotated, Any
from urllib.parse import quote

from anyio import CapacityLimiter
from fastapi import APIRouter, Form, Query
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse

from forclip.data.images.decode import UnreadableImage
from forclip.data.images.frame_location import split_frame
from forclip.location import parse_location
from forclip.search.export import FOLDER_WRITERS, FORMATS, broken_names, frames_folder
from forclip.search.export_pictures import stage_pictures, write_frames
from forclip.search.request import SearchAnswer
from forclip.search.selection import Item, Selection
from forclip.server import limits
from forclip.server.errors import Refused
from forclip.server.gallery import StoredImage
from forclip.server.pictures import picture_bytes
from forclip.server.schemas import (
    ExportBody,
    Format,
    Problem,
    SearchText,
    SimilarExportBody,
    UploadExportBody,
    VerdictsBody,
)
from forclip.server.search_routes import SearchService
from forclip.server.selections import SelectionName, Selections
from forclip.server.threads import in_threads
from forclip.types import SearchResult

_FILE_TYPES: dict[Format, tuple[str, str]] = {
    "coco": ("json", "application/json"),
    "csv": ("csv", "text/csv; charset=utf-8"),
    "cvat": ("zip", "application/zip"),
    "fiftyone": ("zip", "application/zip"),
    "files": ("txt", "text/plain; charset=utf-8"),
    "labelstudio": ("json", "application/json"),
    "yolo": ("zip", "application/zip"),
}
LEFT_OUT = "Forclip-Left-Out"  # header: how many images the file does not hold and why, percent-encoded
_NAME_CHARACTERS = 80  # of a file's name
_EXPORTS = 4  # at a time; each has all its images in memory
_zipping = BoundedSemaphore(2)  # each may take twice EXPORTED_BYTES of disk while it runs

Images = Mapping[str, StoredImage]  # by image id
FormatQuery = Annotated[
    Format,
    Query(
        description="coco, labelstudio: JSON; csv: one row per image; cvat, fiftyone, yolo: a zip with the pictures; "
        "files: one path per line."
    ),
]
LabelQuery = Annotated[
    SearchText | None, Query(description="What the images show; adds the region that matches it in each.")
]


def export_routes(service: SearchService, selections: Selections) -> APIRouter:
    """Routes below /api."""
    routes = APIRouter(prefix="/api", tags=["export"], responses={s: {"model": Problem} for s in (404, 409)})
    gallery, exporting = service.gallery, in_threads(CapacityLimiter(_EXPORTS))

    def export_list(
        answer: SearchAnswer,
        results: Sequence[SearchResult],
        leave_out: Sequence[str],
        label: str,
        format: Format,
        name: str,
    ) -> Response:
        """leave_out: keys; name: of the file."""
        left_out = set(leave_out)
        kept = [result for result in results if str(result.key) not in left_out]
        by_key = gallery.by_key([result.key for result in kept])
        images = {image.row["id"]: image for image in by_key.values()}
        items = [
            _item(by_key[r.key], score=r.score, probability=answer.probability(r), box=r.box)
            for r in kept
            if r.key in by_key
        ]
        return _download(Selection(tuple(items), label), format, images, name)

    @routes.post("/export", response_class=Response)
    @exporting
    def export_search(body: ExportBody) -> Response:
        """Export the list that POST /api/search returns for the same request."""
        answer = service.answer(service.request(body))
        results, name = service.above(answer, body.min_probability), f"{answer.request.label} results"
        return export_list(answer, results, body.leave_out, body.label or answer.request.label, body.format, name)

    @routes.post("/export/similar", response_class=Response, responses={415: {"model": Problem}})
    @exporting
    def export_similar(body: SimilarExportBody) -> Response:
        """Export the list that POST /api/similar returns for the same request."""
        answer = service.answer(service.request(body))
        first, count = gallery.one(body.liked[0]), len(body.liked)
        name = (
            f"like {'a region of ' if body.box else ''}{Path(first.name).stem}"
            if count == 1
            else f"like {count} images"
        )
        return export_list(answer, answer.results, body.leave_out, body.label or "", body.format, name)

    @routes.post("/export/upload", response_class=Response)
    @exporting
    def export_like_upload(body: Annotated[UploadExportBody, Form(media_type="multipart/form-data")]) -> Response:
        """Export the list that POST /api/similar/upload returns for the same request."""
        answer = service.answer(service.upload_request(body))
        name = f"like {Path(body.picture.filename or 'an upload').stem}"
        return export_list(answer, answer.results, (), body.label or "", body.format, name)

    @routes.post("/export/verdicts", response_class=Response)
    @exporting
    def export_verdicts(body: VerdictsBody) -> Response:
        """Export verdicts as the CSV that a run's `data: {verdicts: FILE}` reads."""
        verdicts = dict.fromkeys(gallery.ids_of_keys(body.right), True)
        verdicts |= dict.fromkeys(gallery.ids_of_keys(body.wrong), False)
        images = gallery.by_id(list(verdicts))
        items = [_item(images[i], present=present) for i, present in verdicts.items() if i in images]
        return _download(Selection(tuple(items), body.label), "csv", images, f"{body.label} verdicts", has_frames=False)

    @routes.get("/selections/{name}/export", response_class=Response)
    @exporting
    def export_selection(name: SelectionName, format: FormatQuery = "csv", text: LabelQuery = None) -> Response:
        """Export a selection in its own order, or with a text the best matches first."""
        ids = selections.one(name)
        images = gallery.by_id(ids)
        present = [i for i in ids if i in images]
        if text is None:
            return _download(Selection(tuple(_item(images[i]) for i in present)), format, images, f"{name} selection")
        results = gallery.index.search_among(present, service.searcher.encode_text(text))
        items = tuple(_item(images[r.image_id], score=r.score, box=r.box) for r in results)
        return _download(Selection(items, text), format, images, f"{name} selection")

    return routes


def _item(image: StoredImage, **others: Any) -> Item:
    """others: further fields of the item."""
    file = image.file
    return Item(image.row["id"], parse_location(file.uri), file.width, file.height, own=image.own, **others)


def _file_name(name: str, format: Format, ending: str) -> str:
    """A file name that says what it holds, such as red_umbrella_results_coco.json: letters, digits and _."""
    format_name = "" if format in ("csv", "files") else f" {format}"
    return re.sub(r"\W+", "_", name[:_NAME_CHARACTERS] + format_name).strip("_") + f".{ending}"


def _download(
    selection: Selection, format: Format, images: Images, name: str, has_frames: bool | None = None
) -> Response:
    """A selection as a file to download. images: by id; name: what it holds; has_frames: of videos; None: if there are.

    Raises:
        Refused: 404 without an image, 409 where the format can hold none of them or needs a size that is unknown, 413
            for too many bytes of pictures, 503 for a picture that can't be fetched. Messages name files without folder.

    Images whose picture is gone or has changed are left out, which the header LEFT_OUT says.
    """
    if not selection.items:
        raise Refused(404, "there is no image to export")
    for item in selection.items:
        needs_size = format == "cvat" or (format in ("coco", "csv", "labelstudio") and item.box is not None)
        if needs_size and not (item.width > 0 and item.height > 0):
            raise Refused(409, f"{item.path.name}: the store does not know its size in pixels: index it again")
    if format == "yolo" and not (selection.label and all(item.box for item in selection.items)):
        raise Refused(409, "a YOLO dataset needs a label, and the region that matches it in each image")
    left_out = broken_names(selection) if format == "files" else {}
    selection = selection.without(left_out)
    if has_frames is None:
        has_frames = any(split_frame(item.path) for item in selection.items)
    ending, media_type = _FILE_TYPES["fiftyone" if has_frames else format]
    file_name = _file_name(name, format, ending)
    named = f'filename="{file_name}"' if file_name.isascii() else f"filename*=utf-8''{quote(file_name)}"
    # As an attachment, so that no browser displays it. Not compressed, so that its length is known for a progress bar.
    headers = {"Content-Disposition": f"attachment; {named}", "Content-Encoding": "identity"}
    if format in FOLDER_WRITERS or has_frames:
        with _zipping:
            output, missing = _zip(selection, images, format, Path(file_name).stem)
        left_out |= missing
    elif not selection.items:
        raise Refused(409, next(iter(left_out.values())))
    else:
        output = TemporaryFile()  # noqa: SIM115 (closed once it is sent)
        with TemporaryDirectory() as folder:
            FORMATS[format](selection, Path(folder) / "list")
            with (Path(folder) / "list").open("rb") as written:
                copyfileobj(written, output)
    headers["Content-Length"] = str(output.tell())
    if left_out:
        headers[LEFT_OUT] = quote(f"{len(left_out)} left out, the first: {next(iter(left_out.values()))}")
    output.seek(0)
    chunks, close = iter(lambda: output.read(1 << 20), b""), BackgroundTask(output.close)
    return StreamingResponse(chunks, media_type=media_type, headers=headers, background=close)


def _zip(selection: Selection, images: Images, format: Format, name: str) -> tuple[IO[bytes], dict[str, str]]:
    """An open file without a name, which is deleted when it is closed; and by image id why a picture is left out.

    It holds the folder of a format with pictures, or a file with the frames of videos that it names.
    """
    copied = 0

    def copy(item: Item, to: Path) -> None:
        nonlocal copied
        image = images[item.image_id]
        try:
            content = picture_bytes(image.file)
        except Refused as error:
            message = f"{image.name}: {error.detail}"
            if error.status_code == 503:  # the network failed: the picture may be there
                raise Refused(503, message) from None
            raise UnreadableImage(message) from None
        copied += len(content)
        if copied > limits.EXPORTED_BYTES:
            raise Refused(413, f"the pictures have more than {limits.EXPORTED_BYTES} bytes: export fewer, or as COCO")
        to.write_bytes(content)

    output = TemporaryFile()  # noqa: SIM115 (closed once it is sent)
    with TemporaryDirectory() as folder, zipfile.ZipFile(output, "w") as zipped:
        needed = (item for item in selection.items if format in FOLDER_WRITERS or split_frame(item.path))
        place, missing = stage_pictures(needed, Path(folder) / "pictures", copy)
        selection = selection.without(missing)
        if not selection.items:
            raise Refused(409, next(iter(missing.values())))
        (top := Path(folder) / "written").mkdir()
        if format in FOLDER_WRITERS:
            top /= name
            try:
                FOLDER_WRITERS[format](selection, top, place)
            except ValueError as error:
                raise Refused(409, str(error)) from None
        else:
            to = top / f"{name}.{_FILE_TYPES[format][0]}"
            frames = frames_folder(to)
            named = zip(selection.items, write_frames(selection, frames, place), strict=True)
            items = tuple(replace(i, name=f"{frames.name}/{file}") if file else i for i, file in named)
            FORMATS[format](replace(selection, items=items), to)
        for file in sorted(top.rglob("*")):
            if file.is_file():
                zipped.write(file, file.relative_to(top))
                file.unlink()
    return output, missing
