"""Copy what readers need of a source at a URL: its label files, and the names of its pictures."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

from forclip.config import Format, SourceConfig
from forclip.data.folder_copy import FolderCopy
from forclip.data.formats.csv_shapes import CLASS_DESCRIPTIONS
from forclip.data.formats.dataset_files import names_in
from forclip.data.formats.recognise import refuse_unread_labels
from forclip.data.formats.voc_files import XML_FOLDERS
from forclip.data.images.image_sizes import image_sizes
from forclip.data.local_copy import local_copy
from forclip.data.source_format import format_of
from forclip.file_systems import Unreachable, is_folder
from forclip.location import Location, as_location, is_at_url
from forclip.types import Annotations

_LINE = 1 << 16  # bytes of a header at most
_DATA_FILES = (".yaml", ".yml", ".data")  # of YOLO datasets, which name files around them
_LABEL_FILES = (".json", ".csv", ".tsv", ".gz", ".xml", ".txt", ".jsonl")
_READ: dict[Format, tuple[str, ...]] = {  # endings of what a format's reader reads
    "yolo": (".txt", ".names", ".labels", *_DATA_FILES),
    "voc": (".xml", ".txt"),
    "cvat": (".xml",),
    "labelstudio": (".json",),
    "nuimages": (".json",),
}


class SourceCopy:
    """A source on this machine, for as long as the block lasts; the source itself if its labels are here.

    is_unlabelled_folder: whether the source is a URL of pictures without labels, which is listed where it is.
    """

    def __init__(self, source: SourceConfig, only_recognise: bool = False) -> None:
        """only_recognise: copy no more than `format_of` needs."""
        self.source = source
        self.is_unlabelled_folder = False
        self._only_recognise = only_recognise
        self._stack = ExitStack()
        self._copies: list[FolderCopy] = []
        self._renamed: list[tuple[str, str]] = []

    def __enter__(self) -> "SourceCopy":
        """Raises ValueError for a source that is missing or can't be fetched, and as `format_of` does."""
        try:
            if is_at_url(self.source.annotations):
                self._copy_labels()
            if self.source.images is not None and is_at_url(self.source.images) and not self.is_unlabelled_folder:
                self._copy_picture_names()
        except BaseException as error:
            self._stack.close()
            self._reword(error)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is not None:
            self._reword(error)

    def image_sizes(self, paths: Sequence[Path]) -> list[tuple[int, int] | None]:
        """Return the size of each picture, as `image_sizes` does, wherever it is."""
        return image_sizes([self._location(path) for path in paths])

    def at_urls(self, loaded: Annotations) -> Annotations:
        """Return what was loaded from the copy with the names of the source."""
        skipped = [replace(e, entry=self._named(e.entry), value=self._named(e.value)) for e in loaded.skipped]
        skipped += (entry for copy in self._copies for entry in copy.left_out)
        return replace(loaded, paths=tuple(map(self._location, loaded.paths)), skipped=tuple(skipped))

    def _copy_labels(self) -> None:
        given = self.source.annotations
        location, suffix = as_location(given), given.suffix.lower()
        if suffix in _DATA_FILES:
            copy = self._copy_folder(given.parent)
            if not (copy.folder / given.name).is_file():
                raise ValueError(f"{location}: no such file")
            self.source = replace(self.source, annotations=copy.folder / given.name)
            self._fill(copy, "yolo")
        elif suffix in _LABEL_FILES or not _is_folder(given):
            file = self._stack.enter_context(local_copy(given))
            self._renamed.append((str(file), str(location)))
            self.source = replace(self.source, annotations=file)
            if suffix == ".csv" and not self._only_recognise:
                self._copy_class_names(given, file)
            if self.source.images is None:
                own_images = given.parent / "images"
                has_own = format_of(self.source) == "cvat" and _is_folder(own_images)
                self.source = replace(self.source, images=own_images if has_own else given.parent)
        else:
            is_part = given.name.lower() in XML_FOLDERS  # its pictures are in another folder next to it
            copy = self._copy_folder(given.parent if is_part else given, only_labels=True)
            folder = copy.folder / given.name if is_part else copy.folder
            self.source = replace(self.source, annotations=folder)
            kind = format_of(self.source)
            if kind == "folder":
                if self.source.format == "auto":
                    refuse_unread_labels(folder)
                self.is_unlabelled_folder = not self._only_recognise
            else:
                self._fill(copy, kind)

    def _copy_class_names(self, given: Path, file: Path) -> None:
        """Copy the names of Open Images' classes next to a label file of Open Images."""
        with file.open("rb") as content:
            is_open_images = b"labelname" in content.readline(_LINE).replace(b"\0", b"").lower()
        for name in names_in(given.parent) if is_open_images else ():
            if CLASS_DESCRIPTIONS in name and name.endswith(".csv") and name != file.name:
                copy = self._stack.enter_context(local_copy(given.with_name(name)))
                copy.rename(file.with_name(name))

    def _copy_picture_names(self) -> None:
        """Readers of YOLO and Pascal VOC list the folder of pictures; those of other formats list it at its URL."""
        if format_of(self.source) in ("yolo", "voc") and self.source.images is not None:
            copy = self._copy_folder(self.source.images)
            self.source = replace(self.source, images=copy.folder)

    def _copy_folder(self, folder: Path, only_labels: bool = False) -> FolderCopy:
        temporary = self._stack.enter_context(TemporaryDirectory(prefix="forclip-"))
        target = Path(temporary, folder.name)  # the name says what the folder holds
        target.mkdir()
        copy = FolderCopy(str(as_location(folder)), target, only_labels)
        self._copies.append(copy)
        self._renamed.append((str(target), copy.url))
        return copy

    def _fill(self, copy: FolderCopy, kind: Format) -> None:
        if not self._only_recognise:
            copy.fill(_READ.get(kind, ()))

    def _location(self, path: Location) -> Location:
        for copy in self._copies:
            path = copy.location(path)
        return path

    def _named(self, text: str) -> str:
        """Name the URLs in a message in place of their copies."""
        for copy, url in self._renamed:
            text = text.replace(copy, url)
        return text

    def _reword(self, error: BaseException) -> None:
        if isinstance(error, ValueError):
            error.args = (self._named(str(error)),)


def _is_folder(path: Path) -> bool:
    url = str(as_location(path))
    try:
        return is_folder(url)
    except Unreachable as error:
        raise ValueError(str(error)) from None
