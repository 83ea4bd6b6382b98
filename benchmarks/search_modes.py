"""Modes of the search benchmark that measure forclip alone: growth, exact, cold start, and adding images."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search_data import exact_scores
from benchmarks.search_measure import ROOT, Job, disk_bytes, run_job

_ROUNDS = 9
_COLD = """
import sys, time
start = time.perf_counter()
from pathlib import Path
import numpy as np
from forclip.index.image_index import Index
imported = time.perf_counter()
index = Index(Path(sys.argv[1]))
opened = time.perf_counter()
hits = index.search(np.load(sys.argv[2])[0], int(sys.argv[3]))
print(len(hits), imported - start, opened - imported, time.perf_counter() - opened)
"""

Report = Callable[[str], None]


def growth(job: Job, sizes: list[int], report: Report) -> dict[str, Any]:
    """Time and memory of a query for growing parts of the same images. exponent: of p50 as a power of the images."""
    rows = []
    for images in sizes:
        part = job.on_part(images)
        part = replace(part, folder=job.folder / str(images), scores=job.folder / f"scores-{images}.npy")
        part.folder.mkdir(parents=True)
        np.save(part.scores, exact_scores(part.vectors, np.load(job.queries)))
        rows.append({"images": images, **run_job("build", part), "disk_bytes": _sizes(part.folder / "store")})
        rows[-1] |= run_job("final", part)
        report(f"{images} images: p50 {rows[-1]['p50_ms']:.2f} ms, recall {rows[-1]['recall']:.4f}")
    return {"sizes": rows, "exponent": _exponent(rows)}


def _exponent(rows: list[dict[str, Any]]) -> float | None:
    if len(rows) < 2:
        return None
    logs = np.log([[row["images"], row["p50_ms"]] for row in rows])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def exact(job: Job, report: Report) -> dict[str, Any]:
    """The exact mode, compared to finding the largest number in the same bytes with one thread per core."""
    job = replace(job, engine="forclip-exact")
    result = {**run_job("build", job), **run_job("final", job)}
    mapped = job.vectors.load()
    threads = os.cpu_count() or 1
    scans = {"mapped_ms": 1e3 * scan_seconds(mapped, threads), "memory_ms": 1e3 * scan_seconds(mapped.copy(), threads)}
    fastest = min(scans.values())
    report(f"exact: p50 {result['p50_ms']:.1f} ms, a scan {fastest:.1f} ms")
    return {
        **result,
        "scan": {**scans, "threads": threads, "bytes": mapped.nbytes, "gb_per_second": mapped.nbytes / fastest / 1e6},
        "ratio": result["p50_ms"] / fastest,
    }


def scan_seconds(array: NDArray[np.float16], threads: int) -> float:
    """Seconds to read an array once: the median over rounds, after a warm-up. Ignores bytes beyond the last word."""
    raw = array.reshape(-1).view(np.uint8)
    words = raw[: raw.nbytes // 8 * 8].view(np.uint64)
    parts = np.array_split(words, threads)
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_ROUNDS + 1):
            start = time.perf_counter()
            list(pool.map(np.max, parts))
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds[1:]))


def cold(job: Job, report: Report) -> dict[str, Any]:
    """A process that imports forclip, opens a store and searches once, without and with the files in the page cache."""
    built = run_job("build", job)
    store = job.folder / "store"
    starts: dict[str, Any] = {}
    for name in ("files_not_cached", "files_cached"):
        if name == "files_not_cached":
            _drop_from_page_cache(store)
        starts[name] = _start(store, job)
        report(f"{name}: {starts[name]['wall_seconds']:.2f} s")
    return {**built, "disk_bytes": _sizes(store), **starts}


def _start(store: Path, job: Job) -> dict[str, float]:
    command = [sys.executable, "-c", _COLD, str(store), str(job.queries), str(job.k)]
    start = time.perf_counter()
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    wall = time.perf_counter() - start
    hits, *seconds = map(float, run.stdout.split())
    assert hits == min(job.k, job.vectors.images)
    return {
        "wall_seconds": wall,
        **dict(zip(("import_seconds", "open_seconds", "search_seconds"), seconds, strict=True)),
    }


def _drop_from_page_cache(folder: Path) -> None:
    """Make the system drop a folder's files from its page cache. Unwritten pages must be on disk first."""
    for file in (f for f in folder.rglob("*") if f.is_file()):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def append(job: Job, added: int, report: Report) -> dict[str, Any]:
    """Add the last images to a store of all others, and compare with building a store of all images.

    stored_seconds: until they are on disk; appending_seconds: until a search finds one of them. These times and that of
    the rebuild include reading the vectors.
    """
    from benchmarks.search_engines.engine_forclip import Forclip, as_images

    first = job.vectors.images - added
    result: dict[str, Any] = {"store": run_job("build", job.on_part(first))}
    engine = Forclip(exact=False)
    engine.open(job.vectors, job.folder)
    query = np.load(job.queries)[0]
    engine.query(query, job.k, {})
    start = time.perf_counter()
    block = job.vectors.of_images(first, job.vectors.images)
    engine.index.add(*as_images(first, block))
    stored = time.perf_counter() - start
    added_vector = block[-1, 0] / np.linalg.norm(block[-1, 0])
    (nearest,) = engine.query(added_vector, 1, {})
    searched = time.perf_counter() - start
    assert nearest == job.vectors.images - 1, f"found image {nearest} instead of the one just added"
    after_append = time.perf_counter()
    engine.query(query, job.k, {})
    result |= {
        "stored_seconds": stored,
        "appending_seconds": searched,
        "next_query_seconds": time.perf_counter() - after_append,
    }
    start = time.perf_counter()
    engine.index.optimize()
    result["optimize_seconds"] = time.perf_counter() - start
    whole = replace(job, folder=job.folder / "rebuilt")
    whole.folder.mkdir()
    result["rebuild"] = run_job("build", whole)
    result["ratio"] = result["rebuild"]["build_seconds"] / searched
    report(f"adding {added} images: {searched:.2f} s, a rebuild takes {result['ratio']:.1f} times that")
    return result


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes on disk of each entry of a folder."""
    return {entry.name: disk_bytes(entry) for entry in sorted(folder.iterdir())}
