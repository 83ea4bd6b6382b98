"""Images and labels of any format that is known, told apart by what lies there."""

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

_FEDERATED = b'"neg_category_ids"'  # LVIS says which classes were looked for in vain; COCO has no such word


def load_source(source: SourceConfig, cache: Path | None = None) -> Annotations:
    """cache: a folder for compact copies of JSON files, or None. Raises ValueError as the format's loader does."""
    place, images, kind = source.annotations, source.image_folder, format_of(source)
    if source.subset is not None and kind not in ("yolo", "voc"):
        raise ValueError(f"{place}: a subset is of YOLO and Pascal VOC data, this is {kind}: {source.subset!r}")
    if source.images is not None and kind in ("yolo", "voc", "folder"):
        raise ValueError(f"{place}: {kind} data say themselves where pictures are, not `images: {source.images}`")
    match kind:
        case "coco":
            return cached_annotations(place, images, "coco", load_coco, cache)
        case "lvis":
            return cached_annotations(place, images, "lvis", load_lvis, cache)
        case "nuimages":
            return load_nuimages(place, images)
        case "yolo":
            return load_yolo(place, source.subset or "train")
        case "voc":
            return load_voc(place, source.subset)
        case "csv":
            return load_csv(place, images)
        case _:
            return load_image_folder(place)


def format_of(source: SourceConfig) -> Format:
    """Never auto. Raises ValueError for a place that is not there or has nothing known in it."""
    place = source.annotations
    if source.format != "auto":
        return source.format
    if place.is_dir():
        if (place / "object_ann.json").exists():
            return "nuimages"
        return "voc" if (place / "Annotations").is_dir() else "folder"
    if not place.is_file():
        raise ValueError(f"{place}: no such annotation file or folder")
    match place.suffix.lower():
        case ".csv":
            return "csv"
        case ".yaml" | ".yml":
            return "yolo"
        case ".json":
            return "lvis" if _holds(place, _FEDERATED) else "coco"
    raise ValueError(f"{place}: its format can't be told from the name; say it under `format`")


def source_name(source: SourceConfig) -> str:
    """What a report calls it: the file without its ending, or the folder."""
    place = source.annotations
    return place.name if place.is_dir() else place.stem


def _holds(file: Path, word: bytes) -> bool:
    if not file.stat().st_size:
        return False
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(word) >= 0
