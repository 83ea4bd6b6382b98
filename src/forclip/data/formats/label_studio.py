"""Label Studio's JSON and JSON-MIN exports."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from forclip.data.formats.common import LabelledObject, UnusableEntry, annotations_of_objects, box_problem
from forclip.data.formats.dataset_files import image_suffixes
from forclip.data.formats.file_names import FileNames
from forclip.data.formats.json_file import Undecoded, read_json, shown
from forclip.data.images.box_frames import sizes_of
from forclip.data.images.image_sizes import ImageSizes, image_sizes
from forclip.data.left_out import none_usable
from forclip.types import Annotations, SkippedEntry

Fields = Mapping[str, Any]

# Control tags that mark a region; those with `labels` in their name hold its classes.
_REGIONS = ("rectangle", "polygon", "ellipse", "brush", "keypoint", "bitmask", "vector")
_CHOICE_KEYS = ("choice", "choices", "label", "labels", "class", "classes")  # of a plain text in JSON-MIN


def load_label_studio(file: Path, image_folder: Path, read_sizes: ImageSizes = image_sizes) -> Annotations:
    """Load images sorted by id (the path relative to image_folder), with classes sorted by name.

    file: an export as JSON or JSON-MIN (labelstud.io/guide/export). The picture of a task is `data.image`, or the first
    value that names a picture. read_sizes: reads the sizes of pictures.

    Rectangles, polygons and ellipses become boxes; brushes, masks, key points, choices and taxonomies are labels
    without a box. Of several annotations of a task those marked as ground truth count, or else all that were not
    skipped. A task without any is unverified for all classes. Predictions are not read.

    Left out are tasks without a usable picture and regions without a label; a region whose coordinates can't be used
    has no box. Raises ValueError, naming the file, for one that is missing or no list of tasks, or of which no task can
    be used.
    """
    content = read_json(file, list[dict[str, Any]], "an export of Label Studio")
    tasks = content.entries() if isinstance(content, Undecoded) else content
    if tasks is None:
        raise ValueError(f"{file}: is no list of tasks")
    if not tasks:
        raise ValueError(f"{file}: has no task")
    skipped: list[SkippedEntry] = []
    names, paths, known = FileNames(image_folder), dict[str, Path](), set[str]()
    sizes: dict[str, tuple[int, int]] = {}
    objects: list[tuple[str, str, Sequence[float] | None]] = []
    for number, task in enumerate(tasks):
        task = json.loads(bytes(task)) if isinstance(task, msgspec.Raw) else task
        where = f"{file}: task {task['id'] if isinstance(task, dict) and 'id' in task else f'[{number}]'}"
        try:
            if not isinstance(task, dict):
                raise UnusableEntry("the task is no object", shown(task))
            path = names.resolve(_picture(task))
        except UnusableEntry as error:
            skipped.append(error.at(where))
            continue
        image_id = path.relative_to(image_folder).as_posix() if path.is_relative_to(image_folder) else path.as_posix()
        paths[image_id] = path
        results = _results(task)
        if results is None:
            continue
        known.add(image_id)
        for value, size, is_region in results:
            labels = _labels(value)
            if not labels:
                if is_region:
                    skipped.append(SkippedEntry(where, "the region has no label"))
                continue
            box = None
            try:
                size = size or read_sizes([path])[0]
                box = _box(value, size)
                sizes |= {image_id: size} if size and box else {}
            except UnusableEntry as error:
                skipped.append(error.at(where, used_in_part=True))
            objects += [(image_id, label, box) for label in labels]
    if not paths:
        raise none_usable(file, f"{len(tasks)} tasks", skipped)
    ids = sorted(paths)
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    of_rows: list[LabelledObject] = [(row_of[image_id], label, box) for image_id, label, box in objects]
    unknown = [row_of[image_id] for image_id in ids if image_id not in known]
    annotations = annotations_of_objects(ids, [paths[i] for i in ids], of_rows, skipped=skipped, unknown_rows=unknown)
    return replace(annotations, box_sizes=sizes_of(sizes.get(i, (0, 0)) for i in ids))


def _picture(task: Fields) -> str:
    """The address of the task's picture. Raises UnusableEntry."""
    data = task.get("data", task)
    values = data if isinstance(data, dict) else {}
    if isinstance(values.get("image"), str) and values["image"].strip():
        return str(values["image"])
    for value in values.values():
        if isinstance(value, str) and Path(unquote(value).partition("?X-")[0]).suffix.lower() in image_suffixes():
            return value
    raise UnusableEntry("the task has no picture", shown(data))


Result = tuple[Fields, tuple[int, int] | None, bool]


def _results(task: Fields) -> list[Result] | None:
    """The value of each result, the picture's size, and whether it should have a label. None: nobody looked at it."""
    if "data" not in task:
        return list(_short_results(task))
    given = task.get("annotations") or task.get("completions") or []
    annotations = [a for a in given if isinstance(a, dict) and not (a.get("was_cancelled") or a.get("skipped"))]
    if not annotations:
        return None
    annotations = [a for a in annotations if a.get("ground_truth")] or annotations
    found: list[Result] = []
    for annotation in annotations:
        results = [
            r for r in annotation.get("result") or [] if isinstance(r, dict) and isinstance(r.get("value"), dict)
        ]
        labelled = {r.get("id") for r in results if _labels(r["value"])}
        for result in results:
            kind = str(result.get("type", ""))
            # A region of plain <Rectangle> has its label in another result of the same id.
            is_region = kind.startswith(_REGIONS) and (kind.endswith("labels") or result.get("id") not in labelled)
            found.append((result["value"], _size(result), is_region))
    return found


def _short_results(task: Fields) -> Iterator[Result]:
    """The results of JSON-MIN, which keeps them next to the data, below the name of their control tag."""
    for key, value in task.items():
        if isinstance(value, str) and key in _CHOICE_KEYS:
            yield {"choices": [value]}, None, False
        elif isinstance(value, dict):
            yield value, None, False
        elif isinstance(value, list):
            for one in value:
                if isinstance(one, dict):
                    yield one, _size(one), any(str(name).endswith("labels") for name in one)
                elif isinstance(one, str) and key in _CHOICE_KEYS:
                    yield {"choices": [one]}, None, False


def _labels(value: Fields) -> list[str]:
    """The classes of a result; of a taxonomy the last name of each path."""
    found: list[str] = []
    for key, given in value.items():
        if key.endswith("labels") or key in ("choices", "taxonomy"):
            for one in given if isinstance(given, list) else [given]:
                name = one[-1] if isinstance(one, list) and one else one
                found += [name.strip()] if isinstance(name, str) and name.strip() else []
    return list(dict.fromkeys(found))


def _size(fields: Fields) -> tuple[int, int] | None:
    width, height = sizes_of([(fields.get("original_width"), fields.get("original_height"))])[0].tolist()
    return (width, height) if width and height else None


def _box(value: Fields, size: tuple[int, int] | None) -> list[float] | None:
    """xyxy in pixels of the upright image, None for a result without one. Coordinates are percentages.

    Raises UnusableEntry.
    """
    points = value.get("points")
    if not (
        points or {"x", "y", "width", "height"} <= value.keys() or {"x", "y", "radiusX", "radiusY"} <= value.keys()
    ):
        return None
    if size is None:
        raise UnusableEntry("the size of the picture is unknown")
    across, down = size[0] / 100, size[1] / 100
    try:
        if points:
            xs, ys = zip(*((float(x) * across, float(y) * down) for x, y in points), strict=True)
            corners = [min(xs), min(ys), max(xs), max(ys)]
        else:
            x, y, angle = float(value["x"]) * across, float(value["y"]) * down, math.radians(value.get("rotation") or 0)
            cos, sin = math.cos(angle), math.sin(angle)
            if "radiusX" in value:
                width, height = float(value["radiusX"]) * across, float(value["radiusY"]) * down
                half_x, half_y = math.hypot(width * cos, height * sin), math.hypot(width * sin, height * cos)
                corners = [x - half_x, y - half_y, x + half_x, y + half_y]
            else:  # turned clockwise around its first corner
                width, height = float(value["width"]) * across, float(value["height"]) * down
                ends = [(dx * cos - dy * sin, dx * sin + dy * cos) for dx in (0, width) for dy in (0, height)]
                corners = [
                    *(x + min(e[0] for e in ends), y + min(e[1] for e in ends)),
                    *(x + max(e[0] for e in ends), y + max(e[1] for e in ends)),
                ]
    except (TypeError, ValueError):
        raise UnusableEntry("the box does not consist of numbers", shown(value)) from None
    if problem := box_problem(corners):
        raise UnusableEntry(problem, corners)
    return corners
