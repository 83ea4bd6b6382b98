"""Write a selection as tasks for Label Studio."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from forclip.search.selection import Item, Selection

_LOCAL_FILES = "/data/local-files/?d="  # below LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT


def write_label_studio(selection: Selection, to: Path) -> None:
    """Write a JSON file of tasks with boxes as predictions, to check and correct in Label Studio.

    The layout follows labelstud.io/guide/predictions. It fits the template "Object Detection with Bounding Boxes",
    whose tags are called `label` and `image`. `data.image` is a file below Label Studio's document root, which the
    selection's root must be (without one: `/`), or the picture's own URL. Boxes are percentages of the upright image.

    Raises ValueError for an image with a region whose size is unknown.
    """
    tasks = []
    for rank, item in enumerate(selection.items, start=1):
        name = selection.name_of(item)
        url = name if "://" in name else f"{_LOCAL_FILES}{quote(name.lstrip('/'))}"
        data = {"image": url, "label": selection.label, "rank": rank, "score": item.score, "image_id": item.image_id}
        if item.probability is not None:
            data["probability"] = item.probability
        task: dict[str, Any] = {"data": data}
        if selection.label and item.box is not None:
            task["predictions"] = [_prediction(item, selection.label)]
        tasks.append(task)
    to.write_text(json.dumps(tasks), encoding="utf-8")


def _prediction(item: Item, label: str) -> dict[str, Any]:
    assert item.box is not None
    _ = item.pixel_box  # raises for an unknown size
    x0, y0, x1, y1 = (100 * min(max(edge, 0.0), 1.0) for edge in item.box)
    box = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rotation": 0}
    score = item.score if item.probability is None else item.probability
    region = {
        "id": uuid5(NAMESPACE_URL, f"{item.image_id} {label}").hex[:10],
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": item.width,
        "original_height": item.height,
        "image_rotation": 0,
        "score": score,
        "value": {**box, "rectanglelabels": [label]},
    }
    return {"model_version": "forclip", "score": score, "result": [region]}
