"""YOLO text labels: one .txt per image with a class number and fractions of the image in each line."""

import math
import os
import re
from collections import defaultdict
from functools import cache
from io import StringIO
from pathlib import Path

from forclip.data.formats.common import LabelledObject, UnusableEntry, annotations_of_objects
from forclip.data.formats.dataset_files import list_files
from forclip.data.formats.file_names import UPLOAD_PREFIX, FileNames
from forclip.data.formats.text_encoding import decode_unknown
from forclip.data.formats.yolo_dataset import YoloDataset, read_yolo_dataset
from forclip.data.images.image_sizes import ImageSizes, image_sizes
from forclip.types import Annotations, SkippedEntry

_TOLERANCE = 1e-2  # how far rounding and resizing in an exporter may lead out of the image, as a fraction of it
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages")
_LABEL_FOLDERS = ("labels", "label")
_DECIMAL_COMMA = re.compile(r"-?\d+(,\d+)?")
# Text files next to labels that are none.
_NO_LABELS = re.compile(
    r"(classes|notes|readme.*|.*names|predefined_classes|labels?|license|train|valid|val|test)\.txt"
)


def load_yolo(
    source: Path, split: str | None, image_folder: Path | None = None, read_sizes: ImageSizes = image_sizes
) -> Annotations:
    """Load images sorted by id (the path relative to the dataset's folder), with classes in the order of their number.

    source: a data YAML (docs.ultralytics.com/datasets/detect), a darknet data file such as obj.data, or a folder with
    one of them or with classes.txt, as `read_yolo_dataset` describes; split: train, val, test or all; read_sizes: reads
    the sizes of pictures.

    Boxes are fractions of the upright image, whose size comes from the file's header. Coordinates that leave the image
    by rounding are clipped. A line may end with a confidence; polygons and rotated boxes become their bounding boxes;
    keypoints are skipped if the data YAML has `kpt_shape`. An image that can't be read keeps its labels and has no
    boxes; one without a label file shows nothing; one whose label file can't be read is unverified for all classes.

    A label whose coordinates are not finite or further outside has no box. Left out are lines without numbers or with
    too few, those of a class that the dataset does not name, label files without an image, and images of a list that
    are outside the dataset's folder. Raises ValueError as `read_yolo_dataset` does.
    """
    dataset = read_yolo_dataset(source, split, image_folder)
    paths = list(dataset.images.values())
    files = _LabelFiles(dataset)
    skipped = list(dataset.skipped)
    objects: list[LabelledObject] = []
    unknown_rows: list[int] = []
    used: set[Path] = set()
    labelled: list[tuple[int, Path, list[tuple[int, str]]]] = []
    for row, path in enumerate(paths):
        file = files.of(path)
        if file is None:
            continue
        used.add(file)
        try:
            lines = _read_label_lines(file)
        except UnusableEntry as error:
            skipped.append(error.at(str(file)))
            unknown_rows.append(row)
            continue
        if lines:
            labelled.append((row, file, lines))
    sizes = read_sizes([paths[row] for row, *_ in labelled])
    for (row, file, lines), size in zip(labelled, sizes, strict=True):
        for number, line in lines:
            where = f"{file}: line {number}"
            try:
                name, numbers = _parse_label(line, dataset)
            except UnusableEntry as error:
                skipped.append(error.at(where))
                continue
            box = None
            try:
                left, top, right, bottom = _to_corners(numbers)
                box = size and (left * size[0], top * size[1], right * size[0], bottom * size[1])
            except UnusableEntry as error:
                skipped.append(error.at(where, used_in_part=True))
            objects.append((row, name, box))
    skipped += (SkippedEntry(str(file), "the label file belongs to no image") for file in files.others(used))
    if not used:
        expected = label_file(paths[0])
        skipped.append(SkippedEntry(str(source), "no image has a label file", f"the first would be {expected}"))
    names = list(dict.fromkeys(dataset.names.values()))
    return annotations_of_objects(
        list(dataset.images), paths, objects, names, skipped=skipped, unknown_rows=unknown_rows
    )


def label_file(image: Path) -> Path:
    """The usual label file of an image: the last folder called `images` becomes `labels`, and the suffix becomes .txt.

    If no folder is called `images`, the label file is next to the image.
    """
    parts = list(image.absolute().parts)
    folders = [k for k, part in enumerate(parts[:-1]) if part == "images"]
    if folders:
        parts[folders[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


class _LabelFiles:
    """The label files of a dataset. Folders are listed once; no file is looked up by itself."""

    def __init__(self, dataset: YoloDataset) -> None:
        self._dataset = dataset
        self._folders = cache(self._folders_now)
        self._names = cache(FileNames)
        self._by_original_name = cache(self._by_original_name_now)

    def of(self, image: Path) -> Path | None:
        """The label file of an image, or None. Its name may be in another case and Unicode form."""
        name = f"{image.stem}.txt"
        for folder in self._folders(image.parent):
            if path := self._names(folder).match(name):
                return path
        return self._by_original_name().get(name) if self._dataset.label_folder else None

    def others(self, used: set[Path]) -> list[Path]:
        """Label files of the folders that are in the split as a whole, without those that are used."""
        found = []
        for images in self._dataset.image_folders:
            folder = self._folders(images)[0]
            for file in list_files(folder, {".txt"}):
                is_label = not _NO_LABELS.fullmatch(file.name.lower()) and (folder != images or _starts_as_label(file))
                if is_label and file not in used:
                    found.append(file)
        return sorted(set(found))

    def _folders_now(self, images: Path) -> list[Path]:
        """Folders that may hold the labels of the images in a folder, the likeliest first."""
        if root := self._dataset.label_folder:
            return [root / images.relative_to(self._dataset.image_folders[0]), root]
        parts = images.absolute().parts
        found = []
        for position in reversed(range(len(parts))):
            if parts[position].lower() in _IMAGE_FOLDERS:
                siblings = [name for name in os.listdir(Path(*parts[:position])) if name.lower() in _LABEL_FOLDERS]
                # The usual name first.
                siblings.sort(key=lambda name: (name != "labels", name.lower() != "labels", name))
                found += [Path(*parts[:position], name, *parts[position + 1 :]) for name in siblings]
        return [*(folder for folder in found if folder.is_dir()), images]

    def _by_original_name_now(self) -> dict[str, Path]:
        """Label files by the name that their image had before Label Studio put a prefix before it."""
        assert self._dataset.label_folder is not None
        files: dict[str, list[Path]] = defaultdict(list)
        for file in list_files(self._dataset.label_folder, {".txt"}):
            if prefix := UPLOAD_PREFIX.match(file.name):
                files[file.name[prefix.end() :]].append(file)
        return {name: found[0] for name, found in files.items() if len(found) == 1}


def _read_label_lines(file: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1. Raises UnusableEntry for a file that is no text."""
    try:
        text = decode_unknown(file.read_bytes(), "it").text
    except OSError as error:
        raise UnusableEntry("the label file can't be read", error.strerror) from None
    except ValueError as error:
        raise UnusableEntry("the label file can't be read", error) from None
    if "\0" in text:
        raise UnusableEntry("the label file can't be read", "it is no text")
    lines = enumerate(StringIO(text, newline=None), start=1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def _starts_as_label(file: Path) -> bool:
    """Whether a text file next to images starts with a number, as labels do."""
    try:
        lines = _read_label_lines(file)
    except UnusableEntry:
        return False
    return bool(lines) and lines[0][1].split()[0].replace(".", "", 1).isdigit()


def _parse_label(line: str, dataset: YoloDataset) -> tuple[str, list[float]]:
    """The class name, and the numbers of the box or the polygon. Raises UnusableEntry."""
    words = _words(line)
    try:
        index, *numbers = (float(word) for word in words)
    except ValueError:
        raise UnusableEntry("the line does not consist of numbers", line) from None
    if index not in dataset.names:  # never true for NaN
        raise UnusableEntry("the class number is not among the names", words[0])
    count, keypoints = len(numbers), dataset.numbers_after_box
    if keypoints and count in (4 + keypoints, 5 + keypoints):
        numbers = numbers[:4]
    elif count > 4 and count % 2:
        numbers.pop()  # a confidence
    if len(numbers) < 4:
        raise UnusableEntry("the line has too few numbers", line)
    return dataset.names[int(index)], numbers


def _to_corners(numbers: list[float]) -> list[float]:
    """xyxy in fractions of the image, of a box (centre, width, height) or a polygon. Raises UnusableEntry."""
    if not all(map(math.isfinite, numbers)):
        raise UnusableEntry("the box is not finite", numbers)
    if not all(map(_is_near, numbers)):
        raise UnusableEntry("the box is not in fractions from 0 to 1", numbers)
    numbers = [min(max(number, 0.0), 1.0) for number in numbers]
    if len(numbers) > 4:  # the points of a polygon
        xs, ys = numbers[::2], numbers[1::2]
        return [min(xs), min(ys), max(xs), max(ys)]
    x, y, width, height = numbers
    corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
    return [min(max(corner, 0.0), 1.0) if _is_near(corner) else corner for corner in corners]


def _is_near(number: float) -> bool:
    """Whether a coordinate is in the image, or leaves it by rounding."""
    return -_TOLERANCE <= number <= 1 + _TOLERANCE


def _words(line: str) -> list[str]:
    """The numbers of a line, which blanks, tabs, commas or semicolons separate. Commas may be decimal ones."""
    words = line.split()
    if len(words) > 4 and all(_DECIMAL_COMMA.fullmatch(word) for word in words):
        return [word.replace(",", ".") for word in words]
    return [word for word in re.split(r"[\s,;]+", line) if word]
