"""Compare the search speed of forclip and other engines on the same vectors, at the same recall.

    python -m benchmarks.search [--images 20000] [--engines faiss-ivf-sq8,duckdb] --out search.json
    python -m benchmarks.search --vectors FILE.npy --queries FILE.npy --per-image N
    python -m benchmarks.search growth|exact|cold|append --out FILE.json

compare (default): measures p50 and p95 of one query, build time, disk and memory of every engine, with its fastest
setting that finds 99 % of the best 50 images. A sweep finds that setting. Building, sweep and measurement run in fresh
processes. An engine that needs longer than --build-minutes is built with a fifth of the images; its row says so.

The other modes measure forclip alone. growth: from 5,000 to 80,000 images. exact: the exact mode against the memory
bandwidth. cold: a new process on a store of 200,000 images with 10 vectors each. append: adding 10,000 images to
80,000, against a rebuild.

`pip install -e .[bench]` installs the engines. The results list those that are not installed as left out.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import search_modes
from benchmarks.command import command_line
from benchmarks.search_data import (
    TYPICAL,
    Vectors,
    concepts_for,
    describe,
    exact_scores,
    make_queries,
    make_world,
    write_vectors,
)
from benchmarks.search_engines.protocol import ENGINES, load_engine
from benchmarks.search_measure import ROOT, Job, JobError, choose, disk_bytes, run_job

_LIBRARIES = ("faiss-cpu", "lancedb", "pymilvus", "milvus-lite", "qdrant-edge-py", "duckdb", "numpy", "pyarrow")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS")
_TABLE_WIDTH = 100
_TYPICAL_QUERIES = 64  # more queries, by which an engine may choose its settings
_PART = 5  # an engine that builds too slowly gets one image in five
_GROWTH = (5_000, 10_000, 20_000, 40_000, 80_000)
_SIZES = {"compare": (20_000, 25), "growth": (80_000, 25), "exact": (20_000, 25)} | {
    "cold": (200_000, 10),
    "append": (90_000, 25),
}
_APPENDED = 9  # one image in nine is added to the others


def compare(job: Job, engines: list[str], build_seconds: float, console: Console) -> dict[str, Any]:
    """Measure all engines, one after the other. Returns a row for each, and the ratios."""
    rows = []
    for name in engines:
        rows.append(_row(Job(**{**vars(job), "engine": name, "folder": job.folder / name}), build_seconds))
        console.print(f"{name}: {_short(rows[-1])}")
    return {"rows": rows, **ratios(rows)}


def _row(job: Job, build_seconds: float) -> dict[str, Any]:
    """The measurements of one engine, or the reason why there are none."""
    try:
        load_engine(job.engine)
    except ImportError as error:
        return {"engine": job.engine, "left_out": f"not installed: {error}"}
    try:
        return {"engine": job.engine, **measure(job, build_seconds)}
    except (JobError, subprocess.TimeoutExpired) as error:
        return {"engine": job.engine, "left_out": f"failed: {error}"[:500]}
    finally:
        shutil.rmtree(job.folder, ignore_errors=True)  # free the disk for the next engine


def measure(job: Job, build_seconds: float) -> dict[str, Any]:
    """Build with all images, or with a part of them if that takes too long; sweep; measure the best setting again.

    If that setting misses the target recall this time, the next best setting is measured.
    """
    job.folder.mkdir()
    try:
        built = run_job("build", job, build_seconds)
    except subprocess.TimeoutExpired:
        shutil.rmtree(job.folder)
        job.folder.mkdir()
        job = job.on_part(job.vectors.images // _PART)
        built = run_job("build", job, build_seconds)
    disk = disk_bytes(job.folder)
    tried = run_job("sweep", job)["tried"]
    for chosen in choose(tried, job.target):
        result = run_job("final", Job(**{**vars(job), "setting": chosen["setting"]}))
        if result["recall"] >= job.target:
            break
    return {
        "images": job.vectors.images,
        "setting": chosen["setting"],
        "reached": result["recall"] >= job.target,
        **result,
        **built,
        "disk_bytes": disk,
        "tried": tried,
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """forclip's p50 divided by raw FAISS', and the best other engine's divided by forclip's, at the target recall."""
    reached = {row["engine"]: row["p50_ms"] for row in rows if row.get("reached")}
    raw = [ms for name, ms in reached.items() if name.startswith("faiss")]
    others = [ms for name, ms in reached.items() if not name.startswith(("faiss", "forclip"))]
    ours = reached.get("forclip")
    return {
        "forclip_over_raw_faiss": ours / min(raw) if ours and raw else None,
        "best_other_over_forclip": min(others) / ours if ours and others else None,
    }


def _short(row: dict[str, Any]) -> str:
    if "left_out" in row:
        return str(row["left_out"])
    return f"p50 {row['p50_ms']:.2f} ms, recall {row['recall']:.4f}, {len(row['tried'])} settings tried"


def show(console: Console, job: Job, rows: list[dict[str, Any]]) -> None:
    title = f"best {job.k} of {job.vectors.images} images x {job.vectors.per_image} vectors, one query"
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("engine and setting", min_width=26)
    for column in ("p50\nms", "p95\nms", "\nrecall", "build\ns", "disk\nMB", "peak\nMiB", "own\nMiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row, job))
    console.print(table)


def _cells(row: dict[str, Any], job: Job) -> list[str]:
    if "left_out" in row:
        return [f"{row['engine']}\n  {row['left_out'][:60]}", *["-"] * 7]
    setting = ", ".join(f"{name} {value}" for name, value in row["setting"].items())
    part = "" if row["images"] == job.vectors.images else f"\n  {row['images']} images only"
    memory = [row["memory"][name] for name in ("peak_mib", "anonymous_mib")]
    return [
        f"{row['engine']}{part}" + (f"\n  {setting}" if setting else ""),
        f"{row['p50_ms']:.2f}",
        f"{row['p95_ms']:.2f}",
        f"{row['recall']:.4f}" if row["reached"] else f"[red]{row['recall']:.4f}\nmissed[/]",
        f"{row['build_seconds']:.1f}",
        f"{row['disk_bytes'] / 1e6:.0f}",
        *("-" if mib is None else f"{mib:.0f}" for mib in memory),
    ]


def prepare(args: argparse.Namespace, folder: Path) -> tuple[Job, dict[str, Any]]:
    """Write vectors, text queries and exact scores to files. Also returns a description of the data."""
    queries, scores = folder / "queries.npy", folder / "scores.npy"
    if args.vectors:
        count = np.load(args.vectors, mmap_mode="r").shape[0] // args.per_image
        vectors = Vectors(args.vectors.resolve(), min(count, args.images) if args.images else count, args.per_image)
        query_vectors = np.load(args.queries)[: args.num_queries].astype(np.float32)
        query_vectors /= np.linalg.norm(query_vectors, axis=1, keepdims=True)
        description: dict[str, Any] = {"file": args.vectors.name}
    else:
        images, per_image = _SIZES[args.mode]
        images, per_image = args.images or images, args.per_image or per_image
        smallest = min(_sizes(images)) if args.mode == "growth" else images
        concepts = args.concepts or concepts_for(images)
        world = make_world(concepts, args.dim, args.seed)
        vectors = write_vectors(folder / "vectors.npy", world, images, per_image)
        drawn = make_queries(world, args.num_queries + _TYPICAL_QUERIES, smallest)
        query_vectors = drawn[: args.num_queries]
        np.save(folder / TYPICAL, drawn[args.num_queries :])
        description = {"generated_from_seed": args.seed, "concepts": concepts}
    np.save(queries, query_vectors)
    if args.mode in ("compare", "exact"):  # growth writes the scores of each size; the others need none
        truth = exact_scores(vectors, query_vectors)
        np.save(scores, truth)
        description["cosines"] = describe(truth)
    job = Job("forclip", vectors, queries, scores, folder / "built", args.k, args.recall, args.seconds)
    job.folder.mkdir()
    description |= {
        "images": vectors.images,
        "vectors_per_image": vectors.per_image,
        "dim": vectors.dim,
        "queries": len(query_vectors),
    }
    return job, description


def _sizes(images: int) -> list[int]:
    """The numbers of images of the mode growth, scaled so that the last one is `images`."""
    return [max(1, size * images // _GROWTH[-1]) for size in _GROWTH]


def machine() -> dict[str, Any]:
    """Describe the machine, the library versions and the commit. load: runnable programs over the last minute."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "threads": {name: os.environ.get(name) for name in _THREADS},
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "commit": _git("rev-parse", "HEAD"),
        "changed_since_commit": _git("status", "--porcelain", "--", "src", "benchmarks").splitlines(),
    }


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.rstrip()


def main() -> None:
    args = arguments(sys.argv[1:])
    console = Console(width=max(_TABLE_WIDTH, Console().width))
    content: dict[str, Any] = {"command": command_line(), **machine()}
    with tempfile.TemporaryDirectory(dir=args.workspace) as folder:
        job, content["data"] = prepare(args, Path(folder))
        match args.mode:
            case "growth":
                content |= search_modes.growth(job, _sizes(job.vectors.images), console.print)
            case "exact":
                content |= search_modes.exact(job, console.print)
            case "cold":
                content |= search_modes.cold(job, console.print)
            case "append":
                content |= search_modes.append(job, job.vectors.images // _APPENDED, console.print)
            case _:
                content |= compare(job, args.engines.split(","), 60 * args.build_minutes, console)
                show(console, job, content["rows"])
    if args.out:
        args.out.write_text(json.dumps(content, indent=1) + "\n")


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", choices=_SIZES, default="compare")
    parser.add_argument("--engines", default=",".join(ENGINES), help="engines of compare, separated by commas")
    parser.add_argument("--images", type=int, help="number of images (growth: of the last step)")
    parser.add_argument("--per-image", type=int, help="vectors per image")
    parser.add_argument("--dim", type=int, default=512, help="dimension of generated vectors")
    parser.add_argument(
        "--concepts", type=int, help="concepts of generated vectors; default: 3,000 from 20,000 images on, else fewer"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vectors", type=Path, help=".npy of unit vectors [images * per_image, dim], image by image")
    parser.add_argument("--queries", type=Path, help=".npy of unit text vectors [queries, dim]")
    parser.add_argument("--num-queries", type=int, default=200)
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--seconds", type=float, default=10, help="time per setting; at least 20 queries run")
    parser.add_argument("--build-minutes", type=float, default=60, help="limit; slower engines get fewer images")
    parser.add_argument("--workspace", type=Path, help="folder for all files; default: temporary files")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    args = parser.parse_args(words)
    if args.vectors and not (args.queries and args.per_image):
        parser.error("--vectors needs --queries and --per-image")
    unknown = set(args.engines.split(",")) - set(ENGINES)
    if unknown:
        parser.error(f"unknown engine {', '.join(sorted(unknown))}; available: {', '.join(ENGINES)}")
    return args


if __name__ == "__main__":
    main()
