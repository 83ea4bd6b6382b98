"""YOLO text labels in Ultralytics' layout: a data YAML, image folders or lists, and one .txt per image."""

# Not Path's methods: they raise for a name that is too long.
from os.path import exists, isdir, isfile
from pathlib import Path
from reprlib import repr as shortened  # YAML's aliases can make a short file endless when it is printed
from typing import Any

import numpy as np

from forclip.config import read_lines, read_yaml
from forclip.data.formats.common import LabelledObject, annotations_of_objects, path_inside
from forclip.data.formats.folder import list_images
from forclip.data.images.decode import image_size
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
    content = read_yaml(data_yaml, "file")
    if not isinstance(content, dict):
        raise ValueError(f"{data_yaml}: a YOLO data file holds keys and values, not a {type(content).__name__}")
    root = content.get("path") or "."
    if not isinstance(root, str):
        raise ValueError(f"{data_yaml}: path is {shortened(root)}, not a folder")
    folder = data_yaml.parent / root  # may be absolute or lead out of the YAML's folder
    if not isdir(folder):
        raise ValueError(f"{data_yaml}: path is {root!r}, but there is no folder {folder}")
    names = _class_names(data_yaml, content)
    paths = _image_paths(data_yaml, content, folder, split)
    objects: list[LabelledObject] = []
    for row, path in enumerate(paths.values()):
        file = label_file(path)
        lines = read_lines(file, "label file") if exists(file) else []
        labels = [_parse_label(f"{file}: line {number}", line.split(), names) for number, line in lines]
        size = image_size(path) if labels else None
        for name, fractions in labels:
            objects.append((row, name, None if size is None else [*np.multiply(fractions, [*size, *size])]))
    return annotations_of_objects(list(paths), list(paths.values()), objects, list(names.values()))


def label_file(image: Path) -> Path:
    """The label file of an image: the last folder called `images` becomes `labels`, and the suffix becomes .txt.

    If no folder is called `images`, the label file is next to the image.
    """
    parts = list(image.absolute().parts)
    folders = [k for k, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


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
    return dict(sorted(names.items()))


def _image_paths(file: Path, content: dict[Any, Any], folder: Path, split: str) -> dict[str, Path]:
    """The images of a split by sorted id. In a list, ./ is relative to its own folder, other names to the dataset's."""
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
            list_folder = path.parent.relative_to(folder).as_posix()
            # File names need not be UTF-8; surrogateescape keeps their bytes.
            for number, line in read_lines(path, "list of images", errors="surrogateescape"):
                listed = f"{list_folder}/{line[2:]}" if line.startswith("./") else line
                paths.append(_within(folder, listed, f"{path}: line {number}"))
        else:
            raise ValueError(f"{file}: {split} names {name!r}, but there is no such folder or list: {path}")
    return dict(sorted((path.relative_to(folder).as_posix(), path) for path in paths))


def _within(folder: Path, name: str, where: str) -> Path:
    """Like `path_inside`, but accepts an absolute name inside the folder."""
    for start in (folder.absolute(), folder.resolve()):
        if Path(name).is_relative_to(start):
            name = Path(name).relative_to(start).as_posix()
    return path_inside(folder, name, where)


def _parse_label(where: str, words: list[str], names: dict[int, str]) -> tuple[str, list[float]]:
    """The class name and the box: xyxy in fractions of the image."""
    try:
        index, *numbers = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"{where} is {' '.join(words)[:80]!r}, not numbers") from None
    if index not in names:
        raise ValueError(f"{where} names class {words[0]}, which is not among the {len(names)} names")
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise ValueError(f"{where} has {len(numbers)} numbers after the class, not 4 for a box or pairs for a polygon")
    for value, word in zip(numbers, words[1:], strict=True):
        if not -_TOLERANCE <= value <= 1 + _TOLERANCE:  # written so that NaN fails too
            raise ValueError(f"{where} has the value {word}, not a fraction from 0 to 1")
    numbers = np.clip(numbers, 0, 1).tolist()
    if len(numbers) > 4:  # the points of a polygon
        xs, ys = numbers[::2], numbers[1::2]
        return names[int(index)], [min(xs), min(ys), max(xs), max(ys)]
    x, y, width, height = numbers
    return names[int(index)], [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
