"""List the pictures and videos of a source: a folder, file, pattern, address, or annotations of any known format."""

import glob
from pathlib import Path

from forclip.config import SourceConfig
from forclip.data.images.frame_location import is_video
from forclip.data.images.listing import VIDEO, Listing, list_pictures
from forclip.data.images.picture_types import is_picture_name
from forclip.data.images.remote_listing import expand_braces
from forclip.data.source_format import format_of
from forclip.data.sources import load_source, with_all_splits
from forclip.file_systems import Unreachable, file_info, is_folder
from forclip.location import Location, is_shard, parse_location

_LABEL_FILES = (".json", ".csv", ".tsv", ".csv.gz", ".tsv.gz", ".xml", ".yaml", ".yml", ".data")


def list_source(source: str, images: Path | None, may_be_missing: bool) -> tuple[Listing, list[Location]]:
    """List the pictures and the videos of a source. A damaged annotation file is always an error."""
    try:
        listing = find_images(source, images)
    except ValueError:
        if not may_be_missing or Path(source).is_file():
            raise
        listing = Listing((), {}, {})
    videos = [parse_location(video) for video in listing.left_out.pop(VIDEO, ())]
    if not listing.pictures and not videos and not may_be_missing:
        raise ValueError(listing.why_empty(source))
    return listing, videos


def find_images(source: str, images: Path | None) -> Listing:
    """List the images of a folder, picture, video or glob pattern, or annotations of any known format.

    images: image folder of an annotation file. Raises ValueError for a source that is missing, or annotations that
    can't be read. A folder without images gives an empty listing.
    """
    if not source.strip():
        raise ValueError(f"{source!r}: no folder, pattern or file")
    path = parse_location(source)
    if not isinstance(path, Path):
        is_labels = path.name.lower().endswith(_LABEL_FILES) and not glob.has_magic(source)
        if is_labels or images is not None or (path.is_remote and _keeps_other_pictures_at(source)):
            return Listing(load_source(with_all_splits(SourceConfig(Path(source), images))).paths, {}, {})
        if is_video(path):
            return Listing((), {VIDEO: (source,)}, {})
        return list_pictures(source)
    source = str(path)
    if path.is_file() and is_video(path):
        return Listing((), {VIDEO: (source,)}, {})
    is_pattern = glob.has_magic(source) and not path.exists()
    if len(expand_braces(source)) > 1 or (path.is_file() and is_shard(source)):
        return list_pictures(source)
    if is_pattern or is_picture_name(source) or (path.is_dir() and images is None and not _keeps_other_pictures(path)):
        listing = list_pictures(source)
        # A folder of labels, such as Pascal VOC's Annotations, has its pictures next to it.
        if listing.pictures or not path.is_dir() or format_of(SourceConfig(path)) == "folder":
            return listing
    if not path.exists():
        raise ValueError(f"{source}: no such folder or file")
    return Listing(load_source(with_all_splits(SourceConfig(path, images))).paths, {}, {})


def _keeps_other_pictures_at(url: str) -> bool:
    """As `_keeps_other_pictures`, of a folder at a URL, by a few requests."""
    try:
        base = url.rstrip("/")
        return all(is_folder(f"{base}/{name}") for name in ("JPEGImages", "Annotations")) or (
            file_info(f"{base}/object_ann.json") is not None
        )
    except (Unreachable, ValueError):  # listing it says so
        return False


def _keeps_other_pictures(folder: Path) -> bool:
    """Whether a folder has pictures that are not its images: nuImages' other frames, Pascal VOC's masks."""
    kind = format_of(SourceConfig(folder))
    return kind == "nuimages" or (
        kind == "voc" and any(any(folder.glob(pattern)) for pattern in ("JPEGImages", "*/JPEGImages"))
    )
