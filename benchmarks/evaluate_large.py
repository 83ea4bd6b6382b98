"""Measure the time and the memory of evaluating a gallery of LVIS's size.

    python -m benchmarks.evaluate_large [--images 20000] [--vectors 25] [--classes 1203] [--dtype float16] [--out FILE]

Generates unit vectors, labels and verified labels from a seed. Scoring (max_sim), evaluate_scores with federated labels
and the confidence intervals over classes run in a fresh process, which reads its peak memory after each step.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import command_line
from forclip.atomic_write import write_text_atomically
from forclip.evaluation.metrics import max_sim
from forclip.evaluation.metrics_file import MethodRun, summarise_runs
from forclip.evaluation.protocol import evaluate_scores
from forclip.types import Bools, ClassSplit

_BLOCK_IMAGES = 500
_MEBIBYTE = 1 << 20
_NOVEL_FRACTION = 0.28  # LVIS v1: 337 rare classes of 1,203

Result = TypeVar("Result")


def random_vectors(total: int, dim: int, dtype: str, rng: np.random.Generator, block: int) -> NDArray[np.floating]:
    """Random unit vectors, [total, dim]. Drawn in blocks, so that only the result takes much memory."""
    vectors = np.empty((total, dim), dtype)
    for start in range(0, total, block):
        drawn = rng.standard_normal((min(block, total - start), dim), np.float32)
        vectors[start : start + block] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return vectors


def random_labels(num_images: int, num_classes: int, rng: np.random.Generator) -> tuple[Bools, Bools]:
    """Random labels and verified labels, [I, C] each. A few classes are common, many are rare.

    For each class, more images are verified than show it.
    """
    frequency = 0.2 / np.arange(1, num_classes + 1)  # fraction of images that show the class, from 20 % down
    labels = np.empty((num_images, num_classes), bool)
    verified = np.empty((num_images, num_classes), bool)
    for start in range(0, num_images, _BLOCK_IMAGES):
        drawn = rng.random((min(_BLOCK_IMAGES, num_images - start), num_classes), np.float32)
        labels[start : start + _BLOCK_IMAGES] = drawn < frequency
        verified[start : start + _BLOCK_IMAGES] = drawn < frequency + 0.03
    return labels, verified


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds and MiB of each step in this process. A peak is the largest since the process started."""
    rng = np.random.default_rng(args.seed)
    vectors = random_vectors(args.images * args.vectors, args.dim, args.dtype, rng, block=_BLOCK_IMAGES * args.vectors)
    texts = random_vectors(args.classes, args.dim, "float32", rng, args.classes)
    labels, verified = random_labels(args.images, args.classes, rng)
    offsets = np.arange(args.images + 1, dtype=np.int64) * args.vectors
    names = tuple(f"class {k}" for k in range(args.classes))
    num_novel = max(1, int(_NOVEL_FRACTION * args.classes))
    split = ClassSplit(names[:-num_novel], names[-num_novel:])
    before = _peak()
    scores, scoring = _timed(lambda: max_sim(vectors, offsets, texts))
    report, evaluating = _timed(lambda: evaluate_scores(scores, labels, names, split, verified=verified))
    _, summarising = _timed(lambda: summarise_runs("random", [MethodRun("random", 0, report, args.vectors, None)]))
    return {
        "generated": {"vectors_mib": vectors.nbytes / _MEBIBYTE, "peak_mib": before},
        "max_sim": scoring,
        "evaluate_scores": evaluating,
        "summarise_runs": summarising,
        "wall_seconds": sum(step["wall_seconds"] for step in (scoring, evaluating, summarising)),
        "cpu_seconds": sum(step["cpu_seconds"] for step in (scoring, evaluating, summarising)),
        "peak_beyond_vectors_mib": _peak() - vectors.nbytes / _MEBIBYTE,
        "evaluated_classes": len(report.classes),
        "protocol": report.protocol,
    }


def _timed(work: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    seconds = {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return result, {**seconds, "peak_mib": _peak()}


def _peak() -> float:
    """Largest resident memory of this process so far, in MiB. Linux reports KiB, macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_MEBIBYTE if sys.platform == "darwin" else 1024)


def measure_in_fresh_process(words: list[str]) -> dict[str, Any]:
    """Run `measure` in a new process, so that earlier work does not count as peak memory."""
    command = [sys.executable, "-m", "benchmarks.evaluate_large", *words, "--here"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def main() -> None:
    args = arguments(sys.argv[1:])
    if args.here:
        print(json.dumps(measure(args)))
        return
    load = os.getloadavg()[0]
    result = measure_in_fresh_process(sys.argv[1:])
    machine = {
        "cores": os.cpu_count(),
        "load": load,
        "threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    sizes = {name: getattr(args, name) for name in ("images", "vectors", "dim", "classes", "dtype", "seed")}
    content = {"command": command_line(), **machine, **sizes, **result}
    print(json.dumps(content, indent=1))
    if args.out:
        write_text_atomically(args.out, json.dumps(content, indent=1) + "\n")


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--vectors", type=int, default=25, help="vectors per image")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
