"""How fast a trained model embeds images, next to open_clip's own path and to Cluster-CLIP, as ratios within one run.

    python benchmarks/throughput.py [--models RN50,ViT-B-32] [--threads 1,2] [--rounds 15] [--out FILE]

The two sides take turns, so that whatever else the machine does meets both; a ratio is the median over the turns.
CPU time is given beside wall-clock time: with one thread it hardly sees the other programs of a machine that is shared.
With more threads than free cores set OMP_WAIT_POLICY=passive; else waiting at OpenMP's barriers is what gets measured.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
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

from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig
from forclip.data.images.decode import read_image
from forclip.embedding.embed import embed_images
from forclip.models.mini_clip import MINI_NAME
from forclip.models.open_clip_backbone import RANDOM, OpenClipBackbone, load_open_clip
from forclip.models.retrieval_model import RetrievalModel, load_model
from forclip.models.summary_head import window_seeded_head
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
    """ours, theirs: [rounds, 2], wall-clock and CPU seconds of one call; images: of one call; target: least ratio."""

    what: str
    threads: int
    images: int
    ours: Floats
    theirs: Floats
    target: float

    def ratios(self) -> Floats:
        """How many times theirs our images/second are: [3, 2], lower quartile, median and upper quartile."""
        quartiles: Floats = np.quantile(self.theirs / self.ours, (0.25, 0.5, 0.75), axis=0)
        return quartiles


def take_turns(ours: Work, theirs: Work, rounds: int, device: torch.device) -> tuple[Floats, Floats]:
    """Ours, theirs, ours, theirs and so on, after a warm-up. Each [rounds, 2]: wall-clock and CPU seconds."""
    turns = [(_seconds(ours, device), _seconds(theirs, device)) for _ in range(_WARM_UPS + rounds)]
    ours_seconds, theirs_seconds = np.array(turns[_WARM_UPS:]).transpose(1, 0, 2)
    return ours_seconds, theirs_seconds


def _seconds(work: Work, device: torch.device) -> tuple[float, float]:
    """Wall-clock and CPU seconds. A GPU is idle before, and done with its work after."""
    _wait_for(device)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    _wait_for(device)
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def against_open_clip(
    name: str, threads: Sequence[int], given: argparse.Namespace, device: torch.device
) -> Iterator[Comparison]:
    """The tower and a head of 25 query tokens, against the same tower's encode_image with its one vector."""
    dtype = _DTYPES[given.dtype]
    backbone = load_open_clip(name, None if name == MINI_NAME else RANDOM, device=given.device)
    backbone.model.to(dtype)
    head = window_seeded_head(backbone.new_pool(), NUM_QUERY_TOKENS).to(device, dtype).eval().requires_grad_(False)
    pixels = _noise(backbone, given.batch).to(device, dtype)
    for count in threads:
        torch.set_num_threads(count)
        ours, theirs = take_turns(
            lambda: head(backbone.encode_tokens(pixels)),
            lambda: backbone.model.encode_image(pixels, normalize=True),
            given.rounds,
            device,
        )
        yield Comparison(f"{name} / encode_image", count, given.batch, ours, theirs, _LEAST_RATIO)


def _noise(backbone: OpenClipBackbone, count: int) -> Tensor:
    size = backbone.model.visual.image_size
    rows, columns = size if isinstance(size, tuple) else (size, size)
    return torch.randn(count, 3, rows, columns, generator=torch.Generator().manual_seed(0))


def against_clusters(
    folder: Path, threads: Sequence[int], given: argparse.Namespace, device: torch.device
) -> Iterator[Comparison]:
    """The mini CLIP on toy-world pictures with 25 query tokens, against Cluster-CLIP: from pixels, then from files."""
    mini = ModelConfig(name=MINI_NAME)
    ours = load_model(mini, given.device, "sum", NUM_QUERY_TOKENS)
    theirs = load_model(mini, given.device, f"cluster_{NUM_CLUSTERS}")
    paths = sorted(write_toyworld(folder, 1, given.images, seed=0).images.glob("gallery_*"))
    pixels = torch.stack([ours.backbone.preprocess(read_image(path)) for path in paths]).to(device)
    sources: dict[str, Callable[[RetrievalModel], object]] = {
        "pixels": lambda model: _embed_pixels(model, pixels),
        "files": lambda model: embed_images(model, paths, with_boxes=False),
    }
    for source, embed in sources.items():
        for count in threads:
            torch.set_num_threads(count)
            found = take_turns(lambda e=embed: e(ours), lambda e=embed: e(theirs), given.rounds, device)  # type: ignore[misc]
            what = f"{MINI_NAME} / Cluster-CLIP, from {source}"
            yield Comparison(what, count, len(paths), *found, _LEAST_SPEEDUP)


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
    """What the numbers depend on besides the code. load: runnable programs over the last minute, ours among them."""
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


def measure(given: argparse.Namespace, tell: Callable[[Comparison], None]) -> list[Comparison]:
    """All comparisons, each told as soon as it is made."""
    device = torch.device(given.device)
    threads = [int(count) for count in given.threads.split(",")]
    found: list[Comparison] = []
    with tempfile.TemporaryDirectory() as folder:
        parts = [against_open_clip(name, threads, given, device) for name in given.models.split(",") if name]
        if given.images:
            parts.append(against_clusters(Path(folder), threads, given, device))
        for part in parts:
            for comparison in part:
                tell(comparison)
                found.append(comparison)
    return found


def main() -> None:
    given = _arguments()
    console = Console()
    before = machine()
    found = measure(given, lambda c: console.print(f"{c.what}, {c.threads} thread(s): {c.ratios()[1, 0]:.3f}"))
    print_table(console, found)
    if given.out:
        content = {"command": " ".join(sys.argv), **before, "comparisons": [as_json(c) for c in found]}
        write_text_atomically(given.out, json.dumps(content, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=f"{MINI_NAME},RN50,ViT-B-32", help="against encode_image; empty for none")
    parser.add_argument("--batch", type=int, default=16, help="images a call, against encode_image")
    parser.add_argument("--images", type=int, default=64, help="toy-world pictures against Cluster-CLIP; 0 for none")
    parser.add_argument("--threads", default="1,2", help="PyTorch's; two more threads decode pictures from files")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=_DTYPES, default="fp32", help="against encode_image")
    parser.add_argument("--out", type=Path, help="a JSON file of the numbers, such as docs/results/throughput.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
