"""Compare embedding image files on a CPU with open_clip's encode_image, with another version, and beside other jobs.

    python -m benchmarks.embed_speed [--before CHECKOUT] [--models ViT-B-32,ViT-B-16] [--compute float32,bf16]
        [--rounds 3] [--images 32] [--clock wall] [--beside] [--out FILE]

Each side is a process of its own, and they take turns, so that other work of the machine affects all alike. A ratio
is the median over the turns, in wall-clock time and in CPU time of the processes. `ours`, and `before`, the package
in another checkout, go from JPEG files to vectors with regions. `open_clip` decodes as we do and calls `encode_image`
alone, with the fastest number of threads and images at once by --clock, which it looks for first. --beside: also one
job beside a program that keeps all cores busy, and two jobs side by side, each as a share of one job alone. On a
machine that others use, choose by CPU time (--clock cpu), and read that.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
SIZES = {"0.3": (640, 480), "2": (1632, 1224), "12": (4000, 3000)}  # by megapixels
TARGETS = {"open_clip": 0.95, "before": 2.5, "beside": 0.5, "two": 2.5}
_BATCHES = (1, 4, 16, 32)
_READY = "ready"

Seconds = tuple[float, float]  # wall clock and CPU
Embed = Callable[[Sequence[Path]], object]


def ours(model_name: str, compute: str) -> Embed:
    """From files to vectors with regions. Runs in the version that is being measured, which may be an earlier one."""
    from forclip.config import ModelConfig
    from forclip.embedding.embed import embed_images
    from forclip.models.retrieval_model import load_model

    options: dict[str, Any] = {"compute": compute} if hasattr(ModelConfig(), "compute") else {}
    model = load_model(ModelConfig(name=model_name, pretrained="random", **options))
    return lambda paths: embed_images(model, paths)


def open_clip_alone(model_name: str, compute: str) -> Embed:
    """Decode as we do, and only encode_image: with the number of threads and images that is the fastest here."""
    import torch

    from forclip.data.images.stream import stream_pixels
    from forclip.data.images.views import PLAIN
    from forclip.embedding.prepare import PrepareViews
    from forclip.models.open_clip_backbone import load_open_clip

    dtype = torch.bfloat16 if compute == "bf16" else torch.float32
    backbone = load_open_clip(model_name, "random")
    backbone.model.to(dtype)
    prepare = PrepareViews(backbone, [PLAIN])

    @torch.inference_mode()
    def encode(paths: Sequence[Path], threads: int, batch: int) -> None:
        torch.set_num_threads(threads)
        for pixels in stream_pixels(paths, prepare, batch, reduce=prepare.reduction):
            backbone.model.encode_image(pixels.pixels[:, 0].to(dtype), normalize=True)

    best: list[tuple[int, int]] = []

    def run(paths: Sequence[Path]) -> object:
        if not best:
            most = torch.get_num_threads()
            settings = sorted(itertools.product({1, most}, _BATCHES))
            few = paths[: _BATCHES[-1]]
            clock = ("wall", "cpu").index(os.environ["EMBED_SPEED_CLOCK"])
            times = {setting: _timed(lambda s=setting: encode(few, *s))[clock] for setting in settings}  # type: ignore[misc]
            best.append(min(times, key=lambda setting: times[setting]))
        encode(paths, *best[0])
        return best[0]

    return run


def serve_side(side: str, model_name: str, compute: str) -> None:
    """What a child process does: for each line with paths, embed them and print the seconds and the settings."""
    embed = (open_clip_alone if side == "open_clip" else ours)(model_name, compute)
    print(_READY, flush=True)
    for line in sys.stdin:
        paths, result = [Path(path) for path in json.loads(line)], list[object]()
        seconds = _timed(lambda: result.append(embed(paths)))  # noqa: B023 (called at once)
        settings = result[0] if side == "open_clip" else None
        print(json.dumps([*seconds, settings]), flush=True)


def _timed(work: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


class Side:
    """A child process that embeds files on request."""

    def __init__(self, side: str, model: str, compute: str, source: Path, clock: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(source / "src"), "EMBED_SPEED_CLOCK": clock}
        if side != "before":  # as the command line sets it
            environment["OMP_WAIT_POLICY"] = "PASSIVE"
            environment["PYTHONPATH"] += f"{os.pathsep}{ROOT}"
        command = [sys.executable, __file__, "--side", side, "--models", model, "--compute", compute]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.DEVNULL,
        )
        self.settings: Any = None
        while (line := self._read()) != _READY:
            if not line:
                raise RuntimeError(f"the side {side} of {model} did not start: {' '.join(command)}")

    def start(self, paths: Sequence[Path]) -> None:
        assert self._process.stdin is not None
        print(json.dumps(list(map(str, paths))), file=self._process.stdin, flush=True)

    def finish(self) -> Seconds:
        wall, cpu, self.settings = json.loads(self._read())
        return wall, cpu

    def run(self, paths: Sequence[Path]) -> Seconds:
        self.start(paths)
        return self.finish()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> "Side":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()


def write_files(folder: Path, count: int, sizes: Sequence[str]) -> dict[str, list[Path]]:
    """Write pictures of each size. Those of one size have one content, which the system's cache holds."""
    from benchmarks.decode_rate import make_jpeg

    files: dict[str, list[Path]] = {}
    for name in sizes:
        size = SIZES[name]
        first = folder / f"{name}.jpg"
        first.write_bytes(make_jpeg(size))
        files[name] = [folder / f"{name}_{number}.jpg" for number in range(count)]
        for path in files[name]:
            os.link(first, path)
    return files


def compare(
    model: str, compute: str, files: dict[str, list[Path]], args: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """Compare the sides for each size of pictures."""
    others = {"open_clip": ROOT} | ({"before": args.before} if args.before else {})
    with ExitStack() as stack:
        start = stack.enter_context
        mine = start(Side("ours", model, compute, ROOT, args.clock))
        sides = {name: start(Side(name, model, compute, source, args.clock)) for name, source in others.items()}
        for size, paths in files.items():
            mine.run(paths[:8])
            for side in sides.values():
                side.run(paths)
            turns = [
                (mine.run(paths), {name: side.run(paths) for name, side in sides.items()}) for _ in range(args.rounds)
            ]
            own = np.array([seconds for seconds, _ in turns])
            rate = {"images_per_second": len(paths) / np.median(own[:, 0]), "cpu_ms": _per_image(own, paths)}
            result: dict[str, Any] = {"model": model, "compute": compute, "megapixels": size, "ours": rate}
            for name, side in sides.items():
                theirs = np.array([seconds[name] for _, seconds in turns])
                ratio, cpu_ratio = np.median(theirs / own, axis=0).tolist()
                result[name] = {
                    "images_per_second": len(paths) / float(np.median(theirs[:, 0])),
                    "cpu_ms": _per_image(theirs, paths),
                    "ours_to_theirs": ratio,
                    "ours_to_theirs_in_cpu_time": cpu_ratio,
                    "threads_and_batch": side.settings,
                }
            yield result


def _per_image(seconds: Any, paths: Sequence[Path]) -> float:
    return float(1000 * np.median(seconds[:, 1]) / len(paths))


def beside(side: str, model: str, source: Path, paths: Sequence[Path], args: argparse.Namespace) -> dict[str, Any]:
    """One job alone, beside a busy program, and beside another job, in turn."""
    with (
        Side(side, model, "float32", source, args.clock) as one,
        Side(side, model, "float32", source, args.clock) as two,
    ):
        for warm_up in (one, two):
            warm_up.run(paths[:8])
        alone, busy, both = list[float](), list[float](), list[float]()
        for _ in range(args.rounds):
            alone.append(one.run(paths)[0])
            with busy_program():
                busy.append(one.run(paths)[0])
            one.start(paths)
            two.start(paths)
            both.append(max(one.finish()[0], two.finish()[0]))
    return {
        "side": side,
        "model": model,
        "seconds_alone": float(np.median(alone)),
        "speed_beside_a_busy_program": float(np.median(np.array(alone) / busy)),
        "time_of_two_jobs": float(np.median(np.array(both) / alone)),
    }


@contextmanager
def busy_program() -> Iterator[None]:
    """A program that computes on every core."""
    command = [sys.executable, "-c", "while True: pass"]
    busy = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    args = _arguments()
    if args.side:
        serve_side(args.side, args.models, args.compute)
        return
    from benchmarks.command import command_line
    from benchmarks.throughput import machine
    from forclip.atomic_write import write_text_atomically

    content: dict[str, Any] = {"command": command_line(), **machine(), "targets": TARGETS, "sizes": []}
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder), args.images, args.megapixels.split(","))
        for model, compute in itertools.product(args.models.split(","), args.compute.split(",")):
            for result in compare(model, compute, files, args):
                print(json.dumps(result), flush=True)
                content["sizes"].append(result)
        if args.beside:
            sides = {"ours": ROOT} | ({"before": args.before} if args.before else {})
            model = args.models.split(",")[0]
            content["beside"] = [
                beside(side, model, source, next(iter(files.values())), args) for side, source in sides.items()
            ]
            print(json.dumps(content["beside"]), flush=True)
    content["load_after"] = os.getloadavg()[0]
    if args.out:
        write_text_atomically(args.out, json.dumps(content, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="ViT-B-32,ViT-B-16")
    parser.add_argument("--compute", default="float32", help="number formats of ours and of open_clip")
    parser.add_argument("--before", type=Path, help="checkout of an earlier version")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beside", action="store_true", help="also beside other programs, with the first model")
    parser.add_argument("--megapixels", default=",".join(SIZES))
    parser.add_argument("--images", type=int, default=32, help="files of each size")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="by which open_clip's settings are chosen"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
