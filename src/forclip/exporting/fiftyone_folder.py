"""A selection as a folder that FiftyOne imports: FiftyOneImageDetectionDataset, `data/` and `labels.json`.

Its documentation (docs.voxel51.com, "Importing data") says what is in labels.json: `classes`, and under `labels` for
each file of `data/`, by its name without the ending, detections with `label`, `bounding_box` (x, y, width, height as
fractions), `confidence` and `attributes`.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forclip.exporting.selection import Item, Selection

_UNFIT = re.compile(r'[\x00-\x1f\\/:*?"<>|]')  # for a name, on one system or another


def copy_picture(item: Item, to: Path) -> None:
    """Raises ValueError for one that is not there any more."""
    try:
        shutil.copyfile(item.path, to)
    except OSError as error:
        raise ValueError(f"{item.path}: can't be copied: {error.strerror}") from None


def write_fiftyone(selection: Selection, to: Path, copy: Callable[[Item, Path], None] = copy_picture) -> None:
    """Copies the pictures, and raises what copy does; labels.json is written last."""
    data = to / "data"
    data.mkdir(parents=True)
    labels = {}
    for rank, item in enumerate(selection.items, start=1):
        name = _UNFIT.sub("_", f"{rank:06d}_{item.path.stem}")  # two folders may hold the same name
        copy(item, data / _UNFIT.sub("_", f"{name}{item.path.suffix}"))
        labels[name] = _detections(selection.label, item)
    content = {"classes": [selection.label] if selection.label else [], "labels": labels}
    (to / "labels.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _detections(label: str, item: Item) -> list[dict[str, Any]] | None:
    """None for an image without a label. label: the place of its name in `classes`."""
    if not label or item.box is None:
        return None
    x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in item.box)
    confidence = item.score if item.probability is None else item.probability
    attributes = {"score": item.score, "image_id": item.image_id}  # `id` is FiftyOne's own
    box = [x0, y0, x1 - x0, y1 - y0]
    return [{"label": 0, "bounding_box": box, "confidence": confidence, "attributes": attributes}]
