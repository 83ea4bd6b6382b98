"""YOLO text labels as Ultralytics lays them out: a data YAML, image folders or lists, and one .txt an image."""

import warnings

# Not Path's own: those raise for a name that is too long, which is just one that is not there.
from os.path import exists, isdir, isfile
from pathlib import Path
from reprlib import repr as shortly
from typing import Any

import numpy as np
import yaml
from PIL import Image

from forclip.data.formats.folder import list_images
from forclip.data.formats.paths import inside
from forclip.types import Annotations

# What rounding in an exporter may add to a fraction of 1.
TOLERANCE = 1e-3


def load_yolo(data_yaml: Path, split: str) -> Annotations:
    """Images sorted by id, which is their path relative to the dataset's folder; classes in the order of their index.

    split: train, val or test, whichever the YAML has. Boxes come in fractions and are scaled by the size in the
    image's header, in the frame of the stored pixels: EXIF orientation is not applied, which Ultralytics' own loader
    does. An image that can't be read keeps its labels and has no boxes; one without a label file shows nothing.
    Polygons become their bounds; lines with keypoints would be taken for polygons.
    Layout: docs.ultralytics.com/datasets/detect. Raises ValueError, naming the file and the entry or line, for a
    malformed YAML, a split that is not there, an image outside the dataset's folder, or a label line that is none.
    """
    content = _read_yaml(data_yaml)
    folder = _dataset_folder(data_yaml, content)
    names = _names(data_yaml, content)
    paths = _images(data_yaml, content, folder, split)
    column = {index: k for k, index in enumerate(names)}
    ids = sorted(paths)
    labels = np.zeros((len(ids), len(names)), bool)
    boxes: list[np.ndarray[Any, Any]] = []
    owners: list[tuple[int, int]] = []
    for row, image_id in enumerate(ids):
        found = _read_labels(label_file(paths[image_id]), column)
        labels[row, [k for k, _ in found]] = True
        size = _size(paths[image_id]) if found else None
        if size is not None:
            boxes += [np.array(box) * [*size, *size] for _, box in found]
            owners += [(row, k) for k, _ in found]
    pairs = np.array(owners, np.int64).reshape(-1, 2)
    return Annotations(
        image_ids=tuple(ids),
        paths=tuple(paths[i] for i in ids),
        class_names=tuple(names.values()),
        labels=labels,
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        box_images=pairs[:, 0],
        box_classes=pairs[:, 1],
    )


def label_file(image: Path) -> Path:
    """The last folder called `images` becomes `labels`, the suffix .txt. Beside the image if none is called so."""
    parts = list(image.absolute().parts)
    folders = [k for k, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


class _NoKeyTwice(yaml.SafeLoader):
    """PyYAML itself takes the last of two: of a list of class names that would lose one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in seen:
                raise ValueError(f"line {key.start_mark.line + 1} has the key {shortly(key.value)} a second time")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[Any, Any]:
    try:
        content = yaml.load(file.read_bytes(), _NoKeyTwice)
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file") from None
    # For a value that its tag doesn't fit, PyYAML raises anything: KeyError, AttributeError, IndexError among them.
    except Exception as error:
        raise ValueError(f"{file}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: a YOLO data file holds keys and values, not a {type(content).__name__}")
    return content


def _dataset_folder(file: Path, content: dict[Any, Any]) -> Path:
    """What `path` says, relative to the YAML's folder; that folder itself if it says nothing."""
    said = content.get("path") or "."
    if not isinstance(said, str):
        raise ValueError(f"{file}: path is {shortly(said)}, not a folder")
    # The owner of the YAML says where the dataset is, so this one may be absolute or climb.
    folder = file.parent / said
    if not isdir(folder):
        raise ValueError(f"{file}: path is {said!r}, but there is no folder {folder}")
    return folder


def _names(file: Path, content: dict[Any, Any]) -> dict[int, str]:
    """Class names by index, in ascending order."""
    # YAML's aliases can make a short file endless when written out, so that what it says is quoted shortened.
    said = content.get("names")
    names = dict(enumerate(said)) if isinstance(said, list) else said
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{file}: names is {shortly(said)}, not a list of class names")
    found: dict[int, str] = {}
    for index, name in names.items():
        if type(index) is not int or index < 0:
            raise ValueError(f"{file}: names has the index {shortly(index)}, not a whole number from 0")
        # YAML reads a class called 7 as a number, and one called no or off as false: the first can be undone.
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            raise ValueError(f"{file}: class {index} is called {shortly(name)}; a name that YAML misreads needs quotes")
        if str(name) in found.values():
            raise ValueError(f"{file}: class {index} is called {str(name)!r}, as another is")
        found[index] = str(name)
    return {index: found[index] for index in sorted(found)}


def _images(file: Path, content: dict[Any, Any], folder: Path, split: str) -> dict[str, Path]:
    """Each image once, by its id, however many of the split's places list it."""
    said = content.get(split)
    places = [said] if isinstance(said, str) else said
    if not isinstance(places, list) or not places or not all(isinstance(place, str) for place in places):
        raise ValueError(f"{file}: {split} is {shortly(said)}, not a folder, a list of folders or a list of images")
    paths: list[Path] = []
    for name in places:
        place = _place(file, folder, name, split)
        if isdir(place):
            paths += list_images(str(place))
        elif place.suffix == ".txt" and isfile(place):
            paths += _listed(place, folder)
        else:
            raise ValueError(f"{file}: {split} names {name!r}, but there is no such folder or list: {place}")
    return {path.relative_to(folder).as_posix(): path for path in paths}


def _place(file: Path, folder: Path, name: str, entry: str) -> Path:
    # Exports by Roboflow say ../train/images for what lies beside the YAML; Ultralytics forgives it likewise.
    if name.startswith("../") and exists(folder / name[3:]):
        name = name[3:]
    return _within(folder, name, file, entry)


def _listed(file: Path, folder: Path) -> list[Path]:
    """The images of a list, one a line: ./ is relative to the list's own folder, others to the dataset's."""
    try:
        # File names need not be UTF-8; what is not survives the round trip through Python's file system encoding.
        lines = file.read_bytes().decode("utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise ValueError(f"{file}: not readable as a list of images: {error}") from None
    beside = file.parent.relative_to(folder)
    paths = []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if name.startswith("./"):
            name = f"{beside.as_posix()}/{name[2:]}"
        if name:
            paths.append(_within(folder, name, file, f"line {number}"))
    return paths


def _within(folder: Path, name: str, file: Path, entry: str) -> Path:
    """As `inside`, but an absolute name may stand where it lies in the folder anyway."""
    for start in (folder.absolute(), folder.resolve()):
        if Path(name).is_relative_to(start):
            name = Path(name).relative_to(start).as_posix()
    return inside(folder, name, file, entry)


def _read_labels(file: Path, column: dict[int, int]) -> list[tuple[int, list[float]]]:
    """Column and box of each line, the box xyxy in fractions of the image."""
    try:
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as text: {error}") from None
    numbered = [(number, line.split()) for number, line in enumerate(lines, start=1)]
    return [_label(f"{file}: line {number}", words, column) for number, words in numbered if words]


def _label(where: str, words: list[str], column: dict[int, int]) -> tuple[int, list[float]]:
    try:
        index, *numbers = (float(word) for word in words)
    except ValueError:
        raise ValueError(f"{where} is {' '.join(words)[:80]!r}, not numbers") from None
    if index not in column:
        raise ValueError(f"{where} names class {words[0]}, which is not among the {len(column)} names")
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        raise ValueError(f"{where} has {len(numbers)} numbers after the class, not 4 for a box or pairs for a polygon")
    for value, word in zip(numbers, words[1:], strict=True):
        # Written so that NaN fails it too.
        if not -TOLERANCE <= value <= 1 + TOLERANCE:
            raise ValueError(f"{where} has the value {word}, not a fraction from 0 to 1")
    return column[int(index)], _bounds(np.clip(numbers, 0, 1).tolist())


def _bounds(numbers: list[float]) -> list[float]:
    """Centre and size, or the points of a polygon, as xyxy."""
    if len(numbers) == 4:
        x, y, width, height = numbers
        return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return [min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])]


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height in pixels, from the header, or None if it can't be read: that stops no job."""
    try:
        with warnings.catch_warnings():
            # Nothing is decoded here, so a large picture is no bomb yet.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.size
    # For damaged headers Pillow's plugins raise anything, struct.error and SyntaxError among them.
    except Exception:
        return None
