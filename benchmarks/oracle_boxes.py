"""What an oracle that sees the boxes would find: a frozen model looks at each annotated object by itself.

    python -m benchmarks.oracle_boxes [--seeds 3] [--paddings 0,0.1,0.25,0.5,1] [--out FILE]
    python -m benchmarks.oracle_boxes --model FOLDER --gallery FILE [FILE] --gallery-images DIR --novel FILE \
        [--classes FILE] [--min-relevant 3] [--paddings 0.25] [--out FILE]

An image's vectors are the model's own pooled embedding of the whole picture and of a crop round every ground-truth box,
each at the model's input size; its score is the best of them. No text is changed and nothing is trained, so this bounds
what looking at single objects can give with this model. Without --model it is measured on toy worlds with the mini
CLIP, else with the model and on the photos of `examples/plug_in_backbone.py`.
"""

import argparse
import json
import sys
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

from examples.plug_in_backbone import PhotoClipBackbone
from forclip.atomic_write import write_text_atomically
from forclip.config import read_names
from forclip.data.formats.coco import load_coco
from forclip.data.images.stream import stream_pixels
from forclip.data.sets import load_sets
from forclip.data.splits import choose_classes, split_classes
from forclip.embedding.embed import BATCH_SIZE
from forclip.evaluation.metrics import max_sim
from forclip.evaluation.protocol import GROUPS, evaluate_scores, metric_name
from forclip.experiments.ablation import source_commit
from forclip.experiments.demo import toyworld_config
from forclip.models.backbone import Backbone
from forclip.models.mini_clip import MINI_NAME
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.summary_head import global_head
from forclip.text.prompt_options import read_templates
from forclip.text.prompts import encode_classes
from forclip.toyworld.dataset import write_toyworld
from forclip.types import Annotations, ClassSplit, Floats, Ints

_WHOLE = (0.0, 0.0, np.inf, np.inf)  # a box that holds any picture


@dataclass(frozen=True)
class Gallery:
    """One set to search. templates: prompts with `{}` for a class name; min_relevant: as evaluate_scores takes it."""

    name: str
    backbone: Backbone
    images: Annotations
    split: ClassSplit
    templates: Sequence[str]
    min_relevant: int


@dataclass(frozen=True)
class Result:
    """Percentages. padding: of a box's own width and height, added on each side; None: no box, the whole picture."""

    gallery: str
    padding: float | None
    base: float | None
    novel: float | None
    all: float | None
    vectors_per_image: float


def looks(images: Annotations) -> tuple[Ints, Floats]:
    """Where to look: the whole picture first, then its boxes, image by image.

    Returns the image of each look, [V] in ascending order, and the box, [V, 4] xyxy in pixels, `_WHOLE` for all of it.
    """
    owners = np.concatenate([np.arange(len(images)), images.box_images])
    boxes = np.concatenate([np.tile(np.array(_WHOLE, np.float32), (len(images), 1)), images.boxes])
    order = np.argsort(owners, kind="stable")
    return owners[order], boxes[order]


def padded_crop(image: Image.Image, box: Sequence[float], padding: float) -> Image.Image:
    """The box, xyxy in pixels, with `padding` of its width and height added on each side, as far as the picture goes.

    Never smaller than one pixel, for boxes without area and those that lie outside.
    """
    x, y, right, bottom = box
    (left, end_x), (top, end_y) = (
        _grown(low, high, padding, size) for low, high, size in ((x, right, image.width), (y, bottom, image.height))
    )
    return image.crop((left, top, end_x, end_y))


def _grown(low: float, high: float, padding: float, size: int) -> tuple[int, int]:
    """An interval made wider on both sides, cut to 0..size, in whole pixels."""
    low, high = max(low, 0.0), min(high, float(size))
    more = padding * max(high - low, 0.0)
    start = min(max(round(low - more), 0), size - 1)
    return start, max(min(round(high + more), size), start + 1)


@torch.inference_mode()
def embed_looks(backbone: Backbone, paths: Sequence[Path], boxes: Floats, padding: float) -> Floats:
    """The pooled embedding of each look, [V, D] unit. paths: of the picture of each; a picture is read for every look.

    Raises ValueError for one that can't be read.
    """
    head = global_head(backbone.new_pool()).to(backbone.device).eval()

    def prepare(row: int, image: Image.Image) -> Tensor:
        return backbone.preprocess(padded_crop(image, boxes[row].tolist(), padding))

    parts: list[Floats] = []
    for batch in stream_pixels(paths, prepare, BATCH_SIZE):
        if batch.unreadable:
            raise ValueError(batch.unreadable[0][1])
        found = head(backbone.encode_tokens(batch.pixels.to(backbone.device)).float())
        parts.append(found[:, 0].cpu().numpy())
    return np.concatenate(parts)


def measure(gallery: Gallery, padding: float | None) -> Result:
    """Max-sim of whole pictures, and of boxes where a padding is given, against the texts of all classes."""
    owners, boxes = looks(gallery.images)
    if padding is None:
        kept = np.isinf(boxes[:, 2])
        owners, boxes = owners[kept], boxes[kept]
    paths = [gallery.images.paths[row] for row in owners]
    vectors = embed_looks(gallery.backbone, paths, boxes, padding or 0.0)
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
    """The galleries that `forclip demo` and `forclip ablate` search: a world and a split for each seed."""
    backbone = load_open_clip(MINI_NAME, None)
    for seed in range(seeds):
        data = toyworld_config(write_toyworld(folder / f"world-{seed}", 1, images, seed), seed).data
        train, gallery = load_sets(data)
        split = choose_classes(data, train, gallery)
        yield Gallery(f"toy world {seed}", backbone, gallery, split, read_templates(data), 1)


def photo_galleries(given: argparse.Namespace) -> Iterator[Gallery]:
    """The classes that `examples/plug_in_backbone.py` uses, in its wording."""
    backbone = PhotoClipBackbone(given.model)
    known = set(backbone.known_texts())
    wanted = set(read_names(given.classes)) if given.classes else known
    for file in given.gallery:
        gallery = load_coco(file, given.gallery_images)
        names = [name for name in gallery.class_names if name in known & wanted]
        split = split_classes(names, [name for name in read_names(given.novel) if name in names])
        yield Gallery(file.stem, backbone, gallery, split, ["{}"], given.min_relevant)


def summarise(results: Sequence[Result]) -> list[dict[str, Any]]:
    """For each padding the means over galleries, and sample standard deviations where there are several."""
    rows = []
    for padding in dict.fromkeys(r.padding for r in results):
        same = [r for r in results if r.padding == padding]
        row: dict[str, Any] = {"padding": padding, "galleries": len(same)}
        for group in GROUPS:
            values = [v for r in same if (v := getattr(r, group)) is not None]
            row[group] = float(np.mean(values)) if values else None
            row[f"{group}_std"] = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        row["vectors_per_image"] = float(np.mean([r.vectors_per_image for r in same]))
        rows.append(row)
    return rows


def print_table(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    table = Table("vectors of", *GROUPS, "per image", "galleries", title=f"{metric_name(50, 'min(k,R)')}, percent")
    for row in rows:
        what = "the whole picture" if row["padding"] is None else f"it and boxes padded by {row['padding']:g}"
        values = ["-" if row[g] is None else f"{row[g]:.1f} ± {row[f'{g}_std']:.1f}" for g in GROUPS]
        table.add_row(what, *values, f"{row['vectors_per_image']:.1f}", str(row["galleries"]))
    console.print(table)


def run(galleries: Iterator[Gallery], paddings: Sequence[float], tell: Callable[[str], None]) -> list[Result]:
    """Every padding on every gallery, each told as soon as it is measured."""
    found = []
    for gallery in galleries:
        for padding in (None, *paddings):
            found.append(measure(gallery, padding))
            told = (f"{g} {v:.1f}" for g in GROUPS if (v := getattr(found[-1], g)) is not None)
            tell(f"{gallery.name}, padding {padding}: {', '.join(told)}")
    return found


def main() -> None:
    given = _arguments()
    console = Console()
    paddings = [float(padding) for padding in given.paddings.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        toys = partial(toy_galleries, Path(folder), given.seeds, given.gallery_size)
        galleries = photo_galleries(given) if given.model else toys()
        results = run(galleries, paddings, partial(console.print, markup=False, highlight=False))
    rows = summarise(results)
    print_table(console, rows)
    if given.out:
        about = {"command": _command(), "commit": source_commit(), "metric": metric_name(50, "min(k,R)")}
        content = {**about, "summary": rows, "runs": [vars(result) for result in results]}
        write_text_atomically(given.out, json.dumps(content, indent=1) + "\n")


def _command() -> str:
    return " ".join(["python -m benchmarks.oracle_boxes", *sys.argv[1:]])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="toy worlds")
    parser.add_argument("--gallery-size", type=int, default=800, help="pictures of each toy world")
    parser.add_argument("--paddings", default="0,0.1,0.25,0.5,1", help="shares of a box's sides, added on each side")
    parser.add_argument("--model", type=Path, help="folder of photoclip.py, to measure on photos")
    parser.add_argument("--gallery", type=Path, nargs="+", help="COCO-format files, each a gallery of its own")
    parser.add_argument("--gallery-images", type=Path)
    parser.add_argument("--novel", type=Path, help="names, one a line")
    parser.add_argument("--classes", type=Path, help="names, one a line: no other class is used")
    parser.add_argument("--min-relevant", type=int, default=1, help="leave out classes with fewer gallery images")
    parser.add_argument("--out", type=Path, help="a JSON file of the numbers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
