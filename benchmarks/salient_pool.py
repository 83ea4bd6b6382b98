"""Give a model the pooled embedding that real CLIP has: one that the salient object dominates.

    python -m benchmarks.salient_pool --model FOLDER --images DIR [DIR ...] --out FOLDER \
        [--image-size 224] [--gallery FILE DIR NOVEL CLASSES [--gallery ...]] [--min-relevant 3] [--results FILE]

FOLDER contains a model of `examples/plug_in_backbone.py`, whose attention pool is close to a plain mean. The photos in
--images need no labels. Only the pool's queries and keys are fitted to them: the pooled embedding of a photo learns to
name the word that the photo's best region names. Trunk and value path stay, and so do Dense-CLIP and Cluster-CLIP.

With --gallery, measures both models on labelled photos: mAP@50 of plain CLIP (`global`), Dense-CLIP, Cluster-CLIP and
tiles of plain CLIP, for all objects and for small ones alone.
"""

import argparse
import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from benchmarks.command import command_line
from examples.plug_in_backbone import PhotoClipBackbone
from forclip.atomic_write import write_text_atomically
from forclip.config import read_names
from forclip.data.formats.coco import load_coco
from forclip.data.images.listing import list_pictures
from forclip.data.images.tiles import Tiles
from forclip.data.images.views import make_views
from forclip.data.splits import split_classes
from forclip.embedding.embed import EncodedBatch, encode_batches, encode_views
from forclip.evaluation.metrics import max_sim
from forclip.evaluation.protocol import GROUPS, evaluate_scores, metric_name
from forclip.experiments.ablation import source_commit
from forclip.location import local_path
from forclip.models.backbone import Backbone
from forclip.models.baselines import training_free_head
from forclip.models.pools import Pool
from forclip.text.prompts import encode_classes
from forclip.types import Annotations, ClassSplit, Floats

WEIGHTS = "photoclip.safetensors"
MODULE = "photoclip.py"
COPIED = (MODULE, "photoclip.json", "text_vectors.npz")
EMBEDDING = "attnpool.positional_embedding"
STRIDE = 32  # pixels of the input for a position
TILES = Tiles(3, 3)
CLUSTERS = (5, 10, 25)
_BATCH = 32  # images, where nothing is learned
SMALL = 0.05  # area of a class's largest box, relative to the image
COLUMNS = ("base", "novel", "small base", "small novel")

Row = dict[str, Any]  # gallery, images, method, and mAP@50 in percent of each group of classes


@dataclass(frozen=True)
class FitConfig:
    """How queries and keys are fitted.

    window: side in positions of the regions that name a photo's word. temperature: of the softmax over words, in
    standard deviations of a word's score. sharpness: factor of the fitted queries, below 1 for softer attention than
    the fit's. views: of each photo, as in `make_views`.
    """

    window: int = 2
    temperature: float = 1.0
    sharpness: float = 0.5
    learning_rate: float = 1e-3
    epochs: int = 8
    batch_size: int = 32
    views: int = 1
    seed: int = 0


@torch.inference_mode()
def salient_words(pool: Pool, tokens: Tensor, texts: Tensor, window: int) -> Tensor:
    """Find the word that stands out in each image: the one that its best region fits better than other images' do.

    A region is the mean of the dense vectors in a square of `window` positions. Scores are standardised over images,
    because some words are close to every image. tokens: [I, P, W]; texts: [T, D] unit. Returns indices of texts, [I].
    """
    scores = []
    for batch in tokens.split(_BATCH):
        dense = pool.dense(batch.float()).transpose(1, 2).unflatten(2, pool.grid)
        regions = F.avg_pool2d(dense, window, stride=1).flatten(2).transpose(1, 2)
        scores.append((F.normalize(regions, dim=-1) @ texts.T).amax(1))
    mean, std = _statistics(torch.cat(scores))
    return torch.cat([((part - mean) / std).argmax(-1) for part in scores])


def _statistics(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each word's scores [I, T], both [T]."""
    return scores.mean(0), scores.std(0).clamp(min=1e-6)


def pooled_vectors(pool: Pool, tokens: Tensor) -> Tensor:
    """The pooled embeddings [I, D], unit vectors, of tokens [I, P, W]."""
    return F.normalize(pool(tokens, pool.pretrained_query(tokens))[:, 0], dim=-1)


def fit_salient_pool(pool: Pool, tokens: Tensor, words: Tensor, texts: Tensor, config: FitConfig) -> list[float]:
    """Fit the pool's queries and keys so that its pooled embedding names each image's word. Changes the pool.

    tokens: [I, P, W] of any float type; words: [I] indices of texts; texts: [T, D] unit. The loss is the cross-entropy
    of the words, whose scores are standardised as the first pool's. Returns the mean loss of each epoch.
    """
    with torch.no_grad():
        first = torch.cat([pooled_vectors(pool, batch.float()) for batch in tokens.split(_BATCH)])
        mean, std = _statistics(first @ texts.T)
    pool.requires_grad_(False)
    parameters = pool.query_key_parameters()
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, config.learning_rate)
    steps = config.epochs * math.ceil(len(tokens) / config.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(config.seed)
    losses = []
    for _ in range(config.epochs):
        total = 0.0
        for rows in torch.randperm(len(tokens), generator=generator).split(config.batch_size):
            scores = (pooled_vectors(pool, tokens[rows].float()) @ texts.T - mean) / std
            loss = F.cross_entropy(scores / config.temperature, words[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(rows)
        losses.append(total / len(tokens))
    pool.requires_grad_(False)
    for parameter in pool.q_proj.parameters():
        parameter.mul_(config.sharpness)
    return losses


def copy_model(source: Path, out: Path, image_size: int | None) -> None:
    """Copy a model folder, with another size of its input if one is given, in pixels a side.

    Raises ValueError if the size is not a multiple of the trunk's stride, or if the module has no line that sets it.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in (*COPIED, WEIGHTS):
        shutil.copyfile(source / name, out / name)
    if image_size is None:
        return
    if image_size < STRIDE or image_size % STRIDE:
        raise ValueError(f"image size must be a multiple of {STRIDE}, not {image_size}")
    module, count = re.subn(r"(?m)^IMAGE_SIZE = \d+$", f"IMAGE_SIZE = {image_size}", (out / MODULE).read_text())
    if count != 1:
        raise ValueError(f"{source / MODULE} has no line IMAGE_SIZE = ...")
    (out / MODULE).write_text(module)
    weights = load_file(out / WEIGHTS)
    embedding = weights[EMBEDDING]
    side, new_side = math.isqrt(len(embedding) - 1), image_size // STRIDE
    grid = embedding[1:].float().T.unflatten(1, (side, side))[None]
    resized = F.interpolate(grid, (new_side, new_side), mode="bilinear")[0].flatten(1).T.to(embedding.dtype)
    weights[EMBEDDING] = torch.cat([embedding[:1], resized])
    save_file(weights, out / WEIGHTS)


def write_queries_and_keys(pool: Pool, folder: Path) -> None:
    """Replace a model's queries and keys by those of a pool, in half precision."""
    weights = load_file(folder / WEIGHTS)
    for name, value in pool.state_dict().items():
        if name.startswith(("q_proj.", "k_proj.")):
            weights[f"attnpool.{name}"] = value.half().contiguous()
    save_file(weights, folder / WEIGHTS)


@dataclass(frozen=True)
class Gallery:
    """Labelled photos to search, with the classes of the split as columns."""

    name: str
    images: Annotations
    split: ClassSplit


def small_objects(images: Annotations, largest: float) -> Annotations:
    """Keep the labels of small objects alone: larger ones become unverified, so that they count neither way.

    largest: area of a class's largest box in an image, relative to the image. A label without a box is not small.
    """
    assert images.box_sizes is not None
    sides = images.boxes[:, 2:] - images.boxes[:, :2]
    areas = np.ones(images.labels.shape)
    cells = images.box_images, images.box_classes
    areas[cells] = 0
    np.maximum.at(areas, cells, sides.prod(1) / images.box_sizes[images.box_images].prod(1))
    return replace(images, verified=images.verified_mask & ~(images.labels & (areas > largest)))


@torch.inference_mode()
def embed_ladder(models: Mapping[str, Backbone], batches: Iterable[EncodedBatch]) -> dict[str, Floats]:
    """Embed images by each method: name to unit vectors [I, N, D].

    models: by name, with the same trunk and value path, so that the first one's Dense-CLIP and Cluster-CLIP are all
    models'. batches: of the whole images and, behind them, of their tiles if there are any.
    """
    shared = next(iter(models.values()))
    heads = {name: training_free_head(shared, name) for name in ("dense", *(f"cluster_{k}" for k in CLUSTERS))}
    pooled = {name: training_free_head(model, "global") for name, model in models.items()}
    parts: dict[str, list[Floats]] = {}
    for batch in batches:
        if batch.skipped:
            raise ValueError(batch.skipped[0][1].reason)
        tokens = batch.tokens.float()
        vectors = {name: head(tokens[0]) for name, head in heads.items()}
        for name, head in pooled.items():
            views = torch.cat([head(view) for view in tokens], 1)
            vectors[f"global, {name}"] = views[:, :1]
            if len(tokens) > 1:
                vectors[f"tiles, {name}"] = views[:, 1:]
        for name, value in vectors.items():
            parts.setdefault(name, []).append(value.numpy())
    return {name: np.concatenate(values) for name, values in parts.items()}


def evaluate(vectors: Floats, texts: Floats, gallery: Gallery, min_relevant: int) -> dict[str, float | None]:
    """mAP@50 in percent of max-sim search by each group of classes: vectors [I, N, D], texts [C, D].

    Keys that start with `small` count small objects alone.
    """
    offsets = np.arange(len(vectors) + 1, dtype=np.int64) * vectors.shape[1]
    scores = max_sim(vectors.reshape(-1, vectors.shape[2]), offsets, texts)
    result: dict[str, float | None] = {}
    for prefix, images in (("", gallery.images), ("small ", small_objects(gallery.images, SMALL))):
        labels = images.labels & images.verified_mask
        arguments = scores, labels, images.class_names, gallery.split, min_relevant
        means = evaluate_scores(*arguments, verified=images.verified).means["min(k,R)"]
        result |= {prefix + group: means[group] for group in GROUPS}
    return result


def measure(
    models: Mapping[str, PhotoClipBackbone], gallery: Gallery, batches: Iterable[EncodedBatch], min_relevant: int
) -> list[Row]:
    """Measure every method on a gallery. models, batches: as in `embed_ladder`."""
    texts = encode_classes(next(iter(models.values())), gallery.images.class_names, ["{}"]).numpy()
    return [
        {
            "gallery": gallery.name,
            "images": len(gallery.images),
            "method": name,
            **evaluate(vectors, texts, gallery, min_relevant),
        }
        for name, vectors in embed_ladder(models, batches).items()
    ]


def read_gallery(file: Path, images: Path, novel: Path, classes: Path, embeddable: Sequence[str]) -> Gallery:
    """Read a COCO file. novel, classes: files of class names, one per line; the other classes are base classes."""
    annotations = load_coco(file, images)
    requested = set(read_names(classes)) & set(embeddable)
    names = [name for name in annotations.class_names if name in requested]
    split = split_classes(names, [name for name in read_names(novel) if name in names])
    return Gallery(file.stem, annotations.with_classes(names), split)


def fit_model(folder: Path, photos: Sequence[Path], config: FitConfig) -> list[float]:
    """Fit the pool of a model folder to photos, and write its queries and keys. Returns the mean loss of each epoch.

    Raises ValueError if no photo can be read.
    """
    backbone = PhotoClipBackbone(folder)
    encoded = encode_views(backbone, [str(p) for p in photos], photos, make_views(config.views, config.seed))
    if not len(encoded.rows):
        raise ValueError(f"none of {len(photos)} photos can be read")
    pool, texts = backbone.new_pool(), backbone.encode_text(backbone.known_texts())
    # All views of a photo learn the word of the whole photo.
    words = salient_words(pool, encoded.tokens[0], texts, config.window).repeat(len(encoded.tokens))
    losses = fit_salient_pool(pool, encoded.tokens.flatten(0, 1), words, texts, config)
    write_queries_and_keys(pool, folder)
    return losses


def print_table(console: Console, rows: Sequence[Row]) -> None:
    table = Table("gallery", "method", *COLUMNS, title=f"{metric_name(50, 'min(k,R)')}, percent")
    for row in rows:
        values = ["-" if row[c] is None else f"{row[c]:.1f}" for c in COLUMNS]
        table.add_row(row["gallery"], row["method"], *values)
    console.print(table)


def main() -> None:
    args = _arguments()
    console = Console()
    config = FitConfig(seed=args.seed)
    photos = [local_path(photo) for folder in args.images for photo in list_pictures(str(folder)).pictures]
    copy_model(args.model, args.out, args.image_size)
    plain = PhotoClipBackbone(args.out)
    losses = fit_model(args.out, photos, config)
    console.print(f"{len(photos)} photos; mean loss of each epoch: {', '.join(f'{loss:.2f}' for loss in losses)}")
    models = {"plain": plain, "salient": PhotoClipBackbone(args.out)}
    rows: list[Row] = []
    about: dict[str, Any] = {
        "command": command_line(),
        "commit": source_commit(),
        "metric": metric_name(50, "min(k,R)"),
        "small": SMALL,
    }
    about["fit"] = {"photos": len(photos), **asdict(config), "losses": losses}
    for file, images, novel, classes in args.gallery:
        gallery = read_gallery(file, images, novel, classes, plain.known_texts())
        batches = encode_batches(plain, gallery.images.image_ids, gallery.images.paths, TILES.views())
        rows += measure(models, gallery, batches, args.min_relevant)
        if args.results:  # after each gallery, because one can take long
            write_text_atomically(args.results, json.dumps({**about, "rows": rows}, indent=1) + "\n")
    if rows:
        print_table(console, rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of photoclip.py")
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="folders of unlabelled photos")
    parser.add_argument("--out", type=Path, required=True, help="folder for the new model")
    parser.add_argument("--image-size", type=int, help="side of the new model's input in pixels; default: the model's")
    parser.add_argument("--seed", type=int, default=0)
    files = ("FILE", "DIR", "NOVEL", "CLASSES")
    about = "COCO file, its images, and files of the novel and of all class names, one per line"
    parser.add_argument("--gallery", type=Path, nargs=4, metavar=files, action="append", default=[], help=about)
    parser.add_argument("--min-relevant", type=int, default=3, help="skip classes with fewer gallery images")
    parser.add_argument("--results", type=Path, help="JSON file for what is measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
