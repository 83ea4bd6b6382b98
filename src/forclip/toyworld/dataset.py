"""Generate the toy world's target domain: cluttered scenes as a dataset in COCO format."""

import gc
import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from forclip.interrupts import ignore_interrupts
from forclip.toyworld import pictographs, scenes

_NOVEL_FRACTION = 0.3
_SIDE = 224
_MIN_OBJECTS, _MAX_OBJECTS = 4, 8
_DOMAIN_SPLITS = {"train": 0, "gallery": 1}


@dataclass(frozen=True)
class ToyWorld:
    """The files of a generated world. novel: names of the classes that training must not use."""

    folder: Path
    novel: tuple[str, ...]

    @property
    def train_file(self) -> Path:
        return self.folder / "train.json"

    @property
    def gallery_file(self) -> Path:
        return self.folder / "gallery.json"

    @property
    def images(self) -> Path:
        return self.folder / "images"


def novel_names(seed: int) -> tuple[str, ...]:
    """Draw the novel classes of a seed: 30 % of the pictographs, sorted by name."""
    rng = np.random.default_rng([seed, 7])
    count = round(_NOVEL_FRACTION * len(pictographs.NAMES))
    return tuple(sorted(rng.choice(pictographs.NAMES, count, replace=False).tolist()))


def write_toyworld(
    folder: str | Path,
    num_train: int = 160,
    num_gallery: int = 60,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
    large_objects: bool = False,
) -> ToyWorld:
    """Draw the scenes and write train.json, gallery.json, novel.txt and the folder images.

    large_objects: whether each scene has one large object and up to two small ones, and not many small ones. The same
    seed gives the same files, and a scene does not depend on num_train or num_gallery. advance is called with
    the number of scenes drawn since the last call.
    """
    folder = Path(folder)
    world = ToyWorld(folder, novel_names(seed))
    world.images.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(min(8, os.cpu_count() or 1), initializer=_start_process) as workers:
        for split, count, file in (
            ("train", num_train, world.train_file),
            ("gallery", num_gallery, world.gallery_file),
        ):
            drawn = []
            for scene in workers.map(
                partial(_draw, world.images, split, large_objects, seed), range(count), chunksize=16
            ):
                drawn.append(scene)
                advance(1)
            file.write_text(json.dumps(_instances(drawn)))
    (folder / "novel.txt").write_text("\n".join(world.novel) + "\n")
    return world


def _start_process() -> None:
    ignore_interrupts()
    gc.freeze()  # a decoder of videos that a process inherits would wait for its threads for ever when it is freed


def _draw(
    folder: Path, split: str, large_objects: bool, seed: int, index: int
) -> tuple[str, tuple[scenes.PlacedObject, ...]]:
    """Draw and save one scene. Returns its file name and its objects."""
    rng = np.random.default_rng([seed, _DOMAIN_SPLITS[split] + 2 * large_objects, index])
    fewest, most, draw = (1, 3, scenes.postcard) if large_objects else (_MIN_OBJECTS, _MAX_OBJECTS, scenes.clutter)
    names = tuple(rng.choice(pictographs.NAMES, int(rng.integers(fewest, most + 1)), replace=False).tolist())
    scene = draw(rng, names, _SIDE)
    file_name = f"{split}_{index:05d}.jpg"
    scene.image.save(folder / file_name, quality=90)
    return file_name, scene.objects


def _instances(drawn: list[tuple[str, tuple[scenes.PlacedObject, ...]]]) -> dict[str, Any]:
    """The scenes in the structure of a COCO instances file."""
    category_ids = {name: k for k, name in enumerate(pictographs.NAMES, start=1)}
    images = [
        {"id": image_id, "file_name": file_name, "width": _SIDE, "height": _SIDE}
        for image_id, (file_name, _) in enumerate(drawn, start=1)
    ]
    placed = [(image_id, thing) for image_id, (_, things) in enumerate(drawn, start=1) for thing in things]
    annotations = [
        _annotation(k, image_id, category_ids[thing.name], thing.box)
        for k, (image_id, thing) in enumerate(placed, start=1)
    ]
    categories = [{"id": k, "name": name} for name, k in category_ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(
    annotation_id: int, image_id: int, category_id: int, box: tuple[float, float, float, float]
) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
    }
