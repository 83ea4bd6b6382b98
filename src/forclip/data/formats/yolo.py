"""YOLO text labels in Ultralytics' layout: a data YAML, image folders or lists, and one .txt per image."""

import warnings

# Not Path's methods: they raise for a name that is too long.
from os.path import exists, isdir, isfile
from pathlib import Path
from reprlib import repr as shortened  # YAML's aliases can make a short file endless when it is printed
from typing import Any

import numpy as np
import yaml
from PIL import Image

from forclip.data.formats.common import LabelledObject, annotations_of_objects, path_inside
from forclip.data.formats.folder import list_images
from forclip.types import Annotations

_TOLERANCE = 1e-3  # what rounding in an exporter may add to a fraction of 1


def load_yolo(data_yaml: Path, split: str) -> Annotations:
    """Load images sorted by id (the path relative to the dataset's folder), with classes in the order of their index.

    split: train, val or test, if the YAML has it. Boxes are fractions and are scaled by the size in the image's header,
    without applying its EXIF orientation (Ultralytics' own loader does apply it). Polygons become their bounding boxes;
    lines with keypoints would be taken for polygons. An image that can't be read keeps its labels and has no boxes; an
    image without a label file shows nothing.
    Layout: docs.ultralytics.com/datasets/detect. Raises ValueError, naming the file and the entry or line, for a
    malformed YAML, an unknown split, an image outside the dataset's folder, or a malformed label.
    """
    content = _read_yaml(data_yaml)
    folder = _dataset_folder(data_yaml, content)
    names = _class_names(data_yaml, content)
    paths = _image_paths(data_yaml, content, folder, split)
    column = {index: k for k, index in enumerate(names)}
    ids = sorted(paths)
    objects: list[LabelledObject] = []
    for row, image_id in enumerate(ids):
        labels = _read_labels(label_file(paths[image_id]), column)
        size = _image_size(paths[image_id]) if labels else None
        objects += [
            (row, k, None if size is None else [*np.multiply(fractions, [*size, *size])]) for k, fractions in labels
        ]
    return annotations_of_objects(ids, [paths[i] for i in ids], list(names.values()), objects)


def label_file(image: Path) -> Path:
    """The label file of an image: the last folder called `images` becomes `labels`, and the suffix becomes .txt.

    If no folder is called `images`, the label file is next to the image.
    """
    parts = list(image.absolute().parts)
    folders = [k for k, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


class _UniqueKeys(yaml.SafeLoader):
    """Refuse a repeated key: PyYAML keeps the last, which would silently lose a class name."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise ValueError(f"line {key.start_mark.line + 1} has the key {shortened(key.value)} a second time")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[Any, Any]:
    try:
        content = yaml.load(file.read_bytes(), _UniqueKeys)
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    # For a value that doesn't fit its tag, PyYAML raises KeyError, AttributeError, IndexError and others.
    except Exception as error:
        raise ValueError(f"{file}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: a YOLO data file holds keys and values, not a {type(content).__name__}")
    return content


def _dataset_folder(file: Path, content: dict[Any, Any]) -> Path:
    """The folder under `path`, relative to the YAML's folder. It may be absolute or lead out of that folder."""
    name = content.get("path") or "."
    if not isinstance(name, str):
        raise ValueError(f"{file}: path is {shortened(name)}, not a folder")
    folder = file.parent / name
    if not isdir(folder):
        raise ValueError(f"{file}: path is {name!r}, but there is no folder {folder}")
    return folder


def _class_names(file: Path, content: dict[Any, Any]) -> dict[int, str]:
    """Class names by index, in ascending order."""
    given = content.get("names")
    entries = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(entries, dict) or not entries:
        raise ValueError(f"{file}: names is {shortened(given)}, not a list of class names")
    names: dict[int, str] = {}
    for index, name in entries.items():
        if type(index) is not int or index < 0:
            raise ValueError(f"{file}: names has the index {shortened(index)}, not a whole number from 0")
        # YAML reads a class called 7 as a number, which can be undone, and one called no or off as false.
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            raise ValueError(f"{file}: class {index} is called {shortened(name)}; quote a name that YAML misreads")
        if str(name) in names.values():
            raise ValueError(f"{file}: class {index} is called {str(name)!r}, as another is")
        names[index] = str(name)
    return {index: names[index] for index in sorted(names)}


def _image_paths(file: Path, content: dict[Any, Any], folder: Path, split: str) -> dict[str, Path]:
    """The images of a split by id, each once, even if several of the split's folders or lists hold it."""
    given = content.get(split)
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{file}: {split} is {shortened(given)}, not a folder, a list of folders or a list of images")
    paths: list[Path] = []
    for name in names:
        # Roboflow exports name ../train/images for a folder next to the YAML; Ultralytics accepts that too.
        is_roboflow = name.startswith("../") and exists(folder / name[3:])
        path = _within(folder, name[3:] if is_roboflow else name, f"{file}: {split}")
        if isdir(path):
            paths += list_images(str(path))
        elif path.suffix == ".txt" and isfile(path):
            paths += _read_image_list(path, folder)
        else:
            raise ValueError(f"{file}: {split} names {name!r}, but there is no such folder or list: {path}")
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _read_image_list(file: Path, folder: Path) -> list[Path]:
    """One image per line; ./ is relative to the list's own folder, other names to the dataset's."""
    try:
        # File names need not be UTF-8; surrogateescape keeps their bytes.
        lines = file.read_bytes().decode("utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise ValueError(f"{file}: not readable as a list of images: {error}") from None
    list_folder = file.parent.relative_to(folder).as_posix()
    paths = []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if name.startswith("./"):
            name = f"{list_folder}/{name[2:]}"
        if name:
            paths.append(_within(folder, name, f"{file}: line {number}"))
    return paths


def _within(folder: Path, name: str, where: str) -> Path:
    """Like `path_inside`, but accepts an absolute name inside the folder."""
    for start in (folder.absolute(), folder.resolve()):
        if Path(name).is_relative_to(start):
            name = Path(name).relative_to(start).as_posix()
    return path_inside(folder, name, where)


def _read_labels(file: Path, column: dict[int, int]) -> list[tuple[int, list[float]]]:
    """The class column and the box of each line; boxes are xyxy in fractions of the image."""
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as text: {error}") from None
    numbered = [(number, line.split()) for number, line in enumerate(lines, start=1)]
    return [_parse_label(f"{file}: line {number}", words, column) for number, words in numbered if words]


def _parse_label(where: str, words: list[str], column: dict[int, int]) -> tuple[int, list[float]]:
    try:
        index, *numbers = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"{where} is {' '.join(words)[:80]!r}, not numbers") from None
    if index not in column:
        raise ValueError(f"{where} names class {words[0]}, which is not among the {len(column)} names")
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise ValueError(f"{where} has {len(numbers)} numbers after the class, not 4 for a box or pairs for a polygon")
    for value, word in zip(numbers, words[1:], strict=True):
        if not -_TOLERANCE <= value <= 1 + _TOLERANCE:  # written so that NaN fails too
            raise ValueError(f"{where} has the value {word}, not a fraction from 0 to 1")
    return column[int(index)], _xyxy(np.clip(numbers, 0, 1).tolist())


def _xyxy(numbers: list[float]) -> list[float]:
    """Convert centre and size, or the points of a polygon, to a box."""
    if len(numbers) == 4:
        x, y, width, height = numbers
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return [min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])]


def _image_size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels, from the header, or None for an image that can't be read."""
    try:
        with warnings.catch_warnings():
            # Nothing is decoded here, so a large image does no harm.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.size
    # For damaged headers Pillow's plugins raise struct.error, SyntaxError and others.
    except Exception:
        return None
