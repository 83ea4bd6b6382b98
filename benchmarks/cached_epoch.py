"""Measure the speed-up of an epoch of finetuning by the token cache, against encoding through the frozen backbone.

    OMP_NUM_THREADS=1 python -m benchmarks.cached_epoch --out cached_epoch.json

Both variants run the same steps on the same batches, in turn, in one process on one core. Only the source of the tokens
differs. The teacher's vectors are computed beforehand and are in memory in both variants.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from forclip.config import RunConfig
from forclip.data.images.stream import stream_pixels
from forclip.data.images.views import make_views
from forclip.data.sources import load_sets
from forclip.data.splits import choose_classes
from forclip.embedding.row_shards import one_view, read_rows
from forclip.embedding.token_cache import cached_tokens
from forclip.experiments.demo import toyworld_config
from forclip.models.backbone import Backbone
from forclip.models.baselines import ClusterHead
from forclip.models.open_clip_backbone import load_open_clip
from forclip.text.prompt_options import PromptOptions
from forclip.toyworld.dataset import write_toyworld
from forclip.training.build_objectives import build_objectives
from forclip.training.candidates import AUTOMATIC, candidates_of
from forclip.training.initialisation import seeded_head
from forclip.training.supervision import Supervision, supervise
from forclip.training.teachers import HeadTeacher
from forclip.training.trainer import TrainingSet, TrainingState, learning_rate, new_state, train_step
from forclip.types import Annotations

Losses = list[dict[str, float]]


@dataclass(frozen=True)
class Setting:
    """Shared by both variants. cached: training set whose tokens are mapped from the cache."""

    backbone: Backbone
    config: RunConfig
    images: Annotations
    supervision: Supervision
    cached: TrainingSet


@dataclass(frozen=True)
class Result:
    """Medians over the rounds, in seconds per epoch.

    loss_difference: largest relative difference over steps and terms; reading_seconds: part of an epoch that gets the
    tokens; writing_seconds: encode every image into the cache; opening_seconds: open the cache and verify checksums.
    """

    model: str
    images: int
    rounds: int
    uncached_seconds: float
    cached_seconds: float
    ratio: float
    ratios: list[float]
    loss_difference: float
    uncached_reading_seconds: float
    cached_reading_seconds: float
    writing_seconds: float
    opening_seconds: float
    cache_bytes: int
    losses_uncached: Losses
    losses_cached: Losses


def new_setting(folder: Path, backbone: Backbone, num_images: int) -> tuple[Setting, float, float]:
    """Generate the images and fill the cache. Also returns the seconds to write the cache and to open it again."""
    world = write_toyworld(folder / "world", num_images, 1, seed=0)
    config = toyworld_config(world, 0)
    config = replace(config, train=replace(config.train, teacher="cluster", learning_rate=1e-3))
    images, _ = load_sets(config.data)
    split = choose_classes(config.data, images, images)
    supervision = supervise(backbone, images, split, PromptOptions(), allow_unlabelled_base=True)
    start = time.perf_counter()
    encoded, writing = open_cache(folder / "cache", backbone, images), time.perf_counter() - start
    start = time.perf_counter()
    encoded, opening = open_cache(folder / "cache", backbone, images), time.perf_counter() - start
    assert encoded.shape[1] == len(images)
    head = ClusterHead(backbone.new_pool().to(backbone.device), config.train.teacher_clusters)
    taught = HeadTeacher(head, encoded, backbone.device)(range(len(images)))
    labels, verified = (torch.from_numpy(part.copy()) for part in supervision.of_views(1))
    data = TrainingSet(encoded, torch.arange(len(images)), labels, verified, taught, taught[:, :, :0])
    return Setting(backbone, config, images, supervision, data), writing, opening


def open_cache(cache: Path, backbone: Backbone, images: Annotations) -> Tensor:
    """The tokens of all images, [1, images, T, W], from the cache or computed and cached."""
    return cached_tokens(cache, backbone, images.image_ids, images.paths, make_views(1, 0)).tokens


def initial_state(setting: Setting) -> TrainingState:
    """The untuned head and its objectives, before the first step."""
    head = seeded_head(setting.backbone.new_pool(), one_view(setting.cached.tokens, 0), setting.config.head, seed=0)
    head.train()
    (candidate,) = candidates_of(setting.config.train, AUTOMATIC)
    objectives = build_objectives(head, setting.cached, setting.supervision, setting.config.train, candidate)
    return new_state(head, objectives, setting.config.train, candidate.trainable)


def read_cached(setting: Setting, rows: Tensor) -> Tensor:
    """Tokens of some images from the cache, [B, T, W] float16."""
    return read_rows(setting.cached.tokens, rows, torch.zeros_like(rows))


@torch.inference_mode()
def encode_live(setting: Setting, rows: Tensor) -> Tensor:
    """Tokens of some images, [B, T, W] float32: decode, preprocess and encode with the frozen backbone."""
    paths = [setting.images.paths[row] for row in rows]
    (batch,) = stream_pixels(paths, lambda row, picture: setting.backbone.preprocess(picture.pixels), len(paths))
    return setting.backbone.encode_tokens(batch.pixels)


def run_epoch(setting: Setting, read_tokens: Callable[[Setting, Tensor], Tensor]) -> tuple[float, float, Losses]:
    """Train one epoch. Returns its seconds, the part spent on reading tokens, and the losses of each step."""
    state, data = initial_state(setting), setting.cached
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(data)))
    config = setting.config.train
    batches = order.split(config.batch_size)
    reading = 0.0
    start = time.perf_counter()
    for rows in batches:
        before = time.perf_counter()
        tokens = read_tokens(setting, rows)
        reading += time.perf_counter() - before
        first = torch.zeros_like(rows)
        parts = (data.targets, data.verified, data.teacher, data.untuned)
        batch = TrainingSet(
            tokens[None], torch.arange(len(rows)), *(read_rows(part, rows, first)[None] for part in parts)
        )
        rate = learning_rate(state.step, len(batches), config)
        train_step(state, batch, torch.zeros_like(rows), torch.arange(len(rows)), rate, config.ema_decay)
    return time.perf_counter() - start, reading, state.history


def measure(folder: Path, backbone: Backbone, num_images: int, rounds: int) -> Result:
    """Alternate the two variants, so that other work of the machine affects both."""
    setting, writing, opening = new_setting(folder, backbone, num_images)
    run_epoch(setting, read_cached)  # warm-up: the first epoch allocates memory
    live, cached = [], []
    for _ in range(rounds):
        live.append(run_epoch(setting, encode_live))
        cached.append(run_epoch(setting, read_cached))
    ratios = [one[0] / other[0] for one, other in zip(live, cached, strict=True)]
    count = len(setting.images)
    return Result(
        model=backbone.name,
        images=count,
        rounds=rounds,
        uncached_seconds=statistics.median(seconds for seconds, _, _ in live),
        cached_seconds=statistics.median(seconds for seconds, _, _ in cached),
        ratio=statistics.median(ratios),
        ratios=ratios,
        loss_difference=largest_difference(live[0][2], cached[0][2]),
        uncached_reading_seconds=statistics.median(reading for _, reading, _ in live),
        cached_reading_seconds=statistics.median(reading for _, reading, _ in cached),
        writing_seconds=writing,
        opening_seconds=opening,
        cache_bytes=sum(f.stat().st_size for f in (folder / "cache").glob("*/tokens.npy")),
        losses_uncached=live[0][2],
        losses_cached=cached[0][2],
    )


def largest_difference(one: Losses, other: Losses) -> float:
    """Largest relative difference over all steps and objectives."""
    return max(abs(a[name] - b[name]) / abs(b[name]) for a, b in zip(one, other, strict=True) for name in b)


def show(result: Result, console: Console) -> None:
    table = Table(title=f"{result.model}: an epoch of {result.images} images on one core, median of {result.rounds}")
    for column in ("tokens from", "seconds", "reading tokens", "training the head", "images/s"):
        table.add_column(column, justify="left" if column == "tokens from" else "right")
    for name, seconds, reading in (
        ("decoding and backbone", result.uncached_seconds, result.uncached_reading_seconds),
        ("the cache", result.cached_seconds, result.cached_reading_seconds),
    ):
        rate = result.images / seconds
        table.add_row(name, f"{seconds:.3f}", f"{reading:.3f}", f"{seconds - reading:.3f}", f"{rate:.0f}")
    console.print(table)
    console.print(f"[bold]{result.ratio:.1f}x[/] ({min(result.ratios):.1f} to {max(result.ratios):.1f})")
    console.print(f"largest relative difference of a loss: {result.loss_difference:.1e}")
    console.print(
        f"the cache: {result.cache_bytes / 1e6:.0f} MB, written in {result.writing_seconds:.2f} s, "
        f"opened and verified in {result.opening_seconds:.3f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="forclip-mini", help="model name for load_open_clip")
    parser.add_argument("--pretrained", help="open_clip tag or weights file; `random` gives the same times")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # decoding threads share this core
    with tempfile.TemporaryDirectory() as folder:
        backbone = load_open_clip(args.model, args.pretrained)
        result = measure(Path(folder), backbone, args.images, args.rounds)
    show(result, Console())
    if args.out:
        args.out.write_text(json.dumps(asdict(result), indent=1) + "\n")


if __name__ == "__main__":
    main()
