"""CVAT's own XML files, "CVAT for images 1.1"."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from forclip.data.formats.common import LabelledObject, UnusableEntry, annotations_of_objects, box_problem
from forclip.data.formats.file_names import FileNames
from forclip.data.formats.voc_xml import Element, read_xml
from forclip.data.images.box_frames import sizes_of
from forclip.data.left_out import none_usable
from forclip.types import Annotations, SkippedEntry

_SHAPES = ("box", "polygon", "polyline", "points", "ellipse", "mask", "cuboid", "skeleton", "tag")


def load_cvat(source: Path, subset: str | None, image_folder: Path | None = None) -> Annotations:
    """Load images sorted by id (the path relative to the image folder), with classes in the order of the file.

    source: an XML file, or a folder with `annotations.xml`, as CVAT exports it (docs.cvat.ai, "CVAT"). subset: the
    images of one subset of a project. image_folder: None means `images` next to the XML file, or else its folder.

    Polygons, ellipses, masks, cuboids and rotated boxes become their bounding boxes; points, skeletons and tags are
    labels without a box. An image without a shape shows nothing. Left out are images without a usable name, shapes
    without a label, and tracks; a shape whose coordinates can't be used has no box.

    Raises ValueError, naming the file, for one that is missing or no such XML, that has only tracks (CVAT for video),
    of which no image can be used, and for a subset that no image has.
    """
    file = source / "annotations.xml" if source.is_dir() else source
    try:
        root = read_xml(file)
    except UnusableEntry as error:
        raise ValueError(f"{file}: {error}") from None
    if root.tag != "annotations":
        raise ValueError(f"{file}: is no CVAT annotation: it starts with <{root.tag}>")
    if image_folder is None:
        image_folder = file.parent / "images" if (file.parent / "images").is_dir() else file.parent
    images, tracks = root.findall("image"), root.findall("track")
    if tracks and not images:
        raise ValueError(f'{file}: holds tracks of a video, which are not read; export "CVAT for images" instead')
    if subset is not None:
        known = sorted({image.get("subset", "") for image in images} - {""})
        images = [image for image in images if image.get("subset", "").lower() == subset.lower()]
        if not images:
            raise ValueError(f"{file}: has no subset {subset!r}, only {', '.join(known) or 'images without one'}")
    if not images:
        raise ValueError(f"{file}: has no image")
    skipped = [SkippedEntry(f"{file}: track {track.get('id', '')}", "a track of a video") for track in tracks]
    names, paths = FileNames(image_folder), dict[str, Path]()
    sizes: dict[str, tuple[str | None, str | None]] = {}
    objects: list[tuple[str, str, Sequence[float] | None]] = []
    for number, image in enumerate(images, start=1):
        where = f"{file}: image {image.get('id', number)}"
        try:
            path = _find_picture(names, image.get("name", ""), image.get("subset", ""))
        except UnusableEntry as error:
            skipped.append(error.at(where))
            continue
        image_id = path.relative_to(image_folder).as_posix() if path.is_relative_to(image_folder) else path.as_posix()
        paths[image_id], sizes[image_id] = path, (image.get("width"), image.get("height"))
        for shape in image:
            label = shape.get("label", "").strip()
            try:
                if shape.tag not in _SHAPES:
                    raise UnusableEntry("the shape is of an unknown kind", shape.tag)
                if not label:
                    raise UnusableEntry("the shape has no label")
            except UnusableEntry as error:
                skipped.append(error.at(where))
                continue
            box = None
            try:
                box = _box(shape)
            except UnusableEntry as error:
                skipped.append(error.at(where, used_in_part=True))
            objects.append((image_id, label, box))
    if not paths:
        raise none_usable(file, f"{len(images)} images", skipped)
    declared = [e for e in root.iterfind("meta//labels/label") if not e.findtext("parent")]  # no parts of skeletons
    class_names = dict.fromkeys([*((e.findtext("name") or "").strip() for e in declared), *(o[1] for o in objects)])
    class_names.pop("", None)
    ids = sorted(paths)
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    of_rows: list[LabelledObject] = [(row_of[image_id], label, box) for image_id, label, box in objects]
    annotations = annotations_of_objects(ids, [paths[i] for i in ids], of_rows, list(class_names), skipped=skipped)
    return replace(annotations, box_sizes=sizes_of(sizes[i] for i in ids))


def _find_picture(names: FileNames, name: str, subset: str) -> Path:
    """The picture that an image means. Exports of projects keep it in a folder named as its subset."""
    if subset and names.find(name) is None and (path := names.find(f"{subset}/{name}")):
        return path
    return names.resolve(name)


def _box(shape: Element) -> list[float] | None:
    """xyxy in pixels, None for a shape without one. Raises UnusableEntry."""
    match shape.tag:
        case "box":
            x0, y0, x1, y1 = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
            corners = _turned((x0 + x1) / 2, (y0 + y1) / 2, abs(x1 - x0) / 2, abs(y1 - y0) / 2, _angle(shape))
        case "ellipse":
            x, y, radius_x, radius_y = _numbers(shape, "cx", "cy", "rx", "ry")
            angle = _angle(shape)
            half_x = math.hypot(radius_x * math.cos(angle), radius_y * math.sin(angle))
            half_y = math.hypot(radius_x * math.sin(angle), radius_y * math.cos(angle))
            corners = [x - half_x, y - half_y, x + half_x, y + half_y]
        case "mask":
            x, y, width, height = _numbers(shape, "left", "top", "width", "height")
            corners = [x, y, x + width, y + height]
        case "polygon" | "polyline":
            try:
                points = [[float(n) for n in point.split(",")] for point in shape.get("points", "").split(";")]
                xs, ys = zip(*points, strict=True)
            except ValueError:
                raise UnusableEntry("the points are no pairs of numbers", shape.get("points", "")) from None
            corners = [min(xs), min(ys), max(xs), max(ys)]
        case "cuboid":
            keys = [key for key in shape.keys() if key[:2] in ("xt", "xb", "yt", "yb")]  # noqa: SIM118
            across = _numbers(shape, *(key for key in keys if key[0] == "x"))
            down = _numbers(shape, *(key for key in keys if key[0] == "y"))
            if not across or not down:
                raise UnusableEntry("the box does not consist of numbers")
            corners = [min(across), min(down), max(across), max(down)]
        case _:
            return None
    if problem := box_problem(corners):
        raise UnusableEntry(problem, corners)
    return corners


def _numbers(shape: Element, *keys: str) -> list[float]:
    try:
        return [float(shape.get(key, "")) for key in keys]
    except ValueError:
        raise UnusableEntry("the box does not consist of numbers", [shape.get(key) for key in keys]) from None


def _angle(shape: Element) -> float:
    """The rotation, in radians."""
    return math.radians(_numbers(shape, "rotation")[0]) if shape.get("rotation") else 0.0


def _turned(x: float, y: float, half_width: float, half_height: float, angle: float) -> list[float]:
    """The bounding box of a rectangle that is turned around its centre."""
    if not angle:
        return [x - half_width, y - half_height, x + half_width, y + half_height]
    half_x = abs(half_width * math.cos(angle)) + abs(half_height * math.sin(angle))
    half_y = abs(half_width * math.sin(angle)) + abs(half_height * math.cos(angle))
    return [x - half_x, y - half_y, x + half_x, y + half_y]
