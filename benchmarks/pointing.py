"""Play the pointing game: measure whether the region of the vector that matches a text hits the object.

    forclip demo --out runs/demo --seeds 3
    python -m benchmarks.pointing --demo runs/demo --out docs/results/pointing.json
    python -m benchmarks.pointing --model FOLDER --train FILE [FILE] --gallery FILE [FILE] --images DIR --novel FILE \
        [--classes FILE] --out docs/results/pointing_photos.json

Uses the world and the model of each seed of the demo, or on photos the model of `examples/plug_in_backbone.py` with the
aligned, untuned head that `finetune` starts from on each training file.

For every class and every image with a box of it, takes the image's best vector for the class's text and evaluates its
map and its box (benchmarks.pointing_hits). Numbers are percentages: means over classes of the means over images.
`chance` is a random point for peak and centre, and the whole image as a box.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from torch import Tensor

from benchmarks.command import command_line
from benchmarks.demo_runs import demo_seeds, mean_and_std
from benchmarks.pointing_hits import Pair, class_mean, covered, evaluate_region, pairs_with_boxes
from examples.plug_in_backbone import PhotoClipBackbone
from forclip.atomic_write import write_text_atomically
from forclip.config import HeadConfig, ModelConfig, TrainConfig, read_names
from forclip.data.formats.coco import load_coco
from forclip.data.images.box_frames import upright_boxes
from forclip.data.images.decode import image_size
from forclip.data.splits import split_classes
from forclip.embedding.embed import EncodedImages, encode_images
from forclip.embedding.regions import overlaps, region_boxes
from forclip.experiments.comparison import finetune_on, new_task
from forclip.models.backbone import Backbone
from forclip.models.baselines import Head, training_free_head
from forclip.models.retrieval_model import load_model
from forclip.models.summary_head import SummaryHead
from forclip.text.prompt_options import PromptOptions
from forclip.text.prompts import encode_classes
from forclip.toyworld.dataset import ToyWorld, novel_names
from forclip.types import Annotations, Bools, Floats

MEASURES = ("peak", "centre", "correct", "overlap")
CLUSTERS = (5, 10, 25)
ATTENTION = "FOR, attention alone"
_WHOLE = np.array([0, 0, 1, 1], np.float32)
MakeBoxes = Callable[[Floats, tuple[int, int]], Floats]
Measures = dict[str, dict[str, dict[str, float]]]  # by method, group of classes and measure


@dataclass(frozen=True)
class World:
    """One gallery and its model. tokens: [I, T, W]; texts: [C, D] unit, text vectors with the model's class vectors
    applied; plain: the same without them; novel: [C]; pairs: image, class and boxes."""

    name: str
    backbone: Backbone
    head: SummaryHead
    tokens: Tensor
    texts: Tensor
    plain: Tensor
    novel: Bools
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Method:
    """A head, its text vectors, and the kind of map of its best vector.

    kind: `positions` for the head's position weights, `attention`, or `text` for the attention (or the weights, if the
    head has no attention) times the similarity of each position to the text.
    """

    head: Head
    texts: Tensor
    kind: str = "positions"


def main() -> None:
    args = _arguments()
    console, command = Console(), command_line()
    worlds = toy_worlds(args.demo) if args.demo else photo_worlds(args)
    results: dict[str, Measures] = {}
    for world in worlds:
        results[world.name] = {"chance": evaluate_chance(world)}
        for name, method in methods(world).items():
            maps = winning_maps(world, method)
            for label, make_boxes in box_methods(name, args.sweep).items():
                results[world.name][label] = evaluate(world, method.head.grid, maps, make_boxes)
        console.print(f"{world.name}: {len(world.pairs)} pairs of an image and a class")
    summary = summarise(list(results.values()))
    write_text_atomically(
        args.out, json.dumps({"command": command, "summary": summary, "worlds": results}, indent=1) + "\n"
    )
    console.print(table(summary))


def toy_worlds(demo: Path) -> Iterator[World]:
    """The gallery of each seed of a demo. Raises ValueError if a model or a world is missing."""
    for seed in demo_seeds(demo):
        model, world = load_model(ModelConfig(str(demo / f"model-{seed}"))), ToyWorld(demo / f"world-{seed}", ())
        images = load_coco(world.gallery_file, world.images)
        encoded = encode_images(model.backbone, images.image_ids, images.paths)
        plain = encode_classes(model.backbone, images.class_names, model.templates)
        texts = plain if model.class_vectors is None else model.class_vectors(plain)
        novel = set(novel_names(seed))
        is_novel = np.array([name in novel for name in images.class_names])
        assert isinstance(model.head, SummaryHead)
        yield World(
            f"toy world {seed}", model.backbone, model.head, encoded.tokens, texts, plain, is_novel, _pairs(images)
        )


def photo_worlds(args: argparse.Namespace) -> Iterator[World]:
    """The gallery that belongs to each training file, with a head and class vectors learned from that file."""
    backbone = PhotoClipBackbone(args.model)
    embeddable = backbone.known_texts()
    requested = set(read_names(args.classes)) if args.classes else set(embeddable)
    novel = set(read_names(args.novel))
    for files in zip(args.train, args.gallery, strict=True):
        train, gallery = (_encoded(backbone, load_coco(file, args.images)) for file in files)
        names = [n for n in train[0].class_names if n in gallery[0].class_names and n in embeddable and n in requested]
        split = split_classes(names, [n for n in names if n in novel])
        task = new_task(files[0].stem, backbone, train, gallery, split, PromptOptions(["{}"], embeddable), True)
        tuned = finetune_on(task, HeadConfig(), TrainConfig(teacher="none", interpolation=0.0, views=1))
        is_novel = np.array([name in novel for name in task.gallery.class_names])
        tokens, texts = gallery[1].tokens, tuned.class_vectors(task.texts)
        yield World(files[1].stem, backbone, tuned.head, tokens, texts, task.texts, is_novel, _pairs(task.gallery))


def _encoded(backbone: Backbone, images: Annotations) -> tuple[Annotations, EncodedImages]:
    return images, encode_images(backbone, images.image_ids, images.paths)


def _pairs(images: Annotations) -> list[Pair]:
    return pairs_with_boxes(upright_boxes(images), np.array([image_size(path) for path in images.paths]))


def methods(world: World, clusters: Sequence[int] = CLUSTERS) -> dict[str, Method]:
    """The methods to compare, by name."""
    heads = {name: training_free_head(world.backbone, name) for name in ("sum", "global", "dense")}
    clustered = {k: training_free_head(world.backbone, f"cluster_{k}") for k in clusters}
    return {
        "FOR": Method(world.head, world.texts),
        ATTENTION: Method(world.head, world.texts, "attention"),
        "FOR, weighed by the text": Method(world.head, world.texts, "text"),
        "untrained head": Method(heads["sum"], world.plain),
        "CLIP (global)": Method(heads["global"], world.plain),
        "Dense-CLIP": Method(heads["dense"], world.plain),
        **{f"Cluster-CLIP {k}": Method(head, world.plain) for k, head in clustered.items()},
        **{
            f"Cluster-CLIP {k}, weighed by the text": Method(head, world.plain, "text") for k, head in clustered.items()
        },
    }


def box_methods(name: str, sweep: Sequence[float]) -> dict[str, MakeBoxes]:
    """Ways to derive a box from a map, by the label of both. sweep: additional thresholds for FOR's maps."""
    variants: dict[str, MakeBoxes] = {name: region_boxes}
    if name.startswith(("FOR", "Cluster")):
        variants[f"{name}, cells from a half"] = cell_boxes
    if name in ("FOR", ATTENTION):
        variants |= {f"{name}, from {t:g}": partial(region_boxes, threshold=t) for t in sweep}
    return variants


def cell_boxes(maps: Floats, grid: tuple[int, int]) -> Floats:
    """Boxes around the cells that weigh at least half as much as the strongest cell and are connected to it.

    For a cluster's map this is the area of the cluster. maps: [M, P]. Returns [M, 4] xyxy as fractions.
    """
    boxes = []
    for heat in maps:
        labels, _ = ndimage.label(heat.reshape(grid) >= heat.max() / 2)
        rows, columns = np.nonzero(labels == labels.ravel()[heat.argmax()])
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return (np.array(boxes) / [grid[1], grid[0], grid[1], grid[0]]).astype(np.float32)


def evaluate(world: World, grid: tuple[int, int], maps: Floats, make_boxes: MakeBoxes) -> dict[str, dict[str, float]]:
    """Measures in percent, by group of classes. maps: [pairs, P]; grid: rows and columns of a map."""
    rows = [
        astuple(evaluate_region(heat, grid, box, pair.boxes))
        for heat, box, pair in zip(maps, make_boxes(maps, grid), world.pairs, strict=True)
    ]
    return group_means(world, rows)


def evaluate_chance(world: World) -> dict[str, dict[str, float]]:
    """Measures of a random point, and of the whole image as a box."""
    rows = []
    for pair in world.pairs:
        overlap, area = float(overlaps(_WHOLE, pair.boxes).max()), covered(pair.boxes)
        rows.append((area, area, float(overlap >= 0.5), overlap))
    return group_means(world, rows)


def group_means(world: World, rows: Sequence[tuple[float, ...]]) -> dict[str, dict[str, float]]:
    """Average the measures over images, then over classes. rows: measures of each pair, as fractions."""
    values, columns = np.array(rows), np.array([pair.column for pair in world.pairs])
    groups = {}
    for group, chosen in (("base", ~world.novel[columns]), ("novel", world.novel[columns])):
        means = [100 * class_mean(values[chosen, m], columns[chosen]) for m in range(len(MEASURES))]
        groups[group] = dict(zip(MEASURES, means, strict=True))
    return groups


@torch.inference_mode()
def winning_maps(world: World, method: Method) -> Floats:
    """The map of the best vector of each pair, [pairs, P]."""
    best_maps: list[Floats] = []
    for image, pairs in groupby(world.pairs, key=lambda pair: pair.image):
        tokens = world.tokens[image : image + 1].float()
        vectors, maps = method.head(tokens)[0], _maps(method, tokens)
        for pair in pairs:
            text = method.texts[pair.column]
            best = maps[(vectors @ text).argmax()]
            if method.kind == "text":
                weighted = best * (_values(method.head, tokens) @ text).clamp(min=0)
                best = weighted if weighted.any() else best
            best_maps.append(best.numpy())
    return np.stack(best_maps)


def _maps(method: Method, tokens: Tensor) -> Tensor:
    """The maps of all vectors of one image, [N, P]."""
    attends = isinstance(method.head, SummaryHead) and method.kind != "positions"
    maps: Tensor = method.head.attention(tokens) if attends else method.head.position_weights(tokens)  # type: ignore[attr-defined]
    return maps[0]


def _values(head: Head, tokens: Tensor) -> Tensor:
    """The vector of each position, [P, D], not normalised."""
    pool = head.pool  # type: ignore[attr-defined]
    values: Tensor = pool.dense(pool.stage(tokens))[0]
    return values


def summarise(worlds: Sequence[Measures]) -> Measures:
    """Means over worlds, and sample standard deviations as `_std`."""
    summary: Measures = {}
    for method in worlds[0]:
        summary[method] = {}
        for group in ("base", "novel"):
            spread = {m: mean_and_std([world[method][group][m] for world in worlds]) for m in MEASURES}
            summary[method][group] = {m: round(mean, 2) for m, (mean, _) in spread.items()}
            summary[method][group] |= {f"{m}_std": round(std, 2) for m, (_, std) in spread.items()}
    return summary


def table(summary: Measures) -> Table:
    """The summary for the terminal."""
    head = [f"{group} {m}" for group in ("base", "novel") for m in MEASURES]
    shown = Table("map and box", *head, title="percent")
    shown.columns[0].no_wrap = True
    for method, groups in summary.items():
        shown.add_row(method, *(f"{groups[g][m]:.1f}" for g in ("base", "novel") for m in MEASURES))
    return shown


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_worlds(parser)
    parser.add_argument("--sweep", type=float, nargs="*", default=(0.05, 0.15, 0.2, 0.3, 0.5), help="thresholds to add")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def add_worlds(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the galleries: a demo's worlds, or the files of photo_worlds."""
    parser.add_argument("--demo", type=Path, help="output folder of forclip demo")
    parser.add_argument("--model", type=Path, help="folder of photoclip.py; measures on photos")
    parser.add_argument("--train", type=Path, nargs="+", help="COCO files; each is one training set")
    parser.add_argument("--gallery", type=Path, nargs="+", help="COCO file of the gallery for each training set")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--novel", type=Path, help="file of novel class names, one per line")
    parser.add_argument("--classes", type=Path, help="file of class names, one per line; other classes are ignored")


if __name__ == "__main__":
    main()
