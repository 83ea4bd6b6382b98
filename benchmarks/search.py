"""How fast an image set is searched, next to what else could be chosen, at the same recall and on the same vectors.

    python -m benchmarks.search [--images 20000] [--engines faiss-ivf-sq8,duckdb] --out search.json
    python -m benchmarks.search --vectors FILE.npy --queries FILE.npy --per-image N
    python -m benchmarks.search growth|exact|cold|append --out FILE.json

compare (default): every engine's cheapest setting that finds 99 % of the best 50 images, found by a sweep; p50 and p95
of one query, build seconds, disk and memory. An engine is built, swept and measured in a fresh process each; one that
is not built within --build-minutes gets a fifth of the images, and its row says so. The others measure forclip alone.
growth: from 5,000 to 80,000 images. exact: its exact mode against the memory's bandwidth. cold: a new process on a
store of 200,000 images with 10 vectors each. append: 10,000 images added to 80,000, against a rebuild.
The engines come with `pip install -e .[bench]`; those that are not installed are left out, and the result says so.
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
_TYPICAL_QUERIES = 64  # beside those that are measured, for an engine that chooses settings by such
_PART = 5  # one image in so many, for an engine that is too slow to be built with all
_GROWTH = (5_000, 10_000, 20_000, 40_000, 80_000)
_SIZES = {"compare": (20_000, 25), "growth": (80_000, 25), "exact": (20_000, 25)} | {
    "cold": (200_000, 10),
    "append": (90_000, 25),
}
_APPENDED = 9  # of so many images one part is added to the others


def compare(job: Job, engines: list[str], build_seconds: float, console: Console) -> dict[str, Any]:
    rows = []
    for name in engines:
        rows.append(_row(Job(**{**vars(job), "engine": name, "folder": job.folder / name}), build_seconds))
        console.print(f"{name}: {_short(rows[-1])}")
    return {"rows": rows, **ratios(rows)}


def _row(job: Job, build_seconds: float) -> dict[str, Any]:
    """What is known of one engine, or why nothing is."""
    try:
        load_engine(job.engine)
    except ImportError as error:
        return {"engine": job.engine, "left_out": f"not installed: {error}"}
    try:
        return {"engine": job.engine, **measure(job, build_seconds)}
    except (JobError, subprocess.TimeoutExpired) as error:
        return {"engine": job.engine, "left_out": f"failed: {error}"[:500]}
    finally:
        shutil.rmtree(job.folder, ignore_errors=True)  # the next one's disk


def measure(job: Job, build_seconds: float) -> dict[str, Any]:
    """Builds with all images, or with a part if that takes too long, sweeps, and measures the best setting anew.

    A setting that reached the target in the sweep and misses it then gives way to the next one.
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
        found = run_job("final", Job(**{**vars(job), "setting": chosen["setting"]}))
        if found["recall"] >= job.target:
            break
    return {
        "images": job.vectors.images,
        "setting": chosen["setting"],
        "reached": found["recall"] >= job.target,
        **found,
        **built,
        "disk_bytes": disk,
        "tried": tried,
    }


def ratios(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """forclip's p50 against raw FAISS, and the best other engine's against forclip's; all at the recall asked for."""
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


def prepare(given: argparse.Namespace, folder: Path) -> tuple[Job, dict[str, Any]]:
    """The vectors, text queries and the truth, as files; and what is to be said of them."""
    queries, scores = folder / "queries.npy", folder / "scores.npy"
    if given.vectors:
        count = np.load(given.vectors, mmap_mode="r").shape[0] // given.per_image
        vectors = Vectors(given.vectors.resolve(), min(count, given.images) if given.images else count, given.per_image)
        asked = np.load(given.queries)[: given.num_queries].astype(np.float32)
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
        said: dict[str, Any] = {"file": given.vectors.name}
    else:
        images, per_image = _SIZES[given.mode]
        images, per_image = given.images or images, given.per_image or per_image
        smallest = min(_sizes(images)) if given.mode == "growth" else images
        concepts = given.concepts or concepts_for(images)
        world = make_world(concepts, given.dim, given.seed)
        vectors = write_vectors(folder / "vectors.npy", world, images, per_image)
        drawn = make_queries(world, given.num_queries + _TYPICAL_QUERIES, smallest)
        asked = drawn[: given.num_queries]
        np.save(folder / TYPICAL, drawn[given.num_queries :])
        said = {"generated_from_seed": given.seed, "concepts": concepts}
    np.save(queries, asked)
    if given.mode in ("compare", "exact"):  # the others know the truth of each size, or need none
        truth = exact_scores(vectors, asked)
        np.save(scores, truth)
        said["cosines"] = describe(truth)
    job = Job("forclip", vectors, queries, scores, folder / "built", given.k, given.recall, given.seconds)
    job.folder.mkdir()
    said |= {
        "images": vectors.images,
        "vectors_per_image": vectors.per_image,
        "dim": vectors.dim,
        "queries": len(asked),
    }
    return job, said


def _sizes(images: int) -> list[int]:
    """The sizes of growth: as asked for, in the same proportions."""
    return [max(1, size * images // _GROWTH[-1]) for size in _GROWTH]


def machine() -> dict[str, Any]:
    """What the numbers depend on besides the code. load: runnable programs over the last minute, at the start."""
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
    given = arguments(sys.argv[1:])
    console = Console(width=max(_TABLE_WIDTH, Console().width))
    content: dict[str, Any] = {"command": " ".join(["python -m benchmarks.search", *sys.argv[1:]]), **machine()}
    with tempfile.TemporaryDirectory(dir=given.workspace) as folder:
        job, content["data"] = prepare(given, Path(folder))
        match given.mode:
            case "growth":
                content |= search_modes.growth(job, _sizes(job.vectors.images), console.print)
            case "exact":
                content |= search_modes.exact(job, console.print)
            case "cold":
                content |= search_modes.cold(job, console.print)
            case "append":
                content |= search_modes.append(job, job.vectors.images // _APPENDED, console.print)
            case _:
                content |= compare(job, given.engines.split(","), 60 * given.build_minutes, console)
                show(console, job, content["rows"])
    if given.out:
        given.out.write_text(json.dumps(content, indent=1) + "\n")


def arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", nargs="?", choices=_SIZES, default="compare")
    parser.add_argument("--engines", default=",".join(ENGINES), help="of compare; separated by commas")
    parser.add_argument("--images", type=int, help="instead of the mode's own number; growth ends with it")
    parser.add_argument("--per-image", type=int, help="vectors of an image")
    parser.add_argument("--dim", type=int, default=512, help="of generated vectors")
    parser.add_argument(
        "--concepts", type=int, help="of generated vectors; 3,000 from 20,000 images on, fewer for fewer"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vectors", type=Path, help=".npy of unit vectors [images * per_image, dim], image by image")
    parser.add_argument("--queries", type=Path, help=".npy of unit text vectors [queries, dim]")
    parser.add_argument("--num-queries", type=int, default=200)
    parser.add_argument("-k", type=int, default=50)
    parser.add_argument("--recall", type=float, default=0.99)
    parser.add_argument("--seconds", type=float, default=10, help="for the queries of one setting; 20 are asked anyway")
    parser.add_argument("--build-minutes", type=float, default=60, help="beyond these an engine gets fewer images")
    parser.add_argument("--workspace", type=Path, help="a folder on a disk with room; temporary files by default")
    parser.add_argument("--out", type=Path, help="a JSON file of the numbers")
    given = parser.parse_args(words)
    if given.vectors and not (given.queries and given.per_image):
        parser.error("--vectors needs --queries and --per-image")
    unknown = set(given.engines.split(",")) - set(ENGINES)
    if unknown:
        parser.error(f"no engine is named {', '.join(sorted(unknown))}; there are {', '.join(ENGINES)}")
    return given


if __name__ == "__main__":
    main()
