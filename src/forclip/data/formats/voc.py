"""Pascal VOC: one XML file per image (VOC2012 development kit)."""

from dataclasses import replace
from os.path import isfile
from pathlib import Path
from xml.etree import ElementTree

from forclip.config import read_lines
from forclip.data.formats.common import LabelledObject, annotations_of_objects, check_corners, path_inside
from forclip.data.formats.folder import IMAGE_SUFFIXES
from forclip.data.images.box_frames import sizes_of
from forclip.types import Annotations


def load_voc(folder: Path, image_set: str | None) -> Annotations:
    """Load images sorted by id (the name of the XML file without .xml), with the set's classes sorted by name.

    folder: holds Annotations/ and JPEGImages/. image_set: ImageSets/Main/<image_set>.txt lists the files; None takes
    all. Boxes in the file are inclusive and counted from 1; they become xmin - 1, ymin - 1, xmax, ymax. Objects marked
    difficult count like others: VOC leaves them out of its scores, but the image does show them.
    Raises ValueError, naming the file and the entry, for a missing or malformed file, an XML file with a DOCTYPE, an
    object without a name or a box, or a file name that leaves the folder.
    """
    stems = sorted(_image_ids(folder, image_set))
    paths: list[Path] = []
    objects: list[LabelledObject] = []
    sizes: list[tuple[str | None, str | None]] = []
    for row, stem in enumerate(stems):
        file = folder / "Annotations" / f"{stem}.xml"
        root = _read_xml(file)
        paths.append(folder / "JPEGImages" / f"{stem}.jpg")
        sizes.append((root.findtext("size/width"), root.findtext("size/height")))
        filename = root.findtext("filename") or ""
        # Tools that write PNGs say so there; in VOC's own kit it only repeats the name.
        if not paths[row].exists() and Path(filename).suffix.lower() in IMAGE_SUFFIXES:
            paths[row] = path_inside(folder / "JPEGImages", filename, f"{file}: <filename>")
        # Direct children only: the parts of a person (head, hand, foot) have names and boxes too.
        for number, element in enumerate(root.findall("object"), start=1):
            name = (element.findtext("name") or "").strip()
            if not name:
                raise ValueError(f"{file}: object {number} has no name")
            where = f"{file}: object {number} ({name})"
            box = element.find("bndbox")
            if box is None:
                raise ValueError(f"{where} has no bndbox")
            texts = [box.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")]
            try:
                left, top, right, bottom = (float(text or "") for text in texts)
            except ValueError:
                raise ValueError(f"{where} has the box {texts}, not four numbers") from None
            check_corners((left, top, right, bottom), where)
            # Tools that count from 0 write 0 for the first pixel. Coordinates outside the image stay as they are.
            objects.append((row, name, (max(left - 1, min(left, 0)), max(top - 1, min(top, 0)), right, bottom)))
    return replace(annotations_of_objects(stems, paths, objects), box_sizes=sizes_of(sizes))


def _image_ids(folder: Path, image_set: str | None) -> set[str]:
    if image_set is None:
        stems = {file.stem for file in (folder / "Annotations").glob("*.xml")}
        if not stems:
            raise ValueError(f"{folder / 'Annotations'}: no XML files found")
        return stems
    sets = folder / "ImageSets" / "Main"
    file = path_inside(sets, f"{image_set}.txt", f"{sets}: the image set")
    lines = read_lines(file, "image set")
    if not lines:
        raise ValueError(f"{file}: lists no image")
    for number, stem in lines:
        # Not Path.is_file: it raises for a name that is too long.
        if not isfile(path_inside(folder / "Annotations", f"{stem}.xml", f"{file}: line {number}")):
            raise ValueError(f"{file}: line {number} names {stem!r}, but there is no Annotations/{stem}.xml")
    return {stem for _, stem in lines}


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuse a DOCTYPE: VOC doesn't use one, and it can declare entities that expand without end.

    The parser reports it, so no encoding of the file can hide it.
    """

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a DOCTYPE, which could declare entities")


def _read_xml(file: Path) -> "ElementTree.Element[str]":
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        parser.feed(file.read_bytes())
        root: ElementTree.Element[str] = parser.close()
    except (OSError, ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as XML: {error}") from None
    if root.tag != "annotation":
        raise ValueError(f"{file}: holds <{root.tag}>, not a VOC <annotation>")
    return root
