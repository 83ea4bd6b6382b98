"""Measure relevance feedback: a simulated user marks the first 10 results as right or wrong, and the rest is re-ranked.

    forclip demo --out runs/demo --seeds 3
    python -m benchmarks.feedback --demo runs/demo --out docs/results/feedback.json

Uses the world and the model of each seed of the demo, or photos with --model (see benchmarks.pointing). For every class
of the gallery, searches its text, takes the ground truth of the first results as verdicts, and measures mAP@50 over all
other gallery images: by the text alone, with the verdicts by forclip's method ("probe"), and by Rocchio's rule.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.command import command_line
from benchmarks.demo_runs import demo_seeds, mean_and_std
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

_NUM_VERDICTS = 10
_BATCH_IMAGES = 64
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
    args = parser.parse_args()
    names, galleries = toy_galleries(args.demo) if args.demo else photo_galleries(args)
    content: dict[str, Any] = {
        "command": command_line(),
        "worlds": names,
        "judged": _NUM_VERDICTS,
        "map_at_50_of_the_rest": summary([measure(g) for g in galleries]),
    }
    write_text_atomically(args.out, json.dumps(content, indent=1) + "\n")
    Console().print(table(content["map_at_50_of_the_rest"]))


def toy_galleries(demo: Path) -> tuple[list[str], list[Gallery]]:
    """Names and galleries of a demo's seeds. Raises ValueError if a model or a world is missing."""
    seeds = demo_seeds(demo)
    return [f"toy world {seed}" for seed in seeds], [toy_gallery(demo, seed) for seed in seeds]


def photo_galleries(args: argparse.Namespace) -> tuple[list[str], list[Gallery]]:
    """Names and galleries of photos. Each training file gives a head; the boxes of an image give its labels."""
    names, galleries = [], []
    for world in photo_worlds(args):
        with torch.inference_mode():  # only here: the iterator trains each world
            parts = [world.head(part.float()).numpy() for part in world.tokens.split(_BATCH_IMAGES)]
        labels = np.zeros((len(world.tokens), len(world.texts)), bool)
        labels[[p.image for p in world.pairs], [p.column for p in world.pairs]] = True
        names.append(world.name)
        galleries.append(Gallery(np.concatenate(parts), labels, world.texts.numpy(), world.novel))
    return names, galleries


def toy_gallery(demo: Path, seed: int) -> Gallery:
    """The gallery of a seed's world under its model. Raises ValueError if either is missing."""
    model, world = load_model(ModelConfig(str(demo / f"model-{seed}"))), ToyWorld(demo / f"world-{seed}", ())
    images = load_coco(world.gallery_file, world.images)
    embeddings, _ = embed_images(model, images.paths, with_boxes=False)
    texts = np.stack([model.encode_query(name).cpu().numpy() for name in images.class_names])
    novel = set(novel_names(seed))
    vectors = embeddings.vectors.reshape(len(images), -1, embeddings.dim)
    return Gallery(vectors, images.labels, texts, np.array([name in novel for name in images.class_names]))


def rocchio(query: Floats, picked: Floats, is_right: Bools, spread: float) -> Floats:
    """Rocchio's rule: add half the mean of the right vectors, subtract a quarter of the mean of the wrong ones."""
    moved = query.copy()
    for side, weight in ((is_right, 0.5), (~is_right, -0.25)):
        if side.any():
            moved = moved + weight * picked[side].mean(0)
    unit: Floats = moved / np.linalg.norm(moved)
    return unit


METHODS: dict[str, Refine] = {
    "text alone": lambda query, picked, is_right, spread: query,
    "Rocchio": rocchio,
    "probe": refine,
}


def measure(gallery: Gallery) -> dict[str, dict[str, float]]:
    """mAP@50 in percent, by method and group of classes."""
    precisions: dict[str, dict[str, list[float]]] = {method: {"base": [], "novel": []} for method in METHODS}
    for column, query in enumerate(gallery.texts):
        relevant = gallery.labels[:, column]
        cosines = gallery.vectors @ query
        scores, best = cosines.max(1), cosines.argmax(1)
        order = np.argsort(-scores, kind="stable")
        first, rest = order[:_NUM_VERDICTS], np.sort(order[_NUM_VERDICTS:])
        if not relevant[rest].any():
            continue
        picked = gallery.vectors[first, best[first]]
        for method, refine_query in METHODS.items():
            refined = refine_query(query, picked, relevant[first], float(scores.std()))
            new_scores = (gallery.vectors[rest] @ refined).max(1)
            group = "novel" if gallery.novel[column] else "base"
            precisions[method][group].append(100 * average_precision_at(new_scores, relevant[rest], 50))
    return {
        method: {group: float(np.mean(values)) for group, values in groups.items()}
        for method, groups in precisions.items()
    }


def summary(by_seed: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Means and sample standard deviations over seeds; gains over the text alone, paired by seed."""
    summed: dict[str, Any] = {}
    for method in METHODS:
        summed[method] = {}
        for group in ("base", "novel"):
            values = [results[method][group] for results in by_seed]
            gains = [results[method][group] - results["text alone"][group] for results in by_seed]
            (mean, std), (gain, gain_std) = mean_and_std(values), mean_and_std(gains)
            numbers = {"mean": mean, "std": std, "gain": gain, "gain_std": gain_std}
            summed[method][group] = {name: round(number, 2) for name, number in numbers.items()}
            summed[method][group]["by_seed"] = [round(value, 2) for value in values]
    return summed


def table(summed: dict[str, Any]) -> Table:
    """The summary for the terminal."""
    shown = Table(
        "method", "base", "novel", "gain base", "gain novel", title=f"mAP@50 of the rest, {_NUM_VERDICTS} verdicts"
    )
    for method, groups in summed.items():
        cells = [f"{groups[g]['mean']:.1f} ± {groups[g]['std']:.1f}" for g in ("base", "novel")]
        gains = [f"{groups[g]['gain']:+.1f} ± {groups[g]['gain_std']:.1f}" for g in ("base", "novel")]
        shown.add_row(method, *cells, *gains)
    return shown


if __name__ == "__main__":
    main()
