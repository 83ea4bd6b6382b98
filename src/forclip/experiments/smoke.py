"""A handful of generated pictures with files of each dataset's real schema, to try a recipe on in seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from forclip.data.formats.nuimages import NUIMAGES_NOVEL, READABLE_NAMES
from forclip.data.splits import COCO_BASE, COCO_NOVEL

_SIDE, _LABELS_EACH = 64, 3
_PARTS = (("train", 16), ("val", 8))
_Labels = list[list[int]]  # for each picture, the numbers of its classes


def write_smoke_coco(root: Path) -> None:
    """COCO 2017's layout, with the classes of its published split."""
    names = sorted((*COCO_BASE, *COCO_NOVEL))
    categories = [{"id": k + 1, "name": name, "supercategory": "thing"} for k, name in enumerate(names)]
    for part, count in _PARTS:
        files = _write_pictures(root / f"{part}2017", count)
        images = [{"id": k, "file_name": f.name, "width": _SIDE, "height": _SIDE} for k, f in enumerate(files)]
        labels = _labels(count, len(names))
        content = {"images": images, "categories": categories, "annotations": _annotations(labels)}
        _write_json(root / "annotations" / f"instances_{part}2017.json", content)


def write_smoke_lvis(root: Path) -> None:
    """LVIS v1's: federated, pictures in COCO's folders and named by URL alone."""
    names = ["aerosol_can", "alarm_clock", "crab_(animal)", "mitten", "nut", "parasail", "quilt", "trench_coat"]
    categories = [
        {"id": k + 1, "name": name, "synonyms": [name], "frequency": "rcf"[k % 3], "synset": f"{name}.n.01"}
        for k, name in enumerate(names)
    ]
    for part, count in _PARTS:
        files = _write_pictures(root / f"{part}2017", count)
        labels = _labels(count, len(names))
        images = [
            {
                "id": k,
                "coco_url": f"http://images.cocodataset.org/{part}2017/{file.name}",
                "width": _SIDE,
                "height": _SIDE,
                "neg_category_ids": [c + 1 for c in range(len(names)) if c not in labels[k]][:4],
                "not_exhaustive_category_ids": [],
            }
            for k, file in enumerate(files)
        ]
        content = {"images": images, "categories": categories, "annotations": _annotations(labels)}
        _write_json(root / f"lvis_v1_{part}.json", content)


def write_smoke_nuimages(root: Path) -> None:
    """nuImages' relational tables, with a picture that is no keyframe for each that is one."""
    rare = [dotted for dotted, (name, *_) in READABLE_NAMES.items() if name in NUIMAGES_NOVEL]
    names = [*rare, *[dotted for dotted in READABLE_NAMES if dotted not in rare][:6]]
    categories = [{"token": f"category-{k}", "name": name, "description": ""} for k, name in enumerate(names)]
    for part, count in _PARTS:
        files = _write_pictures(root / "samples" / f"CAM_{part.upper()}", count)
        folder = root / f"v1.0-{part}"
        frames = [
            {
                "token": f"data-{part}-{k}-{key}",
                "sample_token": f"sample-{part}-{k}",
                "filename": file.relative_to(root).as_posix(),
                "width": _SIDE,
                "height": _SIDE,
                "is_key_frame": key,
            }
            for k, file in enumerate(files)
            for key in (True, False)
        ]
        samples = [
            {"token": f"sample-{part}-{k}", "timestamp": k, "key_camera_token": f"data-{part}-{k}-True"}
            for k in range(count)
        ]
        boxes = [
            {
                "token": f"box-{part}-{k}-{c}",
                "sample_data_token": f"data-{part}-{k}-True",
                "category_token": f"category-{c}",
                "bbox": [8, 8, 40, 40],
                "attribute_tokens": [],
                "mask": None,
            }
            for k, shown in enumerate(_labels(count, len(names)))
            for c in shown
        ]
        contents: dict[str, list[dict[str, Any]]] = {
            "category": categories,
            "sample": samples,
            "sample_data": frames,
            "object_ann": boxes,
        }
        for table, content in contents.items():
            _write_json(folder / f"{table}.json", content)


SMOKE_WRITERS: dict[str, Callable[[Path], None]] = {
    "coco": write_smoke_coco,
    "lvis": write_smoke_lvis,
    "nuimages": write_smoke_nuimages,
}


def _write_pictures(folder: Path, count: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{k:012d}.jpg" for k in range(count)]
    for k, file in enumerate(files):
        noise = np.random.default_rng([k, *folder.name.encode()]).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).resize((_SIDE, _SIDE)).save(file)
    return files


def _labels(count: int, num_classes: int) -> _Labels:
    """Classes in turn, so that as many as possible are shown."""
    return [[(_LABELS_EACH * k + j) % num_classes for j in range(_LABELS_EACH)] for k in range(count)]


def _annotations(labels: _Labels) -> list[dict[str, Any]]:
    pairs = [(image, c) for image, shown in enumerate(labels) for c in shown]
    return [
        {"id": k, "image_id": image, "category_id": c + 1, "bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0}
        for k, (image, c) in enumerate(pairs)
    ]


def _write_json(file: Path, content: dict[str, Any] | list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
