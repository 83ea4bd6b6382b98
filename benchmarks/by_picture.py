"""What a picture finds, and what a place in one finds, by the ways in which it could ask.

    forclip demo --out runs/demo --seeds 3
    python -m benchmarks.by_picture --demo runs/demo --out docs/results/by_picture.json

Reads what the demo left: each seed's world and model. Pictures: how many of the first 100 of the gallery are the first
that they find. Places: for objects drawn at random, mAP@50 of the other images that show their class, asked by the crop
(a tenth of its longer side more on each side) and by the stored vector whose place shares most with the object's box.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from benchmarks.demo_runs import demo_arguments
from benchmarks.feedback import Gallery, toy_gallery
from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig
from forclip.data.formats.coco import load_coco
from forclip.embedding.embed import embed_images
from forclip.embedding.regions import overlaps
from forclip.evaluation.metrics import average_precision_at
from forclip.index.in_memory import most_distinct_vector
from forclip.models.retrieval_model import load_model
from forclip.toyworld.dataset import ToyWorld
from forclip.types import Floats

_PICTURES, _OBJECTS, _MARGIN = 100, 250, 0.1

Ask = Callable[[Floats, Floats], Floats]  # gallery [I, N, D] and a picture's vectors [Q, D] to scores [I]


def by_mean(gallery: Floats, asked: Floats) -> Floats:
    """The mean of the picture's vectors, as one query."""
    mean = asked.mean(0)
    scores: Floats = (gallery @ (mean / np.linalg.norm(mean))).max(1)
    return scores


def by_all(gallery: Floats, asked: Floats) -> Floats:
    """As Index.search_picture."""
    scores: Floats = (gallery @ asked.T).max(1).mean(1)
    return scores


def by_one(gallery: Floats, asked: Floats) -> Floats:
    """As where only one vector can ask."""
    scores: Floats = (gallery @ most_distinct_vector(asked)).max(1)
    return scores


WAYS: dict[str, Ask] = {
    "mean of its vectors": by_mean,
    "all its vectors (MaxSim)": by_all,
    "its most_distinct_vector one": by_one,
}


def measure(demo: Path, seed: int) -> dict[str, Any]:
    """Percent: pictures that find themselves first, and mAP@50 by the group of the object's class."""
    gallery = toy_gallery(demo, seed)
    itself = {
        way: 100
        * float(np.mean([np.argmax(ask(gallery.vectors, v)) == k for k, v in enumerate(gallery.vectors[:_PICTURES])]))
        for way, ask in WAYS.items()
    }
    return {"finds_itself": itself, "places": measure_places(demo, seed, gallery)}


def measure_places(demo: Path, seed: int, gallery: Gallery) -> dict[str, dict[str, float]]:
    world, config = ToyWorld(demo / f"world-{seed}", ()), ModelConfig(str(demo / f"model-{seed}"))
    images, model = load_coco(world.gallery_file, world.images), load_model(config)
    embeddings, _ = embed_images(model, images.paths)
    assert embeddings.boxes is not None
    places = embeddings.boxes.reshape(len(images), -1, 4)
    found: dict[str, dict[str, list[float]]] = {}
    for image, column, box in _objects(world, images.paths, images.class_names, seed):
        others = np.arange(len(images)) != image
        shown = gallery.labels[others, column]
        if not shown.any():
            continue
        crop = model.encode_image(_crop(images.paths[image], box)).cpu().numpy()
        stored = gallery.vectors[image, int(np.argmax(overlaps(box, places[image])))]
        scores = {f"crop, {way}": ask(gallery.vectors, crop) for way, ask in WAYS.items()}
        scores["stored vector of the place"] = (gallery.vectors @ stored).max(1)
        scores["its class's name"] = (gallery.vectors @ gallery.texts[column]).max(1)
        group = "novel" if gallery.novel[column] else "base"
        for way, values in scores.items():
            precision = 100 * average_precision_at(values[others], shown, 50)
            found.setdefault(way, {}).setdefault(group, []).append(precision)
    return {way: {group: float(np.mean(values)) for group, values in groups.items()} for way, groups in found.items()}


def _objects(
    world: ToyWorld, paths: Sequence[Path], names: Sequence[str], seed: int
) -> Iterator[tuple[int, int, Floats]]:
    """Image, column of the class, and box as fractions, of objects drawn at random."""
    content = json.loads(world.gallery_file.read_text())
    row, column = {p.name: k for k, p in enumerate(paths)}, {name: k for k, name in enumerate(names)}
    class_of = {c["id"]: column[c["name"]] for c in content["categories"]}
    pictures = {i["id"]: i for i in content["images"]}
    drawn = np.random.default_rng(seed).permutation(len(content["annotations"]))[:_OBJECTS]
    for annotation in (content["annotations"][k] for k in drawn):
        picture = pictures[annotation["image_id"]]
        x, y, width, height = annotation["bbox"]
        size = np.array([picture["width"], picture["height"]] * 2, np.float32)
        box = np.array([x, y, x + width, y + height], np.float32) / size
        yield row[Path(picture["file_name"]).name], class_of[annotation["category_id"]], box


def _crop(path: Path, box: Floats) -> Image.Image:
    picture = Image.open(path).convert("RGB")
    left, top, right, bottom = box * (picture.size * 2)
    more = _MARGIN * max(right - left, bottom - top)
    upper = max(0, int(left - more)), max(0, int(top - more))
    return picture.crop((*upper, min(picture.width, int(right + more)), min(picture.height, int(bottom + more))))


def summary(by_seed: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and sample standard deviations over seeds."""
    itself = {way: _spread([s["finds_itself"][way] for s in by_seed]) for way in by_seed[0]["finds_itself"]}
    places = {
        way: {group: _spread([s["places"][way][group] for s in by_seed]) for group in groups}
        for way, groups in by_seed[0]["places"].items()
    }
    return {"finds_itself": itself, "places": places}


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "mean": round(float(np.mean(values)), 2),
        "std": round(float(np.std(values, ddof=min(1, len(values) - 1))), 2),
    }


def main() -> None:
    given = demo_arguments(__doc__)
    seeds = given.seeds
    found = {"seeds": seeds, "objects": _OBJECTS, **summary([measure(given.demo, seed) for seed in seeds])}
    write_text_atomically(given.out, json.dumps(found, indent=1) + "\n")
    Console().print_json(data=found)


if __name__ == "__main__":
    main()
