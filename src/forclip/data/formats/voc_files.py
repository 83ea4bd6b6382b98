"""Pair the XML files and the images of a Pascal VOC dataset, in the layouts of many tools."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from forclip.data.formats.dataset_files import image_suffixes, list_files
from forclip.data.formats.file_names import fold_name
from forclip.types import SkippedEntry

# Folders that say what kind of file they hold, in lower case. XML files and images are paired without them.
XML_FOLDERS = ("annotations", "annotation", "xmls", "xml", "labels", "label")
IMAGE_FOLDERS = ("jpegimages", "images", "image", "imgs", "img")

# The name of an XML file and its image: the parts below the dataset's folder, without kinds and suffix.
Key = tuple[str, ...]


class VocFiles:
    """The XML files and images below a folder.

    xml_files, images: by key, each key of one file. skipped: files that share the key of another, and folders that
    can't be read.
    """

    def __init__(self, folder: Path, image_folder: Path | None = None) -> None:
        """image_folder: where the images are; None means below the folder, or next to one called Annotations.

        Raises ValueError for a folder without XML files.
        """
        self.skipped: list[SkippedEntry] = []
        found = list_files(folder, {".xml", *image_suffixes()}, self.skipped)
        xml_files = [file for file in found if file.suffix.lower() == ".xml"]
        if not xml_files:
            raise ValueError(f"{folder}: no XML files found")
        images = [file for file in found if file.suffix.lower() != ".xml"]
        self.folder = self._image_root = folder
        if image_folder is not None:
            self._image_root, images = image_folder, list_files(image_folder, image_suffixes(), self.skipped)
        elif not images and folder.name.lower() in XML_FOLDERS:
            self.folder = self._image_root = folder.parent
            images = [
                i for i in list_files(folder.parent, image_suffixes()) if _is_among(i, folder.parent, IMAGE_FOLDERS)
            ]
        self._xml_root = folder
        self.xml_files = self._by_key(xml_files, folder, "another XML file has the same name")
        # Masks are PNGs in other folders.
        images.sort(key=lambda i: (not self._is_own(i), i.suffix.lower() not in (".jpg", ".jpeg")))
        self.images = self._by_key(images, self._image_root, "another image has the same name")
        self._alike = {key: _alike(files) for key, files in (("xml", self.xml_files), ("images", self.images))}
        self._taken: set[Key] = set()

    def find_xml(self, key: Key) -> Key | None:
        """The key of an XML file, which may differ in case and Unicode form if only one does."""
        return _find(key, self.xml_files, self._alike["xml"])

    def find_image(self, key: Key) -> Key | None:
        """The key of an image, as `find_xml`."""
        return _find(key, self.images, self._alike["images"])

    def same_image(self, key: Key) -> Path | None:
        """The image of the same name as an XML file, if it belongs to no other."""
        found = self.find_image(key)
        return self.images[found] if found and (found == key or found not in self.xml_files) else None

    def image_of_xml(self, key: Key, names: Sequence[str]) -> Path:
        """The image of the same name, or else the one that the XML file names, or the path of one that is missing.

        names: what the XML file calls its image. An image of the name of another XML file belongs to that one.
        """
        if same := self.same_image(key):
            return same
        for end in (*(end for name in names for end in self._ends(key, name)), self._only_image(key)):
            image = self.find_image(end) if end else None
            if image and self.is_free(image):
                self._taken.add(image)
                return self.images[image]
        return self._missing_image(key, names)

    def unlabelled_images(self) -> list[Key]:
        """The images that no XML file belongs to."""
        return [key for key in self._own_images if self.is_free(key)]

    def is_free(self, image: Key) -> bool:
        """Whether no XML file has the name of an image or has taken it."""
        found = self.find_xml(image)
        return image not in self._taken and not (found and (found == image or found not in self.images))

    def _is_own(self, image: Path) -> bool:
        return _is_among(image, self._image_root, IMAGE_FOLDERS)

    @cached_property
    def _own_images(self) -> list[Key]:
        """The images of the dataset. If there are folders for images, those elsewhere, such as masks, don't count."""
        return [key for key, image in self.images.items() if self._is_own(image)] or list(self.images)

    @cached_property
    def _own_by_stem(self) -> dict[str, list[Key]]:
        by_stem: dict[str, list[Key]] = defaultdict(list)
        for key in self._own_images:
            by_stem[key[-1]].append(key)
        return by_stem

    def _only_image(self, key: Key) -> Key | None:
        """The only image of this name in whatever folder, for an XML file that is in no folder of its own."""
        found = self._own_by_stem.get(key[0], []) if len(key) == 1 else []
        return found[0] if len(found) == 1 else None

    def _by_key(self, files: Iterable[Path], root: Path, problem: str) -> dict[Key, Path]:
        by_key: dict[Key, Path] = {}
        for file in files:
            key = key_of(file.relative_to(root).parts)
            if by_key.setdefault(key, file) != file:
                self.skipped.append(SkippedEntry(str(file), problem, str(by_key[key])))
        return by_key

    def _ends(self, key: Key, name: str) -> list[Key]:
        """The keys that a name in an XML file may mean: next to the file, or an end of a path."""
        parts = key_of(name.replace("\\", "/").split("/"))
        ends = [parts[start:] for start in range(len(parts))]
        # A name alone says nothing about its folder.
        return [(*key[:-1], *parts[-1:]), *(end for end in ends if len(end) > 1 or len(key) == 1)]

    def _missing_image(self, key: Key, names: Sequence[str]) -> Path:
        file = self.xml_files[key]
        name = names[0].replace("\\", "/").rpartition("/")[2] if names else ""
        if Path(name).suffix.lower() not in image_suffixes() or "\0" in name:
            name = f"{file.stem}.jpg"
        if self._image_root not in (self._xml_root, self._xml_root.parent):
            return self._image_root.joinpath(*key[:-1], name)
        parts = file.relative_to(self.folder).parts[:-1]
        return self.folder.joinpath(*("JPEGImages" if part.lower() in XML_FOLDERS else part for part in parts), name)


def key_of(parts: Sequence[str]) -> Key:
    """The key of a file by its path below the dataset's folder."""
    folders = [
        part for part in parts[:-1] if part not in ("", ".") and part.lower() not in (*XML_FOLDERS, *IMAGE_FOLDERS)
    ]
    stem = parts[-1]
    for suffixes in ({".xml"}, image_suffixes()):  # some tools write a.jpg.xml
        if (path := Path(stem)).suffix.lower() in suffixes:
            stem = path.stem
    return (*folders, stem)


def _is_among(file: Path, root: Path, kinds: Collection[str]) -> bool:
    return any(part.lower() in kinds for part in file.relative_to(root).parts[:-1])


def _fold(key: Key) -> Key:
    return tuple(map(fold_name, key))


def _alike(files: Mapping[Key, Path]) -> dict[Key, list[Key]]:
    alike: dict[Key, list[Key]] = defaultdict(list)
    for key in files:
        alike[_fold(key)].append(key)
    return alike


def _find(key: Key, files: Mapping[Key, Path], alike: Mapping[Key, list[Key]]) -> Key | None:
    if key in files:
        return key
    found = alike.get(_fold(key), [])
    return found[0] if len(found) == 1 else None
