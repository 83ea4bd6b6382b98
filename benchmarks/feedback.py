"""What right and wrong picks are worth: a simulated user judges the first 10 images found, and the rest is ranked anew.

    forclip demo --out runs/demo --seeds 3
    python -m benchmarks.feedback --demo runs/demo --out docs/results/feedback.json

Reads what the demo left: each seed's world and model; with --model instead, photos (see benchmarks.pointing). For every
class that the gallery shows, its text is searched, the first images are judged by the ground truth, and mAP@50 of all
other gallery images is told before and after: by the text, and by the text and the picks. Beside it, what the picks do
by Rocchio's rule, which the probe is to beat.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.demo_runs import demo_seeds
from benchmarks.pointing import add_worlds, photo_worlds
from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig
from forclip.data.formats.coco import load_coco
from forclip.embedding.embed import embed_images
from forclip.evaluation.metrics import average_precision_at
from forclip.models.retrieval_model import load_model
from forclip.search.feedback import refine
from forclip.toyworld.dataset import ToyWorld, novel_names
from forclip.types import Bools, Floats

JUDGED = 10
_AT_ONCE = 64
Refine = Callable[[Floats, Floats, Bools, float], Floats]


@dataclass(frozen=True)
class Gallery:
    """vectors: [I, N, D] unit; labels: [I, C]; texts: [C, D] unit; novel: [C]."""

    vectors: Floats
    labels: Bools
    texts: Floats
    novel: Bools


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_worlds(parser)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    names, galleries = toy_galleries(given.demo) if given.demo else photo_galleries(given)
    found: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.feedback", *sys.argv[1:]]),
        "worlds": names,
        "judged": JUDGED,
        "map_at_50_of_the_rest": summary([measure(g) for g in galleries]),
    }
    write_text_atomically(given.out, json.dumps(found, indent=1) + "\n")
    Console().print(table(found["map_at_50_of_the_rest"]))


def toy_galleries(demo: Path) -> tuple[list[str], list[Gallery]]:
    """Of each seed. Raises ValueError for a missing model or world."""
    seeds = demo_seeds(demo)
    return [f"toy world {seed}" for seed in seeds], [toy_gallery(demo, seed) for seed in seeds]


def photo_galleries(given: argparse.Namespace) -> tuple[list[str], list[Gallery]]:
    """Of each training file's head and class vectors; an image shows the classes that it has boxes of."""
    names, galleries = [], []
    for world in photo_worlds(given):
        with torch.inference_mode():  # not round the whole: each world is trained when it is asked for
            parts = [world.head(part.float()).numpy() for part in world.tokens.split(_AT_ONCE)]
        labels = np.zeros((len(world.tokens), len(world.texts)), bool)
        labels[[p.image for p in world.pairs], [p.column for p in world.pairs]] = True
        names.append(world.name)
        galleries.append(Gallery(np.concatenate(parts), labels, world.texts.numpy(), world.novel))
    return names, galleries


def toy_gallery(demo: Path, seed: int) -> Gallery:
    """Raises ValueError for a missing model or world."""
    model, world = load_model(ModelConfig(str(demo / f"model-{seed}"))), ToyWorld(demo / f"world-{seed}", ())
    images = load_coco(world.gallery_file, world.images)
    embeddings, _ = embed_images(model, images.paths, with_boxes=False)
    texts = np.stack([model.encode_query(name).cpu().numpy() for name in images.class_names])
    novel = set(novel_names(seed))
    vectors = embeddings.vectors.reshape(len(images), -1, embeddings.dim)
    return Gallery(vectors, images.labels, texts, np.array([name in novel for name in images.class_names]))


def rocchio(query: Floats, picked: Floats, is_right: Bools, spread: float) -> Floats:
    """The text, half the mean of the right ones, less a quarter of the mean of the wrong ones."""
    moved = query.copy()
    for side, weight in ((is_right, 0.5), (~is_right, -0.25)):
        if side.any():
            moved = moved + weight * picked[side].mean(0)
    unit: Floats = moved / np.linalg.norm(moved)
    return unit


WAYS: dict[str, Refine] = {
    "text alone": lambda query, picked, is_right, spread: query,
    "Rocchio": rocchio,
    "probe": refine,
}


def measure(gallery: Gallery) -> dict[str, dict[str, float]]:
    """By way and group of classes, in percent."""
    found: dict[str, dict[str, list[float]]] = {way: {"base": [], "novel": []} for way in WAYS}
    for column, query in enumerate(gallery.texts):
        shown = gallery.labels[:, column]
        cosines = gallery.vectors @ query
        scores, best = cosines.max(1), cosines.argmax(1)
        order = np.argsort(-scores, kind="stable")
        first, rest = order[:JUDGED], np.sort(order[JUDGED:])
        if not shown[rest].any():
            continue
        picked = gallery.vectors[first, best[first]]
        for way, ask in WAYS.items():
            asked = ask(query, picked, shown[first], float(scores.std()))
            again = (gallery.vectors[rest] @ asked).max(1)
            group = "novel" if gallery.novel[column] else "base"
            found[way][group].append(100 * average_precision_at(again, shown[rest], 50))
    return {way: {group: float(np.mean(all_of)) for group, all_of in groups.items()} for way, groups in found.items()}


def summary(by_seed: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Means and sample standard deviations over seeds; gains over the text alone, paired by seed."""
    told: dict[str, Any] = {}
    for way in WAYS:
        told[way] = {}
        for group in ("base", "novel"):
            values = np.array([found[way][group] for found in by_seed])
            gains = values - [found["text alone"][group] for found in by_seed]
            numbers = {
                "mean": values.mean(),
                "std": values.std(ddof=min(1, len(values) - 1)),
                "gain": gains.mean(),
                "gain_std": gains.std(ddof=min(1, len(gains) - 1)),
            }
            told[way][group] = {name: round(float(number), 2) for name, number in numbers.items()}
            told[way][group]["by_seed"] = [round(float(value), 2) for value in values]
    return told


def table(told: dict[str, Any]) -> Table:
    """For the terminal."""
    shown = Table("asked by", "base", "novel", "gain base", "gain novel", title=f"mAP@50 of the rest, {JUDGED} judged")
    for way, groups in told.items():
        cells = [f"{groups[g]['mean']:.1f} ± {groups[g]['std']:.1f}" for g in ("base", "novel")]
        gains = [f"{groups[g]['gain']:+.1f} ± {groups[g]['gain_std']:.1f}" for g in ("base", "novel")]
        shown.add_row(way, *cells, *gains)
    return shown


if __name__ == "__main__":
    main()
