"""A selection as a COCO instances file: boxes as suggestions, each with its score (cocodataset.org/#format-data)."""

import json
from pathlib import Path
from typing import Any

from forclip.exporting.selection import Item, Selection


def write_coco(selection: Selection, to: Path) -> None:
    """Ids count from 1 in the selection's order. `score` is the cosine, `probability` stands where there is one."""
    category = [{"id": 1, "name": selection.label, "supercategory": ""}] if selection.label else []
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, item in enumerate(selection.items, start=1):
        name = selection.name_of(item)
        images.append({"id": number, "file_name": name, "width": item.width, "height": item.height})
        if category and item.box is not None:
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, **_instance(item)})
    root = "" if selection.root is None else str(selection.root)
    info = {"description": "forclip: boxes are suggestions, nobody has checked them", "image_folder": root}
    content = {"info": info, "images": images, "annotations": annotations, "categories": category}
    to.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _instance(item: Item) -> dict[str, Any]:
    box = item.pixel_box
    assert box is not None
    sure = {} if item.probability is None else {"probability": item.probability}
    return {"bbox": list(box), "area": round(box[2] * box[3], 2), "iscrowd": 0, "score": item.score, **sure}
