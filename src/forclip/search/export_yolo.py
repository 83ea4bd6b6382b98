"""Write a selection as a YOLO dataset."""

from pathlib import Path

import yaml

from forclip.search.export_pictures import CopyPicture, copy_picture, exported_name
from forclip.search.selection import Selection


def write_yolo(selection: Selection, to: Path, copy: CopyPicture = copy_picture) -> None:
    """Write a folder that Ultralytics trains on: `images/`, `labels/` and `data.yaml`, written last.

    The layout follows docs.ultralytics.com/datasets/detect: one text file per image, with the class number and the box
    (centre, width and height, as fractions of the upright image). `data.yaml` has no `path`, so that the folder can be
    moved. A selection that is not split is also its validation set, because Ultralytics requires one. copy: copies one
    picture; its errors are passed on.

    Raises ValueError for a selection without a label, and for an image without a region, which would count as one that
    shows nothing.
    """
    if not selection.label:
        raise ValueError("a YOLO dataset needs the name of what the images show: give a text or a label")
    parts = dict.fromkeys(item.part or "train" for item in selection.items)
    for part in parts:
        (to / "images" / part).mkdir(parents=True)
        (to / "labels" / part).mkdir(parents=True)
    for rank, item in enumerate(selection.items, start=1):
        if item.box is None:
            raise ValueError(f"{item.image_id}: has no region, which a YOLO label needs; choose another format")
        part, (name, suffix) = item.part or "train", exported_name(rank, item.path)
        copy(item, to / "images" / part / f"{name}{suffix}")
        x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in item.box)
        numbers = ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
        line = " ".join(["0", *(f"{number:.6f}" for number in numbers)])
        (to / "labels" / part / f"{name}.txt").write_text(f"{line}\n", encoding="utf-8")
    train, val = ("train" if "train" in parts else "val"), ("val" if "val" in parts else "train")
    content = {"train": f"images/{train}", "val": f"images/{val}", "names": {0: selection.label}}
    (to / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
