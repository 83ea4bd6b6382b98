"""The pointing game: whether the place of the vector that answers a text hits the object.

    forclip demo --out runs/demo --seeds 3
    python -m benchmarks.pointing --demo runs/demo --out docs/results/pointing.json
    python -m benchmarks.pointing --model FOLDER --train FILE [FILE] --gallery FILE [FILE] --images DIR --novel FILE \
        [--classes FILE] --out docs/results/pointing_photos.json

On the toy world it reads what the demo left: each seed's world and model. On photos it takes the model of
`examples/plug_in_backbone.py`, with its head as `finetune` starts it on each training file.

For every class and every image that has a box of it the class's text picks the image's best vector, whose map and box
are judged (forclip.evaluation.pointing). Numbers are percent: means over classes of the means over a class's images.
`chance` is a point drawn at random for peak and centre, and the whole image as a box.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from torch import Tensor

from benchmarks.demo_runs import demo_seeds
from examples.plug_in_backbone import PhotoClipBackbone
from forclip.atomic_write import write_text_atomically
from forclip.config import HeadConfig, ModelConfig, TrainConfig, read_names
from forclip.data.formats.coco import load_coco
from forclip.data.splits import split_classes
from forclip.embedding.embed import EncodedImages, encode_images
from forclip.embedding.regions import overlaps, region_boxes
from forclip.evaluation.pointing import Pair, class_mean, covered, evaluate_region, pairs_with_boxes
from forclip.experiments.comparison import finetune_on, new_task
from forclip.models.backbone import Backbone
from forclip.models.baselines import ClusterHead, Head, training_free_head
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
Boxer = Callable[[Floats, tuple[int, int]], Floats]
Judged = dict[str, dict[str, dict[str, float]]]  # by way, group of classes and measure


@dataclass(frozen=True)
class World:
    """tokens: [I, T, W]; texts: [C, D] unit, as the model asks for classes; plain: without its class vectors; novel:
    [C]; pairs: what is asked for, and where it is."""

    name: str
    backbone: Backbone
    head: SummaryHead
    tokens: Tensor
    texts: Tensor
    plain: Tensor
    novel: Bools
    pairs: Sequence[Pair]


@dataclass(frozen=True)
class Look:
    """A head, the texts that it is asked by, and which map of its winning vector is taken: `places`, its `attention`,
    or that weighed anew by what each position says of the `text`."""

    head: Head
    texts: Tensor
    kind: str = "places"


def main() -> None:
    given = _arguments()
    console, command = Console(), shlex.join(["python", "-m", "benchmarks.pointing", *sys.argv[1:]])
    worlds = toy_worlds(given.demo) if given.demo else photo_worlds(given)
    found: dict[str, Judged] = {}
    for world in worlds:
        found[world.name] = {"chance": judge_chance(world)}
        for name, look in looks(world).items():
            maps = winning_maps(world, look)
            for told, box in boxers(name, given.sweep).items():
                found[world.name][told] = judge(world, look.head.grid, maps, box)
        console.print(f"{world.name}: {len(world.pairs)} pairs of an image and a class")
    summary = summarise(list(found.values()))
    write_text_atomically(
        given.out, json.dumps({"command": command, "summary": summary, "worlds": found}, indent=1) + "\n"
    )
    console.print(table(summary))


def toy_worlds(demo: Path) -> Iterator[World]:
    """Raises ValueError for a missing model or world."""
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


def photo_worlds(given: argparse.Namespace) -> Iterator[World]:
    """A head and class vectors learned from each training file, on the gallery that goes with it."""
    backbone = PhotoClipBackbone(given.model)
    known = backbone.known_texts()
    wanted = set(read_names(given.classes)) if given.classes else set(known)
    novel = set(read_names(given.novel))
    for files in zip(given.train, given.gallery, strict=True):
        train, gallery = (_encoded(backbone, load_coco(file, given.images)) for file in files)
        names = [n for n in train[0].class_names if n in gallery[0].class_names and n in known and n in wanted]
        split = split_classes(names, [n for n in names if n in novel])
        task = new_task(files[0].stem, backbone, train, gallery, split, PromptOptions(["{}"], known), True)
        tuned = finetune_on(task, HeadConfig(), TrainConfig(teacher="none", interpolation=0.0, views=1))
        is_novel = np.array([name in novel for name in task.gallery.class_names])
        tokens, asked = gallery[1].tokens, tuned.class_vectors(task.texts)
        yield World(files[1].stem, backbone, tuned.head, tokens, asked, task.texts, is_novel, _pairs(task.gallery))


def _encoded(backbone: Backbone, images: Annotations) -> tuple[Annotations, EncodedImages]:
    return images, encode_images(backbone, images.image_ids, images.paths)


def _pairs(images: Annotations) -> list[Pair]:
    return pairs_with_boxes(images, np.array([Image.open(path).size for path in images.paths]))


def looks(world: World, clusters: Sequence[int] = CLUSTERS) -> dict[str, Look]:
    """By name."""
    free = {name: training_free_head(world.backbone, name) for name in ("sum", "global", "dense")}
    clustered = {k: training_free_head(world.backbone, f"cluster_{k}") for k in clusters}
    return {
        "FOR": Look(world.head, world.texts),
        ATTENTION: Look(world.head, world.texts, "attention"),
        "FOR, weighed by the text": Look(world.head, world.texts, "text"),
        "untrained head": Look(free["sum"], world.plain),
        "CLIP (global)": Look(free["global"], world.plain),
        "Dense-CLIP": Look(free["dense"], world.plain),
        **{f"Cluster-CLIP {k}": Look(head, world.plain) for k, head in clustered.items()},
        **{f"Cluster-CLIP {k}, weighed by the text": Look(head, world.plain, "text") for k, head in clustered.items()},
    }


def boxers(name: str, sweep: Sequence[float]) -> dict[str, Boxer]:
    """Ways to a box from a map, by what map and box are called together. sweep: more thresholds for FOR's maps."""
    found: dict[str, Boxer] = {name: region_boxes}
    if name.startswith(("FOR", "Cluster")):
        found[f"{name}, cells from a half"] = cell_boxes
    if name in ("FOR", ATTENTION):
        found |= {f"{name}, from {t:g}": partial(region_boxes, threshold=t) for t in sweep}
    return found


def cell_boxes(maps: Floats, grid: tuple[int, int]) -> Floats:
    """Round whole cells that weigh at least half as much as the strongest and are connected to it: what a cluster
    covers. maps: [M, P]. Returns [M, 4]."""
    boxes = []
    for heat in maps:
        labels, _ = ndimage.label(heat.reshape(grid) >= heat.max() / 2)
        rows, columns = np.nonzero(labels == labels.ravel()[heat.argmax()])
        boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return (np.array(boxes) / [grid[1], grid[0], grid[1], grid[0]]).astype(np.float32)


def judge(world: World, grid: tuple[int, int], maps: Floats, box: Boxer) -> dict[str, dict[str, float]]:
    """By group of classes and measure, in percent. maps: [pairs, P]."""
    found = zip(maps, box(maps, grid), world.pairs, strict=True)
    return group_means(world, [astuple(evaluate_region(heat, grid, place, pair.boxes)) for heat, place, pair in found])


def judge_chance(world: World) -> dict[str, dict[str, float]]:
    """A random point, and the whole image as a box."""
    rows = []
    for pair in world.pairs:
        overlap, share = float(overlaps(_WHOLE, pair.boxes).max()), covered(pair.boxes)
        rows.append((share, share, float(overlap >= 0.5), overlap))
    return group_means(world, rows)


def group_means(world: World, rows: Sequence[tuple[float, ...]]) -> dict[str, dict[str, float]]:
    """rows: of each pair its measures, as fractions."""
    values, columns = np.array(rows), np.array([pair.column for pair in world.pairs])
    found = {}
    for group, chosen in (("base", ~world.novel[columns]), ("novel", world.novel[columns])):
        means = [100 * class_mean(values[chosen, m], columns[chosen]) for m in range(len(MEASURES))]
        found[group] = dict(zip(MEASURES, means, strict=True))
    return found


@torch.inference_mode()
def winning_maps(world: World, look: Look) -> Floats:
    """[pairs, P]: of each the map of the vector that answers it."""
    found: list[Floats] = []
    for image, pairs in groupby(world.pairs, key=lambda pair: pair.image):
        tokens = world.tokens[image : image + 1].float()
        vectors, maps = look.head(tokens)[0], _maps(look, tokens)
        for pair in pairs:
            text = look.texts[pair.column]
            won = maps[(vectors @ text).argmax()]
            if look.kind == "text":
                weighed = won * (_values(look.head, tokens) @ text).clamp(min=0)
                won = weighed if weighed.any() else won
            found.append(won.numpy())
    return np.stack(found)


def _maps(look: Look, tokens: Tensor) -> Tensor:
    """[N, P] of one image."""
    attends = isinstance(look.head, SummaryHead) and look.kind != "places"
    maps: Tensor = look.head.attention(tokens) if attends else look.head.position_weights(tokens)  # type: ignore[attr-defined]
    return maps[0]


def _values(head: Head, tokens: Tensor) -> Tensor:
    """What each position says by itself, not unit: [P, D]."""
    pool = head.dense.pool if isinstance(head, ClusterHead) else head.pool  # type: ignore[attr-defined]
    values: Tensor = pool.dense(pool.stage(tokens))[0]
    return values


def summarise(worlds: Sequence[Judged]) -> Judged:
    """Means over worlds, and sample standard deviations as `_std`."""
    told: Judged = {}
    for way in worlds[0]:
        told[way] = {}
        for group in ("base", "novel"):
            values = np.array([[world[way][group][m] for m in MEASURES] for world in worlds])
            spread = values.std(0, ddof=1) if len(values) > 1 else np.zeros(len(MEASURES))
            means = zip(MEASURES, values.mean(0), strict=True)
            told[way][group] = {m: round(float(v), 2) for m, v in means}
            told[way][group] |= {f"{m}_std": round(float(v), 2) for m, v in zip(MEASURES, spread, strict=True)}
    return told


def table(told: Judged) -> Table:
    """For the terminal."""
    head = [f"{group} {m}" for group in ("base", "novel") for m in MEASURES]
    shown = Table("map and box", *head, title="percent")
    shown.columns[0].no_wrap = True
    for way, groups in told.items():
        shown.add_row(way, *(f"{groups[g][m]:.1f}" for g in ("base", "novel") for m in MEASURES))
    return shown


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_worlds(parser)
    parser.add_argument("--sweep", type=float, nargs="*", default=(0.05, 0.15, 0.2, 0.3, 0.5), help="more thresholds")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def add_worlds(parser: argparse.ArgumentParser) -> None:
    """What is measured on: a demo's worlds, or photos with all that photo_worlds needs."""
    parser.add_argument("--demo", type=Path, help="the folder that forclip demo wrote")
    parser.add_argument("--model", type=Path, help="folder of photoclip.py, to measure on photos")
    parser.add_argument("--train", type=Path, nargs="+", help="COCO-format files, each a training set of its own")
    parser.add_argument("--gallery", type=Path, nargs="+", help="the gallery that goes with each")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--novel", type=Path, help="names, one a line")
    parser.add_argument("--classes", type=Path, help="names, one a line: no other class is used")


if __name__ == "__main__":
    main()
