"""Compare the speed of embedding on a GPU with the bare image tower's in half precision, as ratios in one run.

    python -m benchmarks.gpu_speed [--out FILE]
    python -m benchmarks.gpu_speed --device cpu --models forclip-mini --seconds 0 --rounds 1 --pictures 8

Ours is the path of `forclip index` on synthetic pixels in pinned memory: copies to the GPU, tower, a head with 25
vectors, regions, results on the CPU. Theirs is the tower alone, on pixels that are on the GPU: under autocast, as we
run it, and with all weights in half precision. The sides take turns, and a ratio is the median over the turns. Beside
it: how many JPEGs of 2 megapixels the cores decode and scale for it, and a step of training beside a bare forward and
backward pass of the head. Weights are random.
"""

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

from benchmarks.command import command_line
from benchmarks.decode_rate import make_jpeg
from benchmarks.throughput import machine
from forclip.atomic_write import write_text_atomically
from forclip.config import TrainConfig, checked_compute
from forclip.data.images.stream import PixelBatch, stream_pixels
from forclip.data.images.views import PLAIN
from forclip.embedding.embed import embed_pixels
from forclip.embedding.prepare import PrepareViews
from forclip.models.compute import DTYPES, autocast, resolve_compute
from forclip.models.encoder import Encoder
from forclip.models.mini_clip import MINI_NAME
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.references import RANDOM
from forclip.models.retrieval_model import RetrievalModel
from forclip.models.summary_head import SummaryHead, window_seeded_head
from forclip.models.tower_backbone import TowerBackbone
from forclip.training.objectives import BaseLabels
from forclip.training.trainer import TrainingSet, multiplies_bfloat16, new_state, train_step

NUM_QUERY_TOKENS, NUM_CLASSES = 25, 48
TARGET = 0.9  # of the bare tower under autocast
_TRAINED_IMAGES, _STEPS = 256, 4
_DECODED_SIZE = 1632, 1224

Work = Callable[[], object]


def in_turns(sides: Sequence[Work], rounds: int, device: torch.device) -> list[list[float]]:
    """Return the seconds of each side's calls, which take turns. A first round is not counted."""
    seconds: list[list[float]] = [[] for _ in sides]
    for turn in range(rounds + 1):
        for side, times in zip(sides, seconds, strict=True):
            start = time.perf_counter()
            side()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if turn:
                times.append(time.perf_counter() - start)
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median over turns of our speed as a share of theirs."""
    return float(np.median(np.array(theirs) / np.array(ours)))


def load(name: str, args: argparse.Namespace) -> TowerBackbone:
    backbone = load_open_clip(name, None if name == MINI_NAME else RANDOM, device=args.device)
    return backbone.with_compute(resolve_compute(checked_compute(args.compute), backbone.device), args.compile)


@torch.inference_mode()
def compare_tower(name: str, backbone: TowerBackbone, args: argparse.Namespace) -> dict[str, Any]:
    """Compare embedding synthetic pixels with the bare tower."""
    device, compute = backbone.device, backbone.compute
    head = window_seeded_head(backbone.new_pool(), NUM_QUERY_TOKENS).to(device).eval().requires_grad_(False)
    model = RetrievalModel(name, backbone, head, "benchmark")
    encoder = Encoder(backbone, args.batch)
    one = torch.randn(backbone.preprocess(_blank()).shape)
    encoder.fit(head, one)
    count = encoder.batch_size
    pixels = one.expand(count, 1, *one.shape).contiguous()
    pixels = pixels.pin_memory() if device.type == "cuda" else pixels
    on_device, tower = encoder.to_device(pixels[:, 0]), backbone.model.visual
    dtype = DTYPES[compute]
    half_tower, half_pixels = copy.deepcopy(tower).to(dtype), on_device.to(dtype)

    def bare() -> None:
        with autocast(device, compute):
            tower(on_device)

    (timed,) = in_turns([bare], 2, device)
    batches = max(1, round(args.seconds / min(timed)))

    def repeat(tower: Work) -> Work:
        def run() -> None:
            for _ in range(batches):
                tower()

        return run

    def source() -> Iterator[PixelBatch]:
        for _ in range(batches):
            yield PixelBatch(pixels, list(range(count)), [(640, 480)] * count, [])

    ids = [str(row) for row in range(count)]

    def ours() -> None:
        for _ in embed_pixels(encoder, model, source(), ids):
            pass

    seconds = in_turns([ours, repeat(bare), repeat(lambda: half_tower(half_pixels))], args.rounds, device)
    speeds = [count * batches / float(np.median(times)) for times in seconds]
    return {
        "model": name,
        "compute": compute,
        "images_at_once": count,
        "images_per_second": speeds[0],
        "bare_autocast_images_per_second": speeds[1],
        "bare_half_weights_images_per_second": speeds[2],
        "ratio_to_autocast": ratio(seconds[0], seconds[1]),
        "ratio_to_half_weights": ratio(seconds[0], seconds[2]),
        "target": TARGET,
    }


def compare_training(backbone: TowerBackbone, args: argparse.Namespace) -> dict[str, Any]:
    """Compare a step of training, from tokens in memory, with a bare forward and backward pass of the head."""
    device, config = backbone.device, TrainConfig(learning_rate=1e-4)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        shape = Encoder(backbone, 2).encode(torch.randn(2, *backbone.preprocess(_blank()).shape)).wait()[0].shape[1:]
    tokens = torch.randn(1, _TRAINED_IMAGES, *shape, generator=generator).half()
    head = window_seeded_head(backbone.new_pool(), NUM_QUERY_TOKENS).to(device)
    texts = F.normalize(torch.randn(NUM_CLASSES, head.pool.dim, generator=generator), dim=-1).to(device)
    state = new_state(head, [BaseLabels(texts, "binary", 1.0)], config, "query_key")
    data = TrainingSet(
        tokens=tokens,
        rows=torch.arange(_TRAINED_IMAGES),
        targets=torch.rand(1, _TRAINED_IMAGES, NUM_CLASSES, generator=generator) < 0.1,
        verified=torch.ones(1, _TRAINED_IMAGES, NUM_CLASSES, dtype=torch.bool),
        teacher=torch.zeros(1, _TRAINED_IMAGES, 0, head.pool.dim),
        untuned=torch.zeros(1, _TRAINED_IMAGES, 0, head.pool.dim),
    )
    positions = torch.arange(config.batch_size)
    other = copy.deepcopy(head)
    batch = tokens[0, positions].to(device, torch.float32)

    def ours() -> None:
        for _ in range(_STEPS):
            train_step(state, data, torch.zeros_like(positions), positions, 1e-4, 0.0)

    def theirs() -> None:
        for _ in range(_STEPS):
            _forward_and_backward(other, batch)

    seconds = in_turns([ours, theirs], args.rounds, device)
    step, bare = (float(np.median(times)) / _STEPS for times in seconds)
    return {"step_ms": 1000 * step, "bare_ms": 1000 * bare, "step_over_bare": 1 / ratio(*seconds)}


def _forward_and_backward(head: SummaryHead, tokens: Tensor) -> None:
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=multiplies_bfloat16(tokens.device)):
        vectors = head(tokens).float()
    head.zero_grad()
    vectors.sum().backward()


def measure_decoding(backbone: TowerBackbone, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Measure how many JPEGs of 2 megapixels all cores decode and scale, and what each costs the embedding process."""
    first, cores = folder / "0.jpg", os.cpu_count() or 1
    first.write_bytes(make_jpeg(_DECODED_SIZE))
    paths = [folder / f"{number}.jpg" for number in range(args.pictures)]
    for path in paths[1:]:
        os.link(first, path)
    prepare = PrepareViews(backbone, [PLAIN])
    shape = (1, *backbone.preprocess(_blank()).shape)
    results = {}
    for name, given in (("shared", shape), ("sent", None)):
        start, used = time.perf_counter(), time.process_time()
        stream = stream_pixels(paths, prepare, 64, processes=cores, reduce=prepare.reduction, shape=given)
        count = sum(len(batch.rows) for batch in stream)
        results[name] = count / (time.perf_counter() - start), 1000 * (time.process_time() - used) / count
    return {
        "cores": cores,
        "megapixels": _DECODED_SIZE[0] * _DECODED_SIZE[1] / 1e6,
        "decoded_images_per_second": results["shared"][0],
        "ms_of_the_embedding_process": results["shared"][1],
        "ms_of_the_embedding_process_if_sent": results["sent"][1],
    }


def _blank() -> Image.Image:
    return Image.new("RGB", (8, 8))


def measure(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure all models, and print a line for each as soon as it is known."""
    rows = []
    for name in args.models.split(","):
        backbone = load(name, args)
        row = compare_tower(name, backbone, args) | {"training": compare_training(backbone, args)}
        with tempfile.TemporaryDirectory() as folder:
            row["decoding"] = measure_decoding(backbone, Path(folder), args)
        rows.append(row)
        decoding, training = row["decoding"], row["training"]
        console.print(
            f"{name} in {row['compute']}, {row['images_at_once']} at once: {row['images_per_second']:,.0f} images/s, "
            f"{row['ratio_to_autocast']:.3f} of the bare tower under autocast "
            f"({row['ratio_to_half_weights']:.3f} with half weights; target {TARGET}); {decoding['cores']} cores "
            f"decode {decoding['decoded_images_per_second']:,.0f}/s; a training step takes "
            f"{training['step_over_bare']:.2f} times a bare pass ({training['step_ms']:.1f} ms)",
            highlight=False,
            soft_wrap=True,
        )
        del backbone
        if args.device.startswith("cuda"):
            torch.cuda.empty_cache()
    return {"command": command_line(), **machine(), "models": rows}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", default="ViT-B-16,ViT-L-14-336,RN50x64")
    parser.add_argument("--compute", default="auto", help="as `forclip index --compute`")
    parser.add_argument("--compile", action="store_true", help="run our image tower through torch.compile")
    parser.add_argument("--batch", type=int, help="images at once; default: as `forclip index` chooses")
    parser.add_argument("--seconds", type=float, default=3.0, help="that a turn lasts, about")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=512, help="that are decoded")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    return parser.parse_args(words)


def main() -> None:
    args = arguments()
    results = measure(args, Console())
    if args.out:
        write_text_atomically(args.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
