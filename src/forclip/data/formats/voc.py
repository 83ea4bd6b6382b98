"""Pascal VOC's layout: one XML file an image, its boxes counted from 1 (VOC2012 development kit)."""

from collections.abc import Iterator
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from forclip.data.formats.folder import IMAGE_SUFFIXES
from forclip.data.formats.paths import inside
from forclip.types import Annotations


@dataclass(frozen=True)
class _Picture:
    """One XML file. objects: class name and box, xyxy in pixels from 0."""

    path: Path
    objects: list[tuple[str, list[float]]]


def load_voc(folder: Path, image_set: str | None) -> Annotations:
    """Images sorted by id, which is the XML file's name without .xml; classes are those named in the set, by name.

    folder: has Annotations/ and JPEGImages/; image_set: ImageSets/Main/<image_set>.txt says which files, None: all.
    Boxes are inclusive and counted from 1 in the file; here xmin - 1, ymin - 1, xmax, ymax. Objects marked difficult
    are labelled and boxed as others are: VOC leaves them out of its scores, but the image does show them.
    Raises ValueError, naming the file and the entry, for a missing or malformed file, an XML file with a DOCTYPE, an
    object without a name or a box, or a file name that leaves the folder.
    """
    stems = sorted(_stems(folder, image_set))
    pictures = [_read_picture(folder, stem) for stem in stems]
    names = sorted({name for picture in pictures for name, _ in picture.objects})
    column = {name: k for k, name in enumerate(names)}
    found = [(row, column[name], box) for row, p in enumerate(pictures) for name, box in p.objects]
    pairs = np.array([(row, k) for row, k, _ in found], np.int64).reshape(-1, 2)
    labels = np.zeros((len(stems), len(names)), bool)
    labels[pairs[:, 0], pairs[:, 1]] = True
    return Annotations(
        image_ids=tuple(stems),
        paths=tuple(picture.path for picture in pictures),
        class_names=tuple(names),
        labels=labels,
        boxes=np.array([box for _, _, box in found], np.float32).reshape(-1, 4),
        box_images=pairs[:, 0],
        box_classes=pairs[:, 1],
    )


def _stems(folder: Path, image_set: str | None) -> set[str]:
    if image_set is None:
        stems = {file.stem for file in (folder / "Annotations").glob("*.xml")}
        if not stems:
            raise ValueError(f"{folder / 'Annotations'}: no XML files found")
        return stems
    sets = folder / "ImageSets" / "Main"
    file = inside(sets, f"{image_set}.txt", sets, "the image set")
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise ValueError(f"{file}: no such image set") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not readable as text: {error}") from None
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise ValueError(f"{file}: lists no image")
    for number, stem in numbered:
        # Not Path's own: that raises for a name that is too long, which is just one that is not there.
        if not isfile(inside(folder / "Annotations", f"{stem}.xml", file, f"line {number}")):
            raise ValueError(f"{file}: line {number} names {stem!r}, but there is no Annotations/{stem}.xml")
    return {stem for _, stem in numbered}


def _read_picture(folder: Path, stem: str) -> _Picture:
    file = folder / "Annotations" / f"{stem}.xml"
    root = _read_xml(file)
    if root.tag != "annotation":
        raise ValueError(f"{file}: holds <{root.tag}>, not a VOC <annotation>")
    return _Picture(_image(folder, stem, file, root.findtext("filename") or ""), list(_objects(file, root)))


class _NoDoctype(ElementTree.TreeBuilder):
    """Entities are declared in a DOCTYPE, and VOC has no use for one: without it, nothing can expand.

    The parser says when it meets one, so that no encoding of the file can hide it.
    """

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a DOCTYPE, which is refused because entities can be declared there")


def _read_xml(file: Path) -> "ElementTree.Element[str]":
    parser = ElementTree.XMLParser(target=_NoDoctype())
    try:
        parser.feed(file.read_bytes())
        root: ElementTree.Element[str] = parser.close()
    except (OSError, ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise ValueError(f"{file}: not readable as XML: {error}") from None
    return root


def _image(folder: Path, stem: str, file: Path, filename: str) -> Path:
    """By the XML file's name, as VOC's own kit finds it; else as `filename` says, where a tool wrote PNGs."""
    images = folder / "JPEGImages"
    usual = images / f"{stem}.jpg"
    if usual.exists() or Path(filename).suffix.lower() not in IMAGE_SUFFIXES:
        return usual
    return inside(images, filename, file, "<filename>")


def _objects(file: Path, root: "ElementTree.Element[str]") -> Iterator[tuple[str, list[float]]]:
    for number, found in enumerate(root.findall("object"), start=1):
        # Direct children only: the parts of a person (head, hand, foot) have names and boxes of their own.
        name = (found.findtext("name") or "").strip()
        if not name:
            raise ValueError(f"{file}: object {number} has no name")
        yield name, _xyxy(f"{file}: object {number} ({name})", found.find("bndbox"))


def _xyxy(where: str, box: "ElementTree.Element[str] | None") -> list[float]:
    if box is None:
        raise ValueError(f"{where} has no bndbox")
    texts = [box.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(text or "") for text in texts)
    except ValueError:
        raise ValueError(f"{where} has the box {texts}, not four numbers") from None
    # No picture is as large as the bound; NaN and infinity are not below it either.
    if not all(abs(v) < 1e9 for v in (left, top, right, bottom)) or right < left or bottom < top:
        raise ValueError(f"{where} has the box {texts}, not xmin, ymin, xmax, ymax")
    # Tools that count from 0 write 0 for the first pixel. What lies outside the picture stays outside.
    return [max(left - 1, min(left, 0)), max(top - 1, min(top, 0)), right, bottom]
