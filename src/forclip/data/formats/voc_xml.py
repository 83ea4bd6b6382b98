"""Read Pascal VOC's XML files, as many tools write them."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from forclip.data.formats.common import UnusableEntry, box_problem
from forclip.data.formats.text_encoding import decode_unknown
from forclip.data.images.box_frames import sizes_of
from forclip.types import SkippedEntry

_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_ENCODING = re.compile(rb"<\?xml[^>]*encoding=[\"']([\w.:-]+)[\"']")
_ROUNDING = 0.01  # how far rounding and resizing may lead out of the image, as a fraction of it; at least a pixel

Element = ElementTree.Element


@dataclass(frozen=True)
class VocFile:
    """What an XML file says about one image.

    objects: the name and the box of each, xyxy in pixels from 0, or None if it has none. size: width and height, 0 if
    the file does not say. names: what the file calls its image, the likeliest first. skipped: objects without a name,
    and those whose box can't be used.
    """

    objects: list[tuple[str, Sequence[float] | None]]
    size: tuple[int, int]
    names: list[str]
    skipped: list[SkippedEntry]


def read_voc_xml(file: Path) -> VocFile:
    """Read one file. Raises UnusableEntry for a file that is damaged, has a DOCTYPE, or is no VOC annotation."""
    root = read_xml(file)
    if root.tag != "annotation":
        raise UnusableEntry("the XML file is no VOC annotation", f"<{root.tag}>")
    width, height = sizes_of([(root.findtext("size/width"), root.findtext("size/height"))])[0].tolist()
    objects: list[tuple[str, Sequence[float] | None]] = []
    skipped = []
    # Direct children only: the parts of a person (head, hand, foot) have names and boxes too.
    for number, element in enumerate(root.findall("object"), start=1):
        where = f"{file}: object {number}"
        name = (element.findtext("name") or "").strip()
        if not name:
            skipped.append(SkippedEntry(where, "the object has no name"))
            continue
        box = None
        try:
            box = _box(element, width, height)
        except UnusableEntry as error:
            skipped.append(error.at(where, used_in_part=True))
        objects.append((name, box))
    texts = {tag: (root.findtext(tag) or "").strip() for tag in ("filename", "folder", "path")}
    names = [texts["filename"], texts["folder"] and f"{texts['folder']}/{texts['filename']}", texts["path"]]
    return VocFile(objects, (width, height), [name for name in names if name], skipped)


class _Builder(ElementTree.TreeBuilder):
    """Refuse a DOCTYPE, and drop namespaces.

    VOC doesn't use a DOCTYPE, and it can declare entities that expand without end. The parser reports it, so no
    encoding of the file can hide it.
    """

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it has a DOCTYPE, which could declare entities")

    def start(self, tag: str, attrs: dict[str, str]) -> Element:
        return super().start(tag.rpartition("}")[2], attrs)

    def end(self, tag: str) -> Element:
        return super().end(tag.rpartition("}")[2])


def read_xml(file: Path) -> Element:
    reason = "the XML file can't be read"
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UnusableEntry(reason, error.strerror) from None
    try:
        return _parse(content)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        # The encoding may be missing, wrong or unknown to the parser, and blanks may precede its declaration.
        for text in _texts(content):
            try:
                return _parse(_DECLARATION.sub("", text, count=1).lstrip("\ufeff \r\n\t"))
            except (ElementTree.ParseError, ValueError, RecursionError):
                continue
        raise UnusableEntry(reason, error) from None


def _parse(content: str | bytes) -> Element:
    parser = ElementTree.XMLParser(target=_Builder())
    parser.feed(content)
    root: Element = parser.close()
    return root


def _texts(content: bytes) -> list[str]:
    """The content as the encoding that it states decodes it, and as the likeliest one does."""
    texts = []
    stated = _ENCODING.search(content[:200])
    with suppress(LookupError, ValueError):
        if stated:
            texts.append(content.decode(stated[1].decode()))
    with suppress(ValueError):
        texts.append(decode_unknown(content, "").text)
    return texts


def _box(element: Element, width: int, height: int) -> Sequence[float] | None:
    """xyxy in pixels from 0, or None. width, height: of the image, or 0 if unknown."""
    if (box := element.find("bndbox")) is not None and len(box):
        left, top, right, bottom = _numbers([box.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")])
        left, right = sorted((left, right))
        top, bottom = sorted((top, bottom))
        # VOC counts from 1 and includes the last pixel. Tools that count from 0 write 0 for the first pixel.
        corners = [max(left - 1, min(left, 0)), max(top - 1, min(top, 0)), right, bottom]
    elif (rotated := element.find("robndbox")) is not None and len(rotated):  # roLabelImg's
        x, y, w, h, angle = _numbers([rotated.findtext(field) for field in ("cx", "cy", "w", "h", "angle")])
        half_x = (abs(w * math.cos(angle)) + abs(h * math.sin(angle))) / 2
        half_y = (abs(w * math.sin(angle)) + abs(h * math.cos(angle))) / 2
        corners = [x - half_x, y - half_y, x + half_x, y + half_y]
    elif (polygon := element.find("polygon")) is not None and len(polygon):
        # Roboflow's x1, y1, x2, ... and others' points with x and y.
        leaves = [leaf for leaf in polygon.iter() if not len(leaf)]
        xs, ys = (_numbers([leaf.text for leaf in leaves if re.fullmatch(rf"{axis}\d*", leaf.tag)]) for axis in "xy")
        if not xs or not ys:
            return None
        corners = [min(xs), min(ys), max(xs), max(ys)]
    else:
        return None
    if problem := box_problem(corners):
        raise UnusableEntry(problem, corners)
    limits = (width, height, width, height)
    return [_clip(value, limit) for value, limit in zip(corners, limits, strict=True)]


def _numbers(texts: Sequence[str | None]) -> list[float]:
    try:
        numbers = [float((text or "").replace(",", ".")) for text in texts]
    except ValueError:
        raise UnusableEntry("the box does not consist of numbers", texts) from None
    if not all(math.isfinite(number) for number in numbers):
        raise UnusableEntry("the box is not finite", numbers)
    return numbers


def _clip(value: float, limit: int) -> float:
    """A coordinate without what rounding leads out of the image. limit: the image's side, or 0 if unknown."""
    slack = max(1.0, _ROUNDING * limit)
    if -slack <= value < 0:
        return 0
    return limit if limit and limit < value <= limit + slack else value
