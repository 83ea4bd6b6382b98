"""Compare ways to search by an image and by a region of an image.

    forclip demo --out runs/demo --seeds 3
    python -m benchmarks.by_picture --demo runs/demo --out docs/results/by_picture.json

Uses the world and the model of each seed of the demo.

Images: the fraction of the first 100 gallery images that rank first in a search by themselves. Regions: mAP@50 over
objects drawn at random, where the other images of the object's class are relevant. A region's query is the object's
crop, padded by a tenth of its longer side, or the stored vector whose region overlaps most with the object's box.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from benchmarks.demo_runs import demo_arguments, mean_and_std
from benchmarks.feedback import Gallery, toy_gallery
from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig
from forclip.data.formats.coco import load_coco
from forclip.data.images.decode import read_image
from forclip.embedding.embed import embed_images
from forclip.embedding.regions import overlaps
from forclip.evaluation.metrics import average_precision_at
from forclip.location import Location, local_path
from forclip.models.retrieval_model import load_model
from forclip.search.request import most_distinct_vector
from forclip.toyworld.dataset import ToyWorld
from forclip.types import Floats

_IMAGES, _OBJECTS, _MARGIN = 100, 250, 0.1

Score = Callable[[Floats, Floats], Floats]  # gallery [I, N, D] and the query image's vectors [Q, D] to scores [I]


def by_mean(gallery: Floats, query: Floats) -> Floats:
    """Score with the mean of the query's vectors."""
    mean = query.mean(0)
    scores: Floats = (gallery @ (mean / np.linalg.norm(mean))).max(1)
    return scores


def by_all(gallery: Floats, query: Floats) -> Floats:
    """Score with all vectors of the query, as Index.search_picture does."""
    scores: Floats = (gallery @ query.T).max(1).mean(1)
    return scores


def by_one(gallery: Floats, query: Floats) -> Floats:
    """Score with the most distinct vector of the query."""
    scores: Floats = (gallery @ most_distinct_vector(query)).max(1)
    return scores


METHODS: dict[str, Score] = {
    "mean of its vectors": by_mean,
    "all its vectors (MaxSim)": by_all,
    "its particular one": by_one,
}


def measure(demo: Path, seed: int) -> dict[str, Any]:
    """Percentages: images that find themselves first, and mAP@50 of regions by method and group of classes."""
    gallery = toy_gallery(demo, seed)
    finds_itself = {}
    for method, score in METHODS.items():
        first = [np.argmax(score(gallery.vectors, v)) == k for k, v in enumerate(gallery.vectors[:_IMAGES])]
        finds_itself[method] = 100 * float(np.mean(first))
    return {"finds_itself": finds_itself, "places": measure_regions(demo, seed, gallery)}


def measure_regions(demo: Path, seed: int, gallery: Gallery) -> dict[str, dict[str, float]]:
    """mAP@50 in percent, by method and group of classes."""
    world, config = ToyWorld(demo / f"world-{seed}", ()), ModelConfig(str(demo / f"model-{seed}"))
    images, model = load_coco(world.gallery_file, world.images), load_model(config)
    embeddings, _ = embed_images(model, images.paths)
    assert embeddings.boxes is not None
    regions = embeddings.boxes.reshape(len(images), -1, 4)
    precisions: dict[str, dict[str, list[float]]] = {}
    for image, column, box in _objects(world, images.paths, images.class_names, seed):
        others = np.arange(len(images)) != image
        relevant = gallery.labels[others, column]
        if not relevant.any():
            continue
        crop = model.encode_image(_crop(local_path(images.paths[image]), box)).cpu().numpy()
        stored = gallery.vectors[image, int(np.argmax(overlaps(box, regions[image])))]
        scores = {f"crop, {method}": score(gallery.vectors, crop) for method, score in METHODS.items()}
        scores["stored vector of the place"] = (gallery.vectors @ stored).max(1)
        scores["its class's name"] = (gallery.vectors @ gallery.texts[column]).max(1)
        group = "novel" if gallery.novel[column] else "base"
        for method, values in scores.items():
            precision = 100 * average_precision_at(values[others], relevant, 50)
            precisions.setdefault(method, {}).setdefault(group, []).append(precision)
    return {
        method: {group: float(np.mean(values)) for group, values in groups.items()}
        for method, groups in precisions.items()
    }


def _objects(
    world: ToyWorld, paths: Sequence[Location], names: Sequence[str], seed: int
) -> Iterator[tuple[int, int, Floats]]:
    """Draw objects at random. Yields the row of the image, the column of the class, and the box as fractions."""
    content = json.loads(world.gallery_file.read_text())
    row, column = {p.name: k for k, p in enumerate(paths)}, {name: k for k, name in enumerate(names)}
    class_of = {c["id"]: column[c["name"]] for c in content["categories"]}
    entries = {i["id"]: i for i in content["images"]}
    drawn = np.random.default_rng(seed).permutation(len(content["annotations"]))[:_OBJECTS]
    for annotation in (content["annotations"][k] for k in drawn):
        entry = entries[annotation["image_id"]]
        x, y, width, height = annotation["bbox"]
        size = np.array([entry["width"], entry["height"]] * 2, np.float32)
        box = np.array([x, y, x + width, y + height], np.float32) / size
        yield row[Path(entry["file_name"]).name], class_of[annotation["category_id"]], box


def _crop(path: Path, box: Floats) -> Image.Image:
    """The box with a margin, cut to the image. box: xyxy as fractions of the image."""
    image = read_image(path)
    left, top, right, bottom = box * (image.size * 2)
    margin = _MARGIN * max(right - left, bottom - top)
    upper = max(0, int(left - margin)), max(0, int(top - margin))
    return image.crop((*upper, min(image.width, int(right + margin)), min(image.height, int(bottom + margin))))


def summary(by_seed: list[dict[str, Any]]) -> dict[str, Any]:
    """Means and sample standard deviations over seeds."""
    first = by_seed[0]
    finds_itself = {method: _spread([s["finds_itself"][method] for s in by_seed]) for method in first["finds_itself"]}
    regions = {
        method: {group: _spread([s["places"][method][group] for s in by_seed]) for group in groups}
        for method, groups in first["places"].items()
    }
    return {"finds_itself": finds_itself, "places": regions}


def _spread(values: list[float]) -> dict[str, float]:
    mean, std = mean_and_std(values)
    return {"mean": round(mean, 2), "std": round(std, 2)}


def main() -> None:
    runs = demo_arguments(__doc__)
    by_seed = [measure(runs.demo, seed) for seed in runs.seeds]
    content = {"seeds": runs.seeds, "objects": _OBJECTS, **summary(by_seed)}
    write_text_atomically(runs.out, json.dumps(content, indent=1) + "\n")
    Console().print_json(data=content)


if __name__ == "__main__":
    main()
