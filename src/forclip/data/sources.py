"""Load images and labels of any known format.

To add a format: write a loader in forclip.data.formats, add its name to forclip.config.Format, and a case to
`load_source`; add a case to `format_of` if the format can be recognised.
"""

import mmap
from pathlib import Path

from forclip.config import Format, SourceConfig
from forclip.data.annotation_cache import cached_annotations
from forclip.data.formats.coco import load_coco
from forclip.data.formats.csv_labels import load_csv
from forclip.data.formats.folder import load_image_folder
from forclip.data.formats.lvis import load_lvis
from forclip.data.formats.nuimages import load_nuimages
from forclip.data.formats.voc import load_voc
from forclip.data.formats.yolo import load_yolo
from forclip.types import Annotations


def load_source(source: SourceConfig, cache: Path | None = None) -> Annotations:
    """Load a source. cache: a folder for compact copies of JSON files, or None.

    Raises ValueError as the format's loader does, and for an option that the format doesn't have.
    """
    annotations, images, kind = source.annotations, source.image_folder, format_of(source)
    if source.subset is not None and kind not in ("yolo", "voc"):
        raise ValueError(f"{annotations}: only yolo and voc data have a subset, not {kind}: {source.subset!r}")
    if source.images is not None and kind in ("yolo", "voc", "folder"):
        raise ValueError(f"{annotations}: {kind} data define where images are; remove `images: {source.images}`")
    match kind:
        case "coco" | "lvis":
            load = load_coco if kind == "coco" else load_lvis
            return cached_annotations(annotations, images, kind, load, cache)
        case "nuimages":
            return load_nuimages(annotations, images)
        case "yolo":
            return load_yolo(annotations, source.subset or "train")
        case "voc":
            return load_voc(annotations, source.subset)
        case "csv":
            return load_csv(annotations, images)
        case _:
            return load_image_folder(annotations)


def format_of(source: SourceConfig) -> Format:
    """The configured format; `auto` is detected from the files.

    Raises ValueError for a path that is missing or has no known format.
    """
    path = source.annotations
    if source.format != "auto":
        return source.format
    if path.is_dir():
        if (path / "object_ann.json").exists():
            return "nuimages"
        return "voc" if (path / "Annotations").is_dir() else "folder"
    if not path.is_file():
        raise ValueError(f"{path}: no such annotation file or folder")
    match path.suffix.lower():
        case ".csv":
            return "csv"
        case ".yaml" | ".yml":
            return "yolo"
        case ".json" if path.stat().st_size:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                # In every LVIS file and in no COCO file.
                return "lvis" if content.find(b'"neg_category_ids"') >= 0 else "coco"
        case ".json":
            return "coco"
    raise ValueError(f"{path}: unknown format; set `format`")


def source_name(source: SourceConfig) -> str:
    """A source's name in reports: the file without its suffix, or the folder."""
    path = source.annotations
    return path.name if path.is_dir() else path.stem
