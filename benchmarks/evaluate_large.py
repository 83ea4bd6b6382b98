"""How long the evaluation of a gallery of LVIS's size takes, and how much memory it needs beside the vectors.

    python benchmarks/evaluate_large.py [--images 20000] [--vectors 25] [--classes 1203] [--dtype float16] [--out FILE]

Unit vectors, labels and verified labels, generated in blocks from a seed. Scoring (max_sim), evaluate_scores with
federated labels, and the intervals over classes run in a process of their own; its peak memory is read after each step.
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

from forclip.atomic_write import write_text_atomically
from forclip.evaluation.metrics import max_sim
from forclip.evaluation.metrics_file import MethodRun, summarise_runs
from forclip.evaluation.protocol import evaluate_scores
from forclip.types import Bools, ClassSplit

_BLOCK_IMAGES = 500
_MEBIBYTE = 1 << 20
_NOVEL_SHARE = 0.28  # LVIS v1: 337 rare classes of 1,203

Result = TypeVar("Result")


def random_vectors(total: int, dim: int, dtype: str, rng: np.random.Generator, block: int) -> NDArray[np.floating]:
    """[total, dim], unit length. Made in blocks, so that nothing but the result is ever as large."""
    vectors = np.empty((total, dim), dtype)
    for start in range(0, total, block):
        drawn = rng.standard_normal((min(block, total - start), dim), np.float32)
        vectors[start : start + block] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return vectors


def random_labels(num_images: int, num_classes: int, rng: np.random.Generator) -> tuple[Bools, Bools]:
    """labels, verified: [I, C]. Few classes are common, many rare; more images are verified for one than show it."""
    share = 0.2 / np.arange(1, num_classes + 1)  # of the images that show the class, from 20 % downwards
    labels = np.empty((num_images, num_classes), bool)
    verified = np.empty((num_images, num_classes), bool)
    for start in range(0, num_images, _BLOCK_IMAGES):
        drawn = rng.random((min(_BLOCK_IMAGES, num_images - start), num_classes), np.float32)
        labels[start : start + _BLOCK_IMAGES] = drawn < share
        verified[start : start + _BLOCK_IMAGES] = drawn < share + 0.03
    return labels, verified


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and MiB of each step, in this process. Peaks are of the process's whole life so far."""
    rng = np.random.default_rng(given.seed)
    vectors = random_vectors(
        given.images * given.vectors, given.dim, given.dtype, rng, block=_BLOCK_IMAGES * given.vectors
    )
    texts = random_vectors(given.classes, given.dim, "float32", rng, given.classes)
    labels, verified = random_labels(given.images, given.classes, rng)
    offsets = np.arange(given.images + 1, dtype=np.int64) * given.vectors
    names = tuple(f"class {k}" for k in range(given.classes))
    num_novel = max(1, int(_NOVEL_SHARE * given.classes))
    split = ClassSplit(names[:-num_novel], names[-num_novel:])
    before = _peak()
    scores, scoring = _timed(lambda: max_sim(vectors, offsets, texts))
    report, evaluating = _timed(lambda: evaluate_scores(scores, labels, names, split, verified=verified))
    _, summarising = _timed(lambda: summarise_runs("random", [MethodRun("random", 0, report, given.vectors, None)]))
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
    """The largest resident memory of this process so far, MiB. Linux counts KiB, macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (_MEBIBYTE if sys.platform == "darwin" else 1024)


def in_a_fresh_process(arguments: list[str]) -> dict[str, Any]:
    """What `measure` finds where nothing else has used memory before."""
    command = [sys.executable, __file__, *arguments, "--here"]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def main() -> None:
    given = _arguments(sys.argv[1:])
    if given.here:
        print(json.dumps(measure(given)))
        return
    load = os.getloadavg()[0]
    found = in_a_fresh_process(sys.argv[1:])
    machine = {
        "cores": os.cpu_count(),
        "load": load,
        "threads": {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
    sizes = {name: getattr(given, name) for name in ("images", "vectors", "dim", "classes", "dtype", "seed")}
    content = {"command": " ".join(sys.argv), **machine, **sizes, **found}
    print(json.dumps(content, indent=1))
    if given.out:
        write_text_atomically(given.out, json.dumps(content, indent=1) + "\n")


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--vectors", type=int, default=25, help="of each image")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=1203)
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a JSON file, such as docs/results/evaluate_large.json")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
