"""Measure searches by all vectors of a picture, and long lists, beside a text search of the same store.

    python -m benchmarks.picture_search [--images 100000] [--per-image 10] [--pictures 20] [--out FILE]

Generates a store as benchmarks.service_load does, and searches it in this process:

- text: one vector, for 60 images as on a page, and for 20,000;
- picture: all vectors of a stored image, for 60, 1,000 and 20,000 images;
- exact picture: the same, comparing all vectors, whose lists the recall is measured with.

`ratio` is the median time over that of the text search for 60 images, in the same run. `peak_mib` is by how much the
resident memory grew at most during one search, after searches of the same kind.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.command import command_line
from benchmarks.search import machine
from benchmarks.service_load import PAGE, many_texts, prepare_store
from forclip.search.searcher import Searcher, open_searcher
from forclip.types import Floats

LONG = 20_000


def resident(field: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most since `forget_peak`."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def measure(calls: Sequence[Callable[[], object]]) -> dict[str, float]:
    """Run calls one after the other, the first one twice. Milliseconds, and the largest growth of memory."""
    calls[0]()
    milliseconds, peaks = [], []
    for call in calls:
        before = resident("VmRSS")
        forget_peak()
        started = time.perf_counter()
        call()
        milliseconds.append(1000 * (time.perf_counter() - started))
        peaks.append(resident("VmHWM") - before)
    return {
        "p50_ms": round(float(np.median(milliseconds)), 2),
        "max_ms": round(max(milliseconds), 2),
        "peak_mib": round(max(peaks), 1),
    }


def stored_pictures(searcher: Searcher, count: int) -> list[Floats]:
    """The vectors of some images of the store."""
    ids = sorted(searcher.index.store.ids())
    chosen = np.random.default_rng(1).choice(len(ids), count, replace=False)
    return list(searcher.index.image_vectors([ids[n] for n in chosen]).values())


def measure_store(searcher: Searcher, pictures: int, console: Console) -> dict[str, Any]:
    """Measure each kind of search."""
    index, texts = searcher.index, [searcher.encode_text(text) for text in many_texts()[:pictures]]
    queries = stored_pictures(searcher, pictures)
    kinds: dict[str, list[Callable[[], object]]] = {
        f"text, {PAGE}": [partial(index.search, text, PAGE) for text in texts],
        f"text, {LONG}": [partial(index.rankings, text[None], LONG) for text in texts],
    }
    for k in (PAGE, 1_000, LONG):
        kinds[f"picture, {k}"] = [partial(index.search_picture, query, k) for query in queries]
    kinds[f"exact picture, {PAGE}"] = [partial(index.search_picture, query, PAGE, exact=True) for query in queries]
    results: dict[str, Any] = {}
    for name, calls in kinds.items():
        results[name] = measure(calls)
        results[name]["ratio"] = round(results[name]["p50_ms"] / results[f"text, {PAGE}"]["p50_ms"], 1)
        console.print(f"{name}: {json.dumps(results[name])}")
    for k in (PAGE, 1_000):
        shares = []
        for query in queries:
            best = {r.image_id for r in index.search_picture(query, k, exact=True)}
            shares.append(len(best & {r.image_id for r in index.search_picture(query, k)}) / len(best))
        results[f"picture, {k}"]["recall"] = round(float(np.mean(shares)), 4)
        console.print(f"recall of the best {k}: {results[f'picture, {k}']['recall']}")
    return results


def main() -> None:
    args = arguments(sys.argv[1:])
    console = Console(width=140, highlight=False)
    content: dict[str, Any] = {"command": command_line(), **machine()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.workspace or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        _, store, content["store"] = prepare_store(folder, args.images, args.per_image, args.seed)
        content["searches"] = measure_store(open_searcher(store), args.pictures, console)
    if args.out:
        args.out.write_text(json.dumps(content, indent=1) + "\n")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--per-image", type=int, default=10, help="vectors per image")
    parser.add_argument("--pictures", type=int, default=20, help="searches of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path, help="folder that keeps the store and reuses an existing one")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
