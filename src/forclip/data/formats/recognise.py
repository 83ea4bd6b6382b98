"""Recognise label files and dataset folders by what they hold."""

import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

from forclip.data.formats.dataset_files import image_suffixes, is_hidden
from forclip.data.formats.split_words import SPLIT_WORDS
from forclip.data.formats.voc_files import XML_FOLDERS
from forclip.data.formats.yolo_dataset import class_file_in, data_files_in

_LOOKED_AT = 20_000  # files of a folder, enough to recognise it
_SAMPLED = 20  # files of a kind whose content is looked at
_HEAD = 1 << 16  # bytes of a file
_YOLO_LINE = re.compile(rb"\s*\d+(\.0+)?([\s,;]+-?[\d.]+(e-?\d+)?){4,}\s*(\r|\n|$)", re.IGNORECASE)

# What is in the first bytes of the files of tools whose own formats are not read.
_TOOLS: dict[str, tuple[bytes, ...]] = {
    "LabelMe": (b'"shapes"', b'"flags"'),
    "VGG Image Annotator (VIA)": (b'"shape_attributes"', b'"region_attributes"'),
    "CreateML": (b'"coordinates"', b'"label"', b'"annotations"'),
    "Datumaro": (b'"items"', b'"categories"', b'"label_id"'),
    "Labelbox": (b'"data_row"',),
    "Supervisely": (b'"classTitle"',),
    "BDD100K": (b'"box2d"',),
    "V7 Darwin": (b'"bounding_box"', b'"annotations"', b'"item"'),
}
_EXPORT = "export COCO, YOLO or Pascal VOC from the tool instead"


def foreign_tool(file: Path) -> str | None:
    """The tool that wrote a label file in a format of its own, or None."""
    head = _read_head(file)
    if b'"images"' in head:  # COCO, whatever else its entries have
        return None
    return next((tool for tool, marks in _TOOLS.items() if all(mark in head for mark in marks)), None)


def refuse_foreign_tool(file: Path) -> None:
    """Raise ValueError, naming the tool and what to export instead, for a label file in a tool's own format."""
    if tool := foreign_tool(file):
        raise ValueError(f"{file}: is in {tool} format, which is not read; {_EXPORT}")


def is_cvat(file: Path) -> bool:
    """Whether an XML file is in CVAT's own format."""
    return re.search(rb"<annotations[\s>]", _read_head(file)) is not None


def is_label_studio(file: Path) -> bool:
    """Whether a JSON file is an export of Label Studio, as JSON or JSON-MIN."""
    head = _read_head(file)
    if not head.lstrip().startswith(b"["):
        return False
    marks = ((b'"result"', b'"from_name"'), (b'"annotation_id"', b'"annotator"'), (b'"rectanglelabels"',))
    kinds = (b'"annotations"', b'"completions"', b'"predictions"')
    return any(all(m in head for m in some) for some in marks) or (b'"data"' in head and any(k in head for k in kinds))


def label_studio_file_in(folder: Path) -> Path | None:
    """The only export of Label Studio directly in a folder, or None."""
    files = [file for file in islice(sorted(folder.glob("*.json")), _SAMPLED) if is_label_studio(file)]
    return files[0] if len(files) == 1 else None


def labelled_folder_format(folder: Path) -> Literal["cvat", "labelstudio", "voc", "yolo"] | None:
    """The format of a folder that holds Pascal VOC's XML files, a YOLO dataset or another tool's export, or None."""
    if is_cvat(folder / "annotations.xml"):
        return "cvat"
    if label_studio_file_in(folder):
        return "labelstudio"
    if data_files_in(folder):
        return "yolo"
    if any(name.lower() in XML_FOLDERS[:2] for name in os.listdir(folder)) and _has_xml_folder(folder):
        return "voc"
    xml_files = (file for file in _first_files(folder) if file.suffix.lower() == ".xml")
    if any(_is_voc(file) for file in islice(xml_files, _SAMPLED)):
        return "voc"
    return "yolo" if class_file_in(folder) and _has_yolo_labels(folder) else None


def label_files_in(folder: Path) -> list[Path]:
    """The COCO, CVAT, Label Studio and CSV label files near the top of a folder, judging by their beginning."""
    return [file for file in _first_files(folder) if _is_label_file(file)]


def _is_label_file(file: Path) -> bool:
    match file.suffix.lower():
        case ".json":
            head = _read_head(file)
            is_coco = b'"annotations"' in head and (b'"categories"' in head or b'"image_id"' in head)
            return is_coco or is_label_studio(file)
        case ".csv":
            columns = re.split(rb"[,;\t]", _read_head(file).partition(b"\n")[0].strip().lower())
            names = {column.strip(b'" ') for column in columns}
            has_label = bool(names & {b"label", b"labels", b"class", b"classes"})
            return has_label or file.stem in ("_classes", "_annotations")
        case ".xml":
            return is_cvat(file)
    return False


def refuse_unread_labels(folder: Path) -> None:
    """Raise ValueError, saying what was seen and how to name it, for a folder of images with label files among them."""
    texts: list[Path] = []
    json_files = 0
    for file in _first_files(folder):
        match file.suffix.lower():
            case ".json" if (json_files := json_files + 1) <= _SAMPLED:  # photo services write one for each photo
                refuse_foreign_tool(file)
            case ".txt":
                if file.name == "_annotations.txt":
                    raise ValueError(f"{folder}: {file} has the format of Keras' YOLO, which is not read; {_EXPORT}")
                texts.append(file)
            case "" if _is_voc(file):
                raise ValueError(f"{folder}: has Pascal VOC labels in {file}; add .xml to the names of these files")
        if (file.suffix.lower() != ".json" or json_files <= _SAMPLED) and _is_label_file(file):
            raise ValueError(f"{folder}: has labels in {file}; give that file as the annotations")
    labels = [file for file in texts[:_SAMPLED] if _YOLO_LINE.match(_read_head(file))]
    if labels:
        problem = f"has YOLO labels such as {labels[0]}, but no class names; add data.yaml or classes.txt"
        raise ValueError(f"{folder}: {problem}, or set `format: folder` to ignore them")


def describe_class_folders(source: Path) -> str:
    """How to write labels for a folder whose sub-folders may be classes, as a part of a sentence. Empty for others."""
    if not source.is_dir():
        return ""
    pictures = [file.relative_to(source) for file in _first_files(source) if file.suffix.lower() in image_suffixes()]
    depth = 1 if all(picture.parts[0] in {w for words in SPLIT_WORDS for w in words} for picture in pictures) else 0
    if not pictures or any(len(picture.parts) < depth + 2 for picture in pictures):
        return ""
    names = sorted({picture.parts[depth] for picture in pictures})
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    example = f"{pictures[0].as_posix()},{pictures[0].parts[depth]}"
    problem = f"if its sub-folders ({shown}) are classes, write them to a CSV file in this folder"
    return f"{problem}: the line image,label and then one for each picture, such as {example}"


def _has_xml_folder(folder: Path) -> bool:
    """Whether a folder for XML files is empty or holds one: `annotations` is also where COCO keeps its JSON files."""
    for name in os.listdir(folder):
        if name.lower() in XML_FOLDERS[:2] and (folder / name).is_dir():
            files = list(_first_files(folder / name))
            if not files or any(file.suffix.lower() == ".xml" for file in files):
                return True
    return False


def _is_voc(file: Path) -> bool:
    return re.search(rb"<(\w+:)?annotation[\s>/]", _read_head(file)) is not None


def _has_yolo_labels(folder: Path) -> bool:
    texts = (file for file in _first_files(folder) if file.suffix.lower() == ".txt")
    return any(_YOLO_LINE.match(_read_head(file)) for file in islice(texts, _SAMPLED))


def _first_files(folder: Path) -> Iterator[Path]:
    """The files near the top of a folder, without hidden ones; not all of a very large one."""
    seen, waiting = 0, [str(folder)]
    while waiting and seen < _LOOKED_AT:
        try:
            entries = sorted(os.scandir(waiting.pop(0)), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in (entry for entry in entries if not is_hidden(entry.name)):
            seen += 1
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                yield Path(entry.path)


def _read_head(file: Path) -> bytes:
    """The first bytes, without the zeros of UTF-16. Empty if the file can't be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD).replace(b"\0", b"").removeprefix(b"\xef\xbb\xbf")
    except OSError:
        return b""
