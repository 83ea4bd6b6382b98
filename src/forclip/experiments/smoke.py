"""Generate a few images with annotation files in each dataset's real schema, to try a recipe in seconds."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from forclip.data.formats.nuimages import NUIMAGES_NOVEL, READABLE_NAMES
from forclip.data.splits import COCO_BASE, COCO_NOVEL

_SIDE, _LABELS_PER_IMAGE = 64, 3
_PARTS = {"train": 16, "val": 8}
_LVIS_NAMES = ("aerosol_can", "alarm_clock", "crab_(animal)", "mitten", "nut", "parasail", "quilt", "trench_coat")


def write_smoke_dataset(dataset: str, root: Path) -> None:
    """Write a dataset (coco, lvis or nuimages) below root, with 16 training and 8 validation images."""
    match dataset:
        case "coco":
            names = sorted((*COCO_BASE, *COCO_NOVEL))
            categories = [{"id": k + 1, "name": name, "supercategory": "thing"} for k, name in enumerate(names)]
            _write_coco(root, categories, "annotations/instances_{}2017.json")
        case "lvis":
            categories = [
                {"id": k + 1, "name": name, "synonyms": [name], "frequency": "rcf"[k % 3], "synset": f"{name}.n.01"}
                for k, name in enumerate(_LVIS_NAMES)
            ]
            _write_coco(root, categories, "lvis_v1_{}.json")
        case "nuimages":
            _write_nuimages(root)


def _write_coco(root: Path, categories: list[dict[str, Any]], annotation_file: str) -> None:
    """Write COCO 2017's layout, or LVIS v1's: federated, with images in COCO's folders that are named by URL only."""
    for part in _PARTS:
        images, annotations = [], []
        for k, (file, labels) in enumerate(_images(root / f"{part}2017", part, len(categories))):
            image = {"id": k, "file_name": file.name, "width": _SIDE, "height": _SIDE}
            if "lvis" in annotation_file:
                del image["file_name"]
                image["coco_url"] = f"http://images.cocodataset.org/{part}2017/{file.name}"
                image["neg_category_ids"] = [c + 1 for c in range(len(categories)) if c not in labels][:4]
                image["not_exhaustive_category_ids"] = []
            images.append(image)
            box = {"bbox": [8, 8, 32, 32], "area": 1024, "iscrowd": 0}
            annotations += [{"image_id": k, "category_id": c + 1, **box} for c in labels]
        annotations = [{"id": k, **annotation} for k, annotation in enumerate(annotations)]
        content = {"images": images, "categories": categories, "annotations": annotations}
        _write_json(root / annotation_file.format(part), content)


def _write_nuimages(root: Path) -> None:
    """Write nuImages' relational tables, with an unannotated frame next to each keyframe."""
    rare = [dotted for dotted, (name, *_) in READABLE_NAMES.items() if name in NUIMAGES_NOVEL]
    names = [*rare, *[dotted for dotted in READABLE_NAMES if dotted not in rare][:6]]
    categories = [{"token": f"category-{k}", "name": name, "description": ""} for k, name in enumerate(names)]
    for part in _PARTS:
        tables: dict[str, list[dict[str, Any]]] = {
            "category": categories,
            "sample": [],
            "sample_data": [],
            "object_ann": [],
        }
        for k, (file, labels) in enumerate(_images(root / "samples" / f"CAM_{part.upper()}", part, len(names))):
            sample, keyframe = f"sample-{part}-{k}", f"data-{part}-{k}-True"
            tables["sample"].append({"token": sample, "timestamp": k, "key_camera_token": keyframe})
            frame = {"sample_token": sample, "filename": file.relative_to(root).as_posix()}
            for key in (True, False):
                token = {"token": f"data-{part}-{k}-{key}", "is_key_frame": key}
                tables["sample_data"].append({**token, **frame, "width": _SIDE, "height": _SIDE})
            for c in labels:
                label = {"token": f"box-{part}-{k}-{c}", "category_token": f"category-{c}"}
                box = {"bbox": [8, 8, 40, 40], "attribute_tokens": [], "mask": None}
                tables["object_ann"].append({**label, "sample_data_token": keyframe, **box})
        for table, rows in tables.items():
            _write_json(root / f"v1.0-{part}" / f"{table}.json", rows)


def _images(folder: Path, part: str, num_classes: int) -> Iterator[tuple[Path, list[int]]]:
    """Write images of noise. Yields each file and its classes, which take turns so that many are shown."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(_PARTS[part]):
        file = folder / f"{k:012d}.jpg"
        noise = np.random.default_rng([k, *folder.name.encode()]).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).resize((_SIDE, _SIDE)).save(file)
        yield file, [(_LABELS_PER_IMAGE * k + j) % num_classes for j in range(_LABELS_PER_IMAGE)]


def _write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
