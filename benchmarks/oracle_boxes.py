"""Measure an upper bound: search with a frozen model that embeds every annotated object by itself.

    python -m benchmarks.oracle_boxes [--seeds 3] [--paddings 0,0.1,0.25,0.5,1] [--out FILE]
    python -m benchmarks.oracle_boxes --model FOLDER --gallery FILE [FILE] --gallery-images DIR --novel FILE \
        [--classes FILE] [--min-relevant 3] [--paddings 0.25] [--out FILE]

An image's vectors are the model's pooled embeddings of the whole image and of a crop around every ground-truth box,
each at the model's input size. Its score is the best of them. Nothing is trained and no text vector changes, so the
result bounds what embedding single objects can give with this model. Without --model, measures the mini CLIP on toy
worlds; with it, the model and the photos of `examples/plug_in_backbone.py`.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.command import command_line
from examples.plug_in_backbone import PhotoClipBackbone
from forclip.atomic_write import write_text_atomically
from forclip.config import read_names
from forclip.data.formats.coco import load_coco
from forclip.data.images.box_frames import upright_boxes
from forclip.data.images.picture import Picture
from forclip.data.images.stream import stream_pixels
from forclip.data.sources import load_sets
from forclip.data.splits import choose_classes, split_classes
from forclip.embedding.embed import BATCH_SIZE
from forclip.evaluation.metrics import max_sim
from forclip.evaluation.protocol import GROUPS, evaluate_scores, metric_name
from forclip.experiments.ablation import source_commit
from forclip.experiments.demo import toyworld_config
from forclip.location import Location
from forclip.models.backbone import Backbone
from forclip.models.mini_clip import MINI_NAME
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.summary_head import global_head
from forclip.text.prompt_options import read_templates
from forclip.text.prompts import encode_classes
from forclip.toyworld.dataset import write_toyworld
from forclip.types import Annotations, ClassSplit, Floats, Ints

_WHOLE = (0.0, 0.0, np.inf, np.inf)  # a box that contains any image


@dataclass(frozen=True)
class Gallery:
    """Images to search. templates: prompts with `{}` for a class name; min_relevant: as in evaluate_scores."""

    name: str
    backbone: Backbone
    images: Annotations
    split: ClassSplit
    templates: Sequence[str]
    min_relevant: int


@dataclass(frozen=True)
class Result:
    """mAP in percent. padding: fraction of a box's width and height, added on each side; None: whole images only."""

    gallery: str
    padding: float | None
    base: float | None
    novel: float | None
    all: float | None
    vectors_per_image: float


def regions(images: Annotations) -> tuple[Ints, Floats]:
    """The regions to embed: for each image the whole image, then its boxes.

    Returns the row of the image of each region, [V] ascending, and its box, [V, 4] xyxy in pixels; `_WHOLE` for the
    whole image.
    """
    images = upright_boxes(images)
    owners = np.concatenate([np.arange(len(images)), images.box_images])
    boxes = np.concatenate([np.tile(np.array(_WHOLE, np.float32), (len(images), 1)), images.boxes])
    order = np.argsort(owners, kind="stable")
    return owners[order], boxes[order]


def padded_crop(image: Image.Image, box: Sequence[float], padding: float) -> Image.Image:
    """Crop a padded box, cut to the image. The crop has at least one pixel, even if the box is empty or outside.

    box: xyxy in pixels; padding: fraction of its width and height, added on each side.
    """
    x, y, right, bottom = box
    (left, end_x), (top, end_y) = (
        _grown(low, high, padding, size) for low, high, size in ((x, right, image.width), (y, bottom, image.height))
    )
    return image.crop((left, top, end_x, end_y))


def _grown(low: float, high: float, padding: float, size: int) -> tuple[int, int]:
    """Pad an interval on both sides, and cut it to 0..size in whole pixels."""
    low, high = max(low, 0.0), min(high, float(size))
    margin = padding * max(high - low, 0.0)
    start = min(max(round(low - margin), 0), size - 1)
    return start, max(min(round(high + margin), size), start + 1)


@torch.inference_mode()
def embed_regions(backbone: Backbone, paths: Sequence[Location], boxes: Floats, padding: float) -> Floats:
    """The pooled embedding of each region, [V, D] unit vectors. paths: image file of each region.

    Raises ValueError if an image cannot be read.
    """
    head = global_head(backbone.new_pool()).to(backbone.device).eval()

    def prepare(row: int, picture: Picture) -> Tensor:
        return backbone.preprocess(padded_crop(picture.pixels, boxes[row].tolist(), padding))

    parts: list[Floats] = []
    for batch in stream_pixels(paths, prepare, BATCH_SIZE):
        if batch.unreadable:
            raise ValueError(batch.unreadable[0][1])
        vectors = head(backbone.encode_tokens(batch.pixels.to(backbone.device)).float())
        parts.append(vectors[:, 0].cpu().numpy())
    return np.concatenate(parts)


def measure(gallery: Gallery, padding: float | None) -> Result:
    """Evaluate max-sim search for all classes over whole images, and over boxes if a padding is args."""
    owners, boxes = regions(gallery.images)
    if padding is None:
        kept = np.isinf(boxes[:, 2])
        owners, boxes = owners[kept], boxes[kept]
    paths = [gallery.images.paths[row] for row in owners]
    vectors = embed_regions(gallery.backbone, paths, boxes, padding or 0.0)
    labelled = gallery.images.with_classes((*gallery.split.base, *gallery.split.novel), add_missing=True)
    texts = encode_classes(gallery.backbone, labelled.class_names, gallery.templates).numpy()
    offsets = np.searchsorted(owners, np.arange(len(labelled) + 1))
    report = evaluate_scores(
        max_sim(vectors, offsets, texts),
        labelled.labels,
        labelled.class_names,
        gallery.split,
        gallery.min_relevant,
        verified=labelled.verified,
    )
    means = report.means["min(k,R)"]
    return Result(gallery.name, padding, means["base"], means["novel"], means["all"], len(owners) / len(labelled))


def toy_galleries(folder: Path, seeds: int, images: int) -> Iterator[Gallery]:
    """The galleries of `forclip demo` and `forclip ablate`: a world and a split for each seed."""
    backbone = load_open_clip(MINI_NAME, None)
    for seed in range(seeds):
        data = toyworld_config(write_toyworld(folder / f"world-{seed}", 1, images, seed), seed).data
        train, gallery = load_sets(data)
        split = choose_classes(data, train, gallery)
        yield Gallery(f"toy world {seed}", backbone, gallery, split, read_templates(data), 1)


def photo_galleries(args: argparse.Namespace) -> Iterator[Gallery]:
    """Galleries of photos, with the classes and prompts of `examples/plug_in_backbone.py`."""
    backbone = PhotoClipBackbone(args.model)
    embeddable = set(backbone.known_texts())
    requested = set(read_names(args.classes)) if args.classes else embeddable
    for file in args.gallery:
        gallery = load_coco(file, args.gallery_images)
        names = [name for name in gallery.class_names if name in embeddable & requested]
        split = split_classes(names, [name for name in read_names(args.novel) if name in names])
        yield Gallery(file.stem, backbone, gallery, split, ["{}"], args.min_relevant)


def summarise(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Means over galleries for each padding, and sample standard deviations if there are several galleries."""
    rows = []
    for padding in dict.fromkeys(r.padding for r in results):
        group_results = [r for r in results if r.padding == padding]
        row: dict[str, Any] = {"padding": padding, "galleries": len(group_results)}
        for group in GROUPS:
            values = [v for r in group_results if (v := getattr(r, group)) is not None]
            row[group] = float(np.mean(values)) if values else None
            row[f"{group}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        row["vectors_per_image"] = float(np.mean([r.vectors_per_image for r in group_results]))
        rows.append(row)
    return rows


def print_table(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    table = Table("vectors of", *GROUPS, "per image", "galleries", title=f"{metric_name(50, 'min(k,R)')}, percent")
    for row in rows:
        source = "whole image" if row["padding"] is None else f"whole image and boxes padded by {row['padding']:g}"
        values = ["-" if row[g] is None else f"{row[g]:.1f} ± {row[f'{g}_std']:.1f}" for g in GROUPS]
        table.add_row(source, *values, f"{row['vectors_per_image']:.1f}", str(row["galleries"]))
    console.print(table)


def run(galleries: Iterator[Gallery], paddings: Sequence[float], report: Callable[[str], None]) -> list[Result]:
    """Measure every padding on every gallery, and report each as soon as it is measured."""
    results = []
    for gallery in galleries:
        for padding in (None, *paddings):
            results.append(measure(gallery, padding))
            numbers = (f"{g} {v:.1f}" for g in GROUPS if (v := getattr(results[-1], g)) is not None)
            report(f"{gallery.name}, padding {padding}: {', '.join(numbers)}")
    return results


def main() -> None:
    args = _arguments()
    console = Console()
    paddings = [float(padding) for padding in args.paddings.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        toys = partial(toy_galleries, Path(folder), args.seeds, args.gallery_size)
        galleries = photo_galleries(args) if args.model else toys()
        results = run(galleries, paddings, partial(console.print, markup=False, highlight=False))
    rows = summarise(results)
    print_table(console, rows)
    if args.out:
        about = {"command": command_line(), "commit": source_commit(), "metric": metric_name(50, "min(k,R)")}
        content = {**about, "summary": rows, "runs": [vars(result) for result in results]}
        write_text_atomically(args.out, json.dumps(content, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of toy worlds")
    parser.add_argument("--gallery-size", type=int, default=800, help="images per toy world")
    parser.add_argument("--paddings", default="0,0.1,0.25,0.5,1", help="fractions of a box's sides, added on each side")
    parser.add_argument("--model", type=Path, help="folder of photoclip.py; measures on photos")
    parser.add_argument("--gallery", type=Path, nargs="+", help="COCO files; each is one gallery")
    parser.add_argument("--gallery-images", type=Path)
    parser.add_argument("--novel", type=Path, help="file of novel class names, one per line")
    parser.add_argument("--classes", type=Path, help="file of class names, one per line; other classes are ignored")
    parser.add_argument("--min-relevant", type=int, default=1, help="skip classes with fewer gallery images")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
