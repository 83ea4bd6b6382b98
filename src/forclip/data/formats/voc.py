"""Pascal VOC: one XML file per image (VOC2012 development kit)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from forclip.config import read_lines
from forclip.data.formats.common import UnusableEntry, annotations_of_objects
from forclip.data.formats.dataset_files import list_files
from forclip.data.formats.split_words import words_for_split
from forclip.data.formats.voc_files import Key, VocFiles, key_of
from forclip.data.formats.voc_xml import read_voc_xml
from forclip.data.images.box_frames import sizes_of
from forclip.types import Annotations, SkippedEntry

_FLAGS = ("-1", "0", "1")  # in an image set of one class: absent, difficult, present


def load_voc(folder: Path, image_set: str | None, image_folder: Path | None = None) -> Annotations:
    """Load images sorted by id (the name of the XML file without .xml), with the set's classes sorted by name.

    folder: holds XML files and images: in Annotations/ and JPEGImages/ or folders of similar names, with or without
    sub-folders, or side by side. image_folder: where the images are, if they are elsewhere. image_set: the name of a
    list below ImageSets/, or of a sub-folder; None takes all.

    An image belongs to the XML file of the same name; without one, to the XML file that names it. An image without an
    XML file, or with a damaged one, is unverified for all classes. Boxes in the file are inclusive and counted from 1;
    they become xmin - 1, ymin - 1, xmax, ymax. Their corners may be swapped, and are clipped if they leave the image by
    rounding. An object without a box labels its image. Objects marked difficult count like others: VOC leaves them out
    of its scores, but the image does show them.

    An object whose box is not four finite numbers labels its image without a box. Left out are objects without a name,
    damaged XML files, those with a DOCTYPE, and names in an image set that mean no file. Raises ValueError for a folder
    without XML files that can be read, and an image set that is missing or empty.
    """
    files = VocFiles(folder, image_folder)
    skipped = list(files.skipped)
    listed = None if image_set is None else _read_image_set(files, image_set, skipped)
    rows: dict[str, Path] = {}
    unknown: list[str] = []
    sizes: dict[str, tuple[int, int]] = {}
    objects: list[tuple[str, str, Sequence[float] | None]] = []
    for key, file in files.xml_files.items():
        if listed is not None and key not in listed:
            continue
        image_id = "/".join(key)
        try:
            content = read_voc_xml(file)
        except UnusableEntry as error:
            skipped.append(error.at(str(file)))
            if image := files.same_image(key):
                rows[image_id] = image
                unknown.append(image_id)
            continue
        rows[image_id] = files.image_of_xml(key, content.names)
        sizes[image_id] = content.size
        objects += ((image_id, name, box) for name, box in content.objects)
        skipped += content.skipped
    # An XML file may have taken an image of another name.
    without_file = files.unlabelled_images() if listed is None else sorted(listed - files.xml_files.keys())
    for key in filter(files.is_free, without_file):
        rows["/".join(key)] = files.images[key]
        unknown.append("/".join(key))
        reason = "the image has no XML file, so its labels are unknown"
        skipped.append(SkippedEntry(str(files.images[key]), reason, used_in_part=True))
    if not rows:
        first = f"; the first: {skipped[0].entry}: {skipped[0].reason}: {skipped[0].value}" if skipped else ""
        raise ValueError(f"{folder}: no image has an XML file that can be read{first}")
    ids = sorted(rows)
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    annotations = annotations_of_objects(
        ids,
        [rows[image_id] for image_id in ids],
        [(row_of[image_id], name, box) for image_id, name, box in objects],
        skipped=skipped,
        unknown_rows=[row_of[image_id] for image_id in unknown],
    )
    return replace(annotations, box_sizes=sizes_of(sizes.get(image_id, (0, 0)) for image_id in ids))


def _read_image_set(files: VocFiles, image_set: str, skipped: list[SkippedEntry]) -> set[Key]:
    """The keys of the XML files that a set lists, and those of its images without one.

    Lines that mean neither are added to skipped.
    """
    lists = _lists_of(files.folder, image_set)
    if not lists:
        words = words_for_split(image_set)
        keys = {key for key in (*files.xml_files, *files.unlabelled_images()) if key[0] in words and len(key) > 1}
        if not keys:
            known = sorted({f.stem for f in list_files(files.folder, {".txt"}) if "ImageSets" in f.parts})
            has = f"; it has {', '.join(known)}" if known else ""
            raise ValueError(f"{files.folder}: no such image set or sub-folder: {image_set!r}{has}")
        return keys
    keys = set()
    for file in lists:
        parents = file.relative_to(files.folder).parts[:-1]
        sets = next((k for k, part in enumerate(parents) if part == "ImageSets"), 0)
        before = key_of((*parents[:sets], ""))[:-1]  # of VOC2012 in a folder of several years
        # File names need not be UTF-8; surrogateescape keeps their bytes.
        for number, line in read_lines(file, "image set", errors="surrogateescape"):
            if key := _key_of_line(files, before, line):
                keys.add(key)
            else:
                reason = "no XML file and no image has this name"
                skipped.append(UnusableEntry(reason, line).at(f"{file}: line {number}"))
    if not keys:
        raise ValueError(f"{lists[0]}: lists no image that exists")
    return keys


def _lists_of(folder: Path, image_set: str) -> list[Path]:
    """The files that list an image set: those below ImageSets/Main first, of all years, or one in the folder itself."""
    files = [file for file in list_files(folder, {".txt"}) if "ImageSets" in file.parts or file.parent == folder]
    for word in words_for_split(image_set):
        named = [file for file in files if file.stem in (word, f"{word}_list")]
        if named:
            return [file for file in named if file.parent.name == "Main"] or named
    return []


def _key_of_line(files: VocFiles, before: Key, line: str) -> Key | None:
    """The key that a line means: a name with or without folders and suffix, a flag, or the XML file behind it."""
    words = line.split()
    without_flag = [line[: -len(words[-1])].strip()] if words[-1] in _FLAGS else []
    for text in (line, *without_flag, words[0]):
        parts = text.replace("\\", "/").split("/")
        key = key_of(parts)
        is_absolute = not parts[0] or parts[0].endswith(":")
        for end in (key[start:] for start in range(len(key) if is_absolute else 1)):
            if found := files.find_xml((*before, *end)) or files.find_image((*before, *end)):
                return found
    return None
