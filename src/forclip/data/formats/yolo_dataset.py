"""Find the classes and the images of a YOLO dataset: Ultralytics' data YAML, darknet's data file, or a folder."""

# Not Path's methods: they raise for a name that is too long.
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os.path import isdir, isfile
from pathlib import Path
from reprlib import repr as shortened  # YAML's aliases can make a short file endless when it is printed
from typing import Any

from forclip.config import parse_yaml, read_lines
from forclip.data.formats.common import UnusableEntry
from forclip.data.formats.dataset_files import image_suffixes, is_hidden, list_files
from forclip.data.formats.file_names import FileNames
from forclip.data.formats.split_words import SPLIT_WORDS, words_for_split
from forclip.data.formats.text_encoding import read_unknown_text
from forclip.types import SkippedEntry

ALL_SPLITS = "all"  # in place of the name of a split
_YAML = (".yaml", ".yml")
_NAME_FILES = (
    *("classes.txt", "obj.names", "classes.names", "names.txt", "predefined_classes.txt", "labels.txt"),
    "_darknet.labels",  # Roboflow's
)
_CONFIG_FOLDERS = ("cfg", "config", "configs", "data")
_ABSENT = ("", "null", "Null", "NULL", "~", "None")


@dataclass(frozen=True)
class YoloDataset:
    """The classes and images of a split.

    names: class names by their number, in ascending order; two numbers may have one name. images: by sorted id, the
    path relative to the dataset's folder. image_folders: those that are in the split as a whole. label_folder: where
    labels are if that does not follow from the image's place. numbers_after_box: of the keypoints in each line.
    """

    names: dict[int, str]
    images: dict[str, Path]
    image_folders: tuple[Path, ...]
    label_folder: Path | None
    numbers_after_box: int
    skipped: tuple[SkippedEntry, ...]


def read_yolo_dataset(source: Path, split: str | None, image_folder: Path | None = None) -> YoloDataset:
    """Read a data YAML, a darknet data file, or a folder that holds one of them or a list of class names.

    split: None is train, or all images of a folder without a data file; "all" is all splits, without those that have no
    images. image_folder: where the images of a folder without a data file are, if they are elsewhere.

    Raises ValueError, naming the file and the value, for a source that is missing or can't be understood, a split that
    it does not have, one without images, and class names that are missing.
    """
    if not isdir(source):
        return _read_data_file(source, split or "train")
    if image_folder is None and (files := data_files_in(source)):
        usual = [file for file in files if file.stem in ("data", "dataset", "obj")]
        if len(files) > 1 and len(usual) != 1:
            raise ValueError(f"{source}: has several data files; give one of them: {', '.join(f.name for f in files)}")
        return _read_data_file((usual or files)[0], split or "train")
    return _read_folder(source, split, image_folder)


def data_files_in(folder: Path) -> list[Path]:
    """The data YAML and darknet data files in a folder."""
    files = [folder / name for name in sorted(os.listdir(folder)) if not is_hidden(name)]
    return [file for file in files if file.suffix.lower() in (*_YAML, ".data") and _describes_data(file)]


def class_file_in(folder: Path) -> Path | None:
    """The file of class names in a dataset's folder or in its folder of labels."""
    below = ("", "labels", "data", "obj_train_data", "train")  # Roboflow repeats the names in each split
    places = (*(folder / name for name in below), folder.parent)
    return next((place / name for place in places for name in _NAME_FILES if isfile(place / name)), None)


def _describes_data(file: Path) -> bool:
    try:
        content = _read_content(file)
    except ValueError:
        return False
    return "names" in content and any(key in content for keys in SPLIT_WORDS for key in keys)


def _read_content(file: Path) -> Mapping[str, Any]:
    """The keys and values of a data file; values are texts as written, lists or mappings of them."""
    text = read_unknown_text(file).text
    if file.suffix.lower() == ".data":
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        return {key.strip().lower(): value.strip() for key, _, value in pairs}
    content = parse_yaml(text, file, as_written=True)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: a YOLO data file holds keys and values, not {shortened(content)}")
    return content


def _read_data_file(file: Path, split: str) -> YoloDataset:
    content = _read_content(file)
    names, skipped = _class_names(file, content)
    has = [key for words in SPLIT_WORDS for key in words if content.get(key, "") not in _ABSENT]
    keys = has if split == ALL_SPLITS else [key for key in words_for_split(split) if key in has][:1]
    if not keys:
        raise ValueError(f"{file}: has no images for {split!r}, only for {', '.join(has) or 'nothing'}")
    images: dict[str, Path] = {}
    image_folders: list[Path] = []
    errors = []
    for key in keys:
        try:
            folder, places = _find_places(file, content.get("path", ""), key, content[key])
            paths = _images_of(places, folder, skipped)
            if not paths:
                raise ValueError(f"{file}: {key} has no images below {', '.join(map(str, places))}")
        except ValueError as error:  # Roboflow names a test set that was not exported
            errors.append(error)
            skipped.append(SkippedEntry(f"{file}: {key}", "the split has no images", shortened(content[key])))
            continue
        image_folders += (place for place in places if isdir(place))
        images |= {
            path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_posix(): path
            for path in paths
        }
    if not images:
        others = [entry for entry in skipped if entry.reason != "the split has no images"]
        first = f"; {others[-1].entry}: {others[-1].reason}: {others[-1].value}" if others else ""
        raise ValueError(f"{errors[0]}{first}")
    numbers = _keypoint_numbers(file, content)
    return YoloDataset(names, dict(sorted(images.items())), tuple(image_folders), None, numbers, tuple(skipped))


def _images_of(places: Sequence[Path], folder: Path, skipped: list[SkippedEntry]) -> list[Path]:
    """The images of a split's folders and lists. Those that can't be used are added to skipped."""
    paths: list[Path] = []
    for place in places:
        if isdir(place):
            paths += list_files(place, image_suffixes(), skipped)
        else:
            listed, unusable = _read_list(place, folder)
            paths += listed
            skipped += unusable
    return paths


def _find_places(file: Path, stated: object, split: str, given: object) -> tuple[Path, list[Path]]:
    """The dataset's folder, and the folder or list of each entry of a split.

    A folder of another machine (/content/..., C:\\...) is looked for below the file's own.
    """
    entries = [given] if isinstance(given, str) else given
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(f"{file}: {split} is {shortened(given)}, not a folder, a list of folders or a list of images")
    if not isinstance(stated, str):
        raise ValueError(f"{file}: path is {shortened(stated)}, not a folder")
    bases = _bases(file)
    paths = [] if stated in _ABSENT else [p for base in bases for p in (base / stated, *_below(base, stated))]
    folders = [*paths, *bases]
    for folder in (folder for folder in folders if isdir(folder)):
        places = [next((p for p in _candidates(folder, entry) if isdir(p) or _is_list(p)), None) for entry in entries]
        if all(places):
            return folder, [place for place in places if place is not None]
    problem = f"{split} names {entries[0]!r}, but there is no such folder or list"
    if paths:
        problem += f" in the path {stated!r}"
    raise ValueError(f"{file}: {problem}: {folders[0] / entries[0]}")


def _bases(file: Path) -> tuple[Path, ...]:
    """The folders that names in a data file may be relative to: its own, or the one with cfg/ in it, as in darknet."""
    folder = file.parent.absolute()
    return (file.parent, folder.parent) if folder.name.lower() in _CONFIG_FOLDERS else (file.parent,)


def _candidates(folder: Path, entry: str) -> Iterator[Path]:
    # Roboflow exports name ../train/images for a folder next to the YAML; Ultralytics accepts that too.
    if entry.startswith("../"):
        yield folder / entry.removeprefix("../")
    yield folder / entry
    parts = [part for part in entry.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    # The end of test/images alone may be the folder of all images.
    splits = [words for words in SPLIT_WORDS if not set(words).isdisjoint(parts)]
    for path in _below(folder, entry):
        if all(not set(words).isdisjoint(path.relative_to(folder).parts) for words in splits):
            yield path
    for words in SPLIT_WORDS:
        for position, part in enumerate(parts):
            for other in words if part in words else ():
                yield folder.joinpath(*parts[:position], other, *parts[position + 1 :])


def _below(folder: Path, name: str) -> list[Path]:
    """What a name from elsewhere may mean below a folder."""
    names = FileNames(folder)
    found = []
    for reading in (name, f"/{name}"):  # the second one as a path of another machine
        try:
            if path := names.find(reading):
                found.append(path)
        except UnusableEntry:
            pass
    return found


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and isfile(path)


def _read_list(file: Path, folder: Path) -> tuple[list[Path], list[SkippedEntry]]:
    """The images that a file lists, one a line.

    A name with ./ is relative to the list, others to the dataset's folder; if there is no such file, its end counts.
    """
    here, everywhere = FileNames(file.parent), FileNames(folder)
    paths, skipped = [], []
    # File names need not be UTF-8; surrogateescape keeps their bytes.
    for number, line in read_lines(file, "list of images", errors="surrogateescape"):
        try:
            nearest = here if line.startswith("./") else everywhere
            path = nearest.find(line) or here.find(line) or everywhere.find(f"/{line}")
            paths.append(path or nearest.resolve(line))
        except UnusableEntry as error:
            skipped.append(error.at(f"{file}: line {number}"))
    return paths, skipped


def _class_names(file: Path, content: Mapping[str, Any]) -> tuple[dict[int, str], list[SkippedEntry]]:
    """Class names by number, in ascending order; names that can't be used are left out."""
    given = content.get("names")
    if isinstance(given, str) and given not in _ABSENT:
        places = [p for base in _bases(file) for p in (base / given, *_below(base, given))]
        listed = next((place for place in places if isfile(place)), None)
        if listed is None:
            raise ValueError(f"{file}: names is {shortened(given)}, which is neither a list nor a file of class names")
        return _check_names(listed, dict(_numbered_lines(listed)))
    if isinstance(given, list) and given:
        return _check_names(file, dict(enumerate(given)))
    if isinstance(given, dict) and given:
        return _check_names(file, given)
    if listed := class_file_in(file.parent):
        return _check_names(listed, dict(_numbered_lines(listed)))
    raise ValueError(f"{file}: names is {shortened(given)}, not a list of class names, and there is no classes.txt")


def _numbered_lines(file: Path) -> list[tuple[int, str]]:
    """The lines of a file of class names, by class number; a blank line is a number without a class."""
    lines = read_unknown_text(file).text.splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines) if line.strip()]


def _check_names(file: Path, given: Mapping[Any, Any]) -> tuple[dict[int, str], list[SkippedEntry]]:
    names: dict[int, str] = {}
    skipped: list[SkippedEntry] = []
    for key, name in given.items():
        where = f"{file}: class {key}"
        whole = re.fullmatch(r"\s*(\d{1,9})(\.0*)?\s*", str(key))
        if whole is None:
            skipped.append(SkippedEntry(where, "the class number is no whole number from 0", shortened(key)))
        elif not isinstance(name, str) or not name.strip():
            skipped.append(SkippedEntry(where, "the class has no name", shortened(name)))
        elif int(whole[1]) in names:
            skipped.append(SkippedEntry(where, "the class number occurs twice", shortened(name)))
        else:
            names[int(whole[1])] = name.strip()
    if not names:
        raise ValueError(f"{file}: names no class: {shortened(given)}")
    first: dict[str, int] = {}
    for number, name in names.items():
        if first.setdefault(name, number) != number:
            where, reason = f"{file}: class {number}", "another class has the same name; both are read as one class"
            skipped.append(SkippedEntry(where, reason, name, used_in_part=True))
    return dict(sorted(names.items())), skipped


def _keypoint_numbers(file: Path, content: Mapping[str, Any]) -> int:
    """How many numbers the keypoints take: kpt_shape is their count, and 2 or 3 numbers for each."""
    shape = content.get("kpt_shape") or ["0", "0"]
    try:
        count, each = (int(number) for number in shape)
    except (TypeError, ValueError):
        raise ValueError(f"{file}: kpt_shape is {shortened(shape)}, not a count and 2 or 3") from None
    return count * each


def _read_folder(folder: Path, split: str | None, image_folder: Path | None) -> YoloDataset:
    """A dataset without a data file, as Label Studio and labelImg write it: class names, images and labels."""
    if file := class_file_in(folder):
        names, skipped = _check_names(file, dict(_numbered_lines(file)))
    elif files := data_files_in(folder):
        names, skipped = _class_names(files[0], _read_content(files[0]))
    else:
        known = ", ".join(_NAME_FILES[:2])
        raise ValueError(f"{folder}: no data YAML and no list of class names ({known}), so class numbers mean nothing")
    images = image_folder or (folder / "images" if isdir(folder / "images") else folder)
    places = [images]
    if split not in (None, ALL_SPLITS):
        words = words_for_split(split)
        places = [p for word in words for p in (images / word, folder / word / "images", folder / word) if isdir(p)]
        if not places:
            raise ValueError(f"{folder}: no folder of images is called {split!r}")
    place = places[0]
    paths = list_files(place, image_suffixes(), skipped)
    if not paths:
        raise ValueError(f"{place}: no images found; say where they are with `images`")
    start = images if image_folder else folder
    by_id = {path.relative_to(start).as_posix(): path for path in paths}
    labels = (folder / "labels" if isdir(folder / "labels") else folder) if image_folder else None
    return YoloDataset(names, by_id, (place,), labels, 0, tuple(skipped))
