"""Compare the speed of embedding images with open_clip's encode_image and with Cluster-CLIP, as ratios in one run.

    python -m benchmarks.throughput [--models RN50,ViT-B-32] [--threads 1,2] [--rounds 15] [--out FILE]

The two sides take turns, so that other work of the machine affects both; a ratio is the median over the turns. With one
thread, CPU time depends little on other programs, so it is given as well as wall-clock time. With more threads than
free cores, set OMP_WAIT_POLICY=passive; otherwise the benchmark measures waiting at OpenMP's barriers.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.command import command_line
from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig
from forclip.data.images.decode import read_image
from forclip.embedding.embed import embed_images
from forclip.models.mini_clip import MINI_NAME
from forclip.models.open_clip_backbone import load_open_clip
from forclip.models.references import RANDOM
from forclip.models.retrieval_model import RetrievalModel, load_model
from forclip.models.summary_head import window_seeded_head
from forclip.models.tower_backbone import TowerBackbone
from forclip.toyworld.dataset import write_toyworld
from forclip.types import Floats

NUM_QUERY_TOKENS, NUM_CLUSTERS = 25, 10
_LEAST_RATIO, _LEAST_SPEEDUP = 0.95, 3.0
_WARM_UPS = 2
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "scikit-learn", "numpy", "pillow")

Work = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """One measured pair. ours, theirs: [rounds, 2], wall-clock and CPU seconds per call; images: number per call;
    target: least acceptable ratio."""

    what: str
    threads: int
    images: int
    ours: Floats
    theirs: Floats
    target: float

    def ratios(self) -> Floats:
        """Our images per second divided by theirs, [3, 2]: lower quartile, median and upper quartile."""
        quartiles: Floats = np.quantile(self.theirs / self.ours, (0.25, 0.5, 0.75), axis=0)
        return quartiles


def take_turns(ours: Work, theirs: Work, rounds: int, device: torch.device) -> tuple[Floats, Floats]:
    """Run both in turn after a warm-up. Returns wall-clock and CPU seconds of each, [rounds, 2]."""
    turns = [(_seconds(ours, device), _seconds(theirs, device)) for _ in range(_WARM_UPS + rounds)]
    ours_seconds, theirs_seconds = np.array(turns[_WARM_UPS:]).transpose(1, 0, 2)
    return ours_seconds, theirs_seconds


def _seconds(work: Work, device: torch.device) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one call, until a GPU has finished its work."""
    _wait_for(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    _wait_for(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def compare_with_open_clip(
    name: str, threads: Sequence[int], args: argparse.Namespace, device: torch.device
) -> Iterator[Comparison]:
    """Compare the tower with a head of 25 query tokens and plain CLIP's share to the same tower's encode_image."""
    dtype = _DTYPES[args.dtype]
    backbone = load_open_clip(name, None if name == MINI_NAME else RANDOM, device=args.device)
    backbone.model.to(dtype)
    head = window_seeded_head(backbone.new_pool(), NUM_QUERY_TOKENS).with_share(0.5)
    head = head.to(device, dtype).eval().requires_grad_(False)
    pixels = _noise(backbone, args.batch).to(device, dtype)
    for count in threads:
        torch.set_num_threads(count)
        ours, theirs = take_turns(
            lambda: head(backbone.encode_tokens(pixels)),
            lambda: backbone.model.encode_image(pixels, normalize=True),
            args.rounds,
            device,
        )
        yield Comparison(f"{name} / encode_image", count, args.batch, ours, theirs, _LEAST_RATIO)


def _noise(backbone: TowerBackbone, count: int) -> Tensor:
    size = backbone.model.visual.image_size
    rows, columns = size if isinstance(size, tuple) else (size, size)
    return torch.randn(count, 3, rows, columns, generator=torch.Generator().manual_seed(0))


def compare_with_clusters(
    folder: Path, threads: Sequence[int], args: argparse.Namespace, device: torch.device
) -> Iterator[Comparison]:
    """Compare 25 query tokens to Cluster-CLIP, with the mini CLIP on toy-world images: from pixels, then from files."""
    mini = ModelConfig(name=MINI_NAME)
    ours = load_model(mini, args.device, "sum", NUM_QUERY_TOKENS)
    theirs = load_model(mini, args.device, f"cluster_{NUM_CLUSTERS}")
    paths = sorted(write_toyworld(folder, 1, args.images, seed=0).images.glob("gallery_*"))
    pixels = torch.stack([ours.backbone.preprocess(read_image(path)) for path in paths]).to(device)
    sources: dict[str, Callable[[RetrievalModel], object]] = {
        "pixels": lambda model: _embed_pixels(model, pixels),
        "files": lambda model: embed_images(model, paths, with_boxes=False),
    }
    for source, embed in sources.items():
        for count in threads:
            torch.set_num_threads(count)
            seconds = take_turns(lambda e=embed: e(ours), lambda e=embed: e(theirs), args.rounds, device)  # type: ignore[misc]
            what = f"{MINI_NAME} / Cluster-CLIP, from {source}"
            yield Comparison(what, count, len(paths), *seconds, _LEAST_SPEEDUP)


@torch.inference_mode()
def _embed_pixels(model: RetrievalModel, pixels: Tensor) -> Tensor:
    return model.head(model.backbone.encode_tokens(pixels)).cpu()


def as_json(comparison: Comparison) -> dict[str, Any]:
    low, median, high = comparison.ratios()
    speed = {
        f"{side}_images_per_second": comparison.images / float(np.median(seconds[:, 0]))
        for side, seconds in (("ours", comparison.ours), ("theirs", comparison.theirs))
    }
    return {
        "what": comparison.what,
        "threads": comparison.threads,
        "images_per_call": comparison.images,
        "rounds": len(comparison.ours),
        **speed,
        "ratio": median[0],
        "ratio_quartiles": [low[0], high[0]],
        "cpu_time_ratio": median[1],
        "cpu_time_ratio_quartiles": [low[1], high[1]],
        "target": comparison.target,
    }


def machine() -> dict[str, Any]:
    """Describe the machine, the library versions and the commit. load: runnable programs over the last minute."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "libraries": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "commit": _git("rev-parse", "HEAD"),
        "changed_since_commit": _git("status", "--porcelain", "--", "src", "benchmarks").splitlines(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent.parent), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.rstrip()


def print_table(console: Console, comparisons: Sequence[Comparison]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("ours / theirs", min_width=13)
    for column in ("threads", "images/s", "theirs", "ratio", "quartiles", "in CPU\ntime", "at\nleast"):
        table.add_column(column, justify="right", no_wrap=True)
    for comparison in comparisons:
        table.add_row(*_cells(comparison))
    console.print(table)


def _cells(comparison: Comparison) -> list[str]:
    row = as_json(comparison)
    low, high = row["ratio_quartiles"]
    colour = "green" if row["ratio"] >= comparison.target else "red"
    return [
        comparison.what,
        str(comparison.threads),
        f"{row['ours_images_per_second']:.3g}",
        f"{row['theirs_images_per_second']:.3g}",
        f"[{colour}]{row['ratio']:.3f}[/]",
        f"{low:.2f}-{high:.2f}",
        f"{row['cpu_time_ratio']:.3f}",
        f"{comparison.target:.2f}",
    ]


def measure(args: argparse.Namespace, report: Callable[[Comparison], None]) -> list[Comparison]:
    """Run all comparisons, and report each as soon as it is measured."""
    device = torch.device(args.device)
    threads = [int(count) for count in args.threads.split(",")]
    comparisons: list[Comparison] = []
    with tempfile.TemporaryDirectory() as folder:
        parts = [compare_with_open_clip(name, threads, args, device) for name in args.models.split(",") if name]
        if args.images:
            parts.append(compare_with_clusters(Path(folder), threads, args, device))
        for part in parts:
            for comparison in part:
                report(comparison)
                comparisons.append(comparison)
    return comparisons


def main() -> None:
    args = _arguments()
    console = Console()
    before = machine()
    comparisons = measure(args, lambda c: console.print(f"{c.what}, {c.threads} thread(s): {c.ratios()[1, 0]:.3f}"))
    print_table(console, comparisons)
    if args.out:
        content = {"command": command_line(), **before, "comparisons": [as_json(c) for c in comparisons]}
        write_text_atomically(args.out, json.dumps(content, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", default=f"{MINI_NAME},RN50,ViT-B-32", help="compared with encode_image; may be empty"
    )
    parser.add_argument("--batch", type=int, default=16, help="images per call, for encode_image")
    parser.add_argument("--images", type=int, default=64, help="toy-world images for Cluster-CLIP; 0 skips it")
    parser.add_argument("--threads", default="1,2", help="PyTorch threads; two more threads decode image files")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=_DTYPES, default="fp32", help="precision, for encode_image")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
