"""Write a selection in CVAT's format."""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from forclip.search.export_pictures import CopyPicture, copy_picture, exported_name
from forclip.search.selection import Item, Selection

Element = ElementTree.Element


def write_cvat(selection: Selection, to: Path, copy: CopyPicture = copy_picture) -> None:
    """Write "CVAT for images 1.1": a file for a target that ends in .xml, else a folder with the pictures.

    The layout follows docs.cvat.ai, "CVAT": the folder has `images/` and `annotations.xml`, written last. Boxes are in
    pixels of the upright image and have the attributes `score` and, where it is known, `probability`; `source` is
    auto. An image without a region gets a tag. Parts of a split are subsets of a project. copy: copies one picture; its
    errors are passed on.

    Raises ValueError for an image whose size is unknown, and for text that XML cannot hold.
    """
    is_file = to.suffix.lower() == ".xml"
    names = [selection.name_of(item) for item in selection.items]
    if not is_file:
        (to / "images").mkdir(parents=True)
        for rank, item in enumerate(selection.items, start=1):
            names[rank - 1] = "".join(exported_name(rank, item.path))
            copied = to.joinpath("images", item.part, names[rank - 1])
            copied.parent.mkdir(exist_ok=True)
            copy(item, copied)
    root = Element("annotations")
    _add(root, "version", "1.1")
    _add_meta(root, selection)
    for number, (item, name) in enumerate(zip(selection.items, names, strict=True)):
        if not (item.width > 0 and item.height > 0):
            raise ValueError(f"{item.image_id}: the store does not know its size in pixels: index it again")
        image = ElementTree.SubElement(root, "image", id=str(number), name=_text(name))
        if item.part:
            image.set("subset", item.part)
        image.set("width", str(item.width))
        image.set("height", str(item.height))
        if selection.label:
            _add_object(image, selection.label, item)
    ElementTree.indent(root)
    file = to if is_file else to / "annotations.xml"
    file.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _add_meta(root: Element, selection: Selection) -> None:
    """Describe the task, or a project with a task for each part, and declare the label with its attributes."""
    parts = Counter(item.part for item in selection.items)
    if "" in parts:
        owner = task = _add(_add(root, "meta"), "task")
        _add(task, "name", selection.label)
        _add(task, "size", str(len(selection.items)))
    else:
        owner = _add(_add(root, "meta"), "project")
        _add(owner, "name", selection.label)
        tasks = _add(owner, "tasks")
        for number, (part, size) in enumerate(parts.items()):
            task = _add(tasks, "task")
            for tag, text in (("id", str(number)), ("name", part), ("size", str(size)), ("subset", part)):
                _add(task, tag, text)
    _add_labels(_add(owner, "labels"), selection.label)


def _add_labels(labels: Element, name: str) -> None:
    if name:
        label = _add(labels, "label")
        _add(label, "name", name)
        attributes = _add(label, "attributes")
        for attribute in ("score", "probability"):
            declared = _add(attributes, "attribute")
            for tag, value in (("name", attribute), ("mutable", "False"), ("input_type", "text")):
                _add(declared, tag, value)
            _add(declared, "default_value")
            _add(declared, "values")


def _add_object(image: Element, label: str, item: Item) -> None:
    if (box := item.pixel_box) is None:
        added = ElementTree.SubElement(image, "tag", label=_text(label), source="auto")
    else:
        x, y, width, height = box
        edges = {"xtl": x, "ytl": y, "xbr": x + width, "ybr": y + height}
        texts = {edge: f"{value:.2f}" for edge, value in edges.items()}
        added = ElementTree.SubElement(
            image, "box", {"label": _text(label), "source": "auto", "occluded": "0", **texts, "z_order": "0"}
        )
    for name, value in (("score", item.score), ("probability", item.probability)):
        if value is not None:
            _add(added, "attribute", f"{value:.4f}").set("name", name)


def _add(parent: Element, tag: str, text: str = "") -> Element:
    added = ElementTree.SubElement(parent, tag)
    added.text = _text(text) or None
    return added


def _text(text: str) -> str:
    """The text, if XML 1.0 can hold it."""
    if any(ord(c) < 0x20 and c not in "\t\n\r" for c in text) or any(c in "\ufffe\uffff" for c in text):
        raise ValueError(f"{text!r}: XML cannot hold this text; choose another format")
    return text
