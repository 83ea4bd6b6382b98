"""Detect the format of a source's labels."""

import mmap

from forclip.config import Format, SourceConfig
from forclip.data.formats.recognise import is_cvat, is_label_studio, labelled_folder_format, refuse_foreign_tool


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
        return labelled_folder_format(path) or "folder"
    if not path.is_file():
        raise ValueError(f"{path}: no such annotation file or folder")
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return "csv"
        case ".yaml" | ".yml" | ".data":
            return "yolo"
        case ".json" if path.stat().st_size:
            refuse_foreign_tool(path)
            if is_label_studio(path):
                return "labelstudio"
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                # In every LVIS file and in no COCO file; in UTF-16 with a zero between the letters.
                marks = (b'"neg_category_ids"', "neg_category_ids".encode("utf-16-le")[:-1])
                return "lvis" if any(content.find(mark) >= 0 for mark in marks) else "coco"
        case ".json":
            return "coco"
        case ".xml" if is_cvat(path):
            return "cvat"
        case ".xml":
            raise ValueError(f"{path}: is one file of a Pascal VOC dataset; give the folder that holds all of them")
        case ".txt":
            raise ValueError(f"{path}: for YOLO give the data YAML or the dataset's folder, not a text file")
    if path.name.lower().endswith((".csv.gz", ".tsv.gz")):
        return "csv"
    raise ValueError(f"{path}: unknown format; save a table as CSV, or set `format`")
