"""Measure what a store's operations cost as it grows from 100,000 to 10 million images.

    python -m benchmarks.store_growth --folder FOLDER [--sizes 100000 1000000 10000000] [--memory 3GB]

Rows are generated: two vectors of 32 dimensions an image, around random centres, and no picture file. Each operation
runs in a process of its own, so that it opens the store again; its time is the median of some repetitions, its memory
the most that the process allocated above what it had after its imports, and the most that was resident, mapped files
included. Writes docs/results/store_growth.json.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lance
import numpy as np

from benchmarks.command import command_line
from forclip.data.images.content import content_digest, file_state
from forclip.embedding.changes import find_changes
from forclip.embedding.stored_files import StoredFiles
from forclip.index.image_index import Index
from forclip.index.memory import parse_memory
from forclip.index.roots import Roots, to_json
from forclip.index.schema import StoreHeader
from forclip.index.store import ImageFile
from forclip.index.table import TABLE
from forclip.index.upkeep import index_all_rows
from forclip.types import Floats, ImageEmbeddings

DIM, VECTORS, AT_ONCE, CENTRES = 32, 2, 1_024, 4_096
ROWS_PER_FRAGMENT = 65_536
RESULTS = Path(__file__).parent.parent / "docs/results/store_growth.json"
BOOKKEEPING = (
    *("open", "put_new", "put_replaced", "replace_anywhere", "delete", "delete_anywhere", "open_changed"),
    *("plan_new", "plan_known", "info", "lookup_ids", "plan_all"),
)
SEARCH = ("first_search", "search", "verify")
QUERIES = 10


def make_embeddings(ids: list[str], seed: int) -> ImageEmbeddings:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((CENTRES, DIM), np.float32)
    total = len(ids) * VECTORS
    vectors: Floats = centres[rng.integers(0, CENTRES, total)] + 0.5 * rng.standard_normal((total, DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return ImageEmbeddings(vectors, np.arange(0, total + 1, VECTORS), tuple(ids))


def make_files(ids: list[str]) -> list[ImageFile]:
    hashes = [f"{abs(hash((i, 0))):032x}" for i in ids]
    return [ImageFile(i, 640, 480, h, 1000, 5, "photos", 2) for i, h in zip(ids, hashes, strict=True)]


def image_id(number: int) -> str:
    return f"photos/{number * 7919 % 1_000_003:07d}/{number:09d}.jpg"


def make_store(folder: Path, count: int, memory: int) -> dict[str, float]:
    """Write a store in fragments as large as those that forclip joins, and its segments without an index."""
    header = StoreHeader("benchmark", DIM, {"name": "benchmark"})
    roots = to_json(Roots({"photos": str(folder / "photos")}), folder / "store")
    index = Index.create(folder / "store", replace(header, roots=roots))
    started = time.perf_counter()
    for start in range(0, count, ROWS_PER_FRAGMENT):
        ids = [image_id(n) for n in range(start, min(start + ROWS_PER_FRAGMENT, count))]
        rows = index.store._rows(make_embeddings(ids, start), make_files(ids), {})
        lance.write_dataset(rows, str(folder / "store" / TABLE), mode="append")
    wrote = time.perf_counter()
    index_all_rows(lance.dataset(str(folder / "store" / TABLE)))
    indexed = time.perf_counter()
    with Memory() as used:
        index.optimize("none", memory=memory)
    times = {"write_s": wrote - started, "scalar_indexes_s": indexed - wrote}
    return times | {"segments_s": time.perf_counter() - indexed, "segments_mb": used.most}


def make_index(folder: Path, kind: str | None, memory: int) -> dict[str, Any]:
    """Build the search index."""
    index, queries = Index(folder / "store"), make_embeddings([str(n) for n in range(QUERIES)], 13).vectors[::VECTORS]
    started = time.perf_counter()
    with Memory() as used:
        index.optimize(kind, queries, memory)
    made = {"search_index_s": time.perf_counter() - started, "search_index_mb": used.most}
    return made | {"index": [part["index"] for part in index.info()["parts"]]}


class Memory:
    """Measures the most memory that the process allocates inside a block, in MB above what it had before."""

    def __enter__(self) -> "Memory":
        self.most, self._before, self._done = 0.0, self._now(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.003):
            self.most = max(self.most, round(self._now() - self._before, 1))

    @staticmethod
    def _now() -> float:
        return status_mb("RssAnon")


def status_mb(name: str) -> float:
    """Return a number of this process's memory. VmHWM: the most that was resident, with pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith(name))


def _open(store: Path, k: int) -> None:
    assert len(Index(store).view())


def _open_and_search(store: Path, query: Floats, k: int) -> None:
    assert Index(store).search(query)


def run(operation: str, folder: Path, count: int) -> dict[str, Any]:
    """Run one operation a few times in this process, which has not opened the store before."""
    store, rng = folder / "store", np.random.default_rng(int.from_bytes(operation.encode()[:4]))
    some = [image_id(int(n)) for n in rng.integers(0, count, AT_ONCE)]
    query = make_embeddings(["a"], 7).vectors[:1][0]
    repeats, more, extra = 1, dict[str, Any](), Path(folder / "photos" / "new")
    index: Index | None = None if operation in ("open", "open_changed", "first_search", "plan_all") else Index(store)
    call: Callable[[int], object]
    match operation:
        case "open" | "open_changed":
            repeats = 3
            call = partial(_open, store)
        case "first_search":
            call = partial(_open_and_search, store, query)
        case "put_new" | "put_replaced" | "replace_anywhere":
            assert index is not None
            repeats = 5
            low, high = (0, count) if operation == "replace_anywhere" else (count // 2, count // 2 + 60_000)
            batches = [
                [f"photos/put/{time.time_ns()}-{k}-{n}" for n in range(AT_ONCE)]
                if operation == "put_new"
                else sorted({image_id(int(n)) for n in rng.integers(low, min(high, count), AT_ONCE)})
                for k in range(repeats)
            ]
            ready = [(make_embeddings(ids, 3), make_files(ids)) for ids in batches]
            call = lambda k: index.put(*ready[k])  # noqa: E731
        case "delete" | "delete_anywhere":
            assert index is not None
            repeats = 5
            chosen = (
                rng.integers(0, count, repeats * AT_ONCE) if "anywhere" in operation else np.arange(repeats * AT_ONCE)
            )
            gone = [[image_id(int(n)) for n in part] for part in np.split(chosen, repeats)]
            call = lambda k: index.delete_ids(gone[k])  # noqa: E731
        case "plan_new" | "plan_known":
            assert index is not None
            extra.mkdir(parents=True, exist_ok=True)
            paths = [extra / f"{n}.jpg" for n in range(AT_ONCE)]
            if operation == "plan_new":
                for path in paths:
                    path.write_bytes(os.urandom(2_000))
            else:
                ids = [f"photos/new/{path.name}" for path in paths]
                states = [(content_digest(path) or "", *file_state(path)) for path in paths]
                files = [ImageFile(i, 1, 1, *s, "photos/new", 2) for i, s in zip(ids, states, strict=True)]
                index.put(make_embeddings(ids, 5), files)
            repeats = 5
            expected = AT_ONCE if operation == "plan_new" else 0

            def plan(k: int) -> None:
                stored = StoredFiles(index.store, len(paths))
                changes = find_changes(str(extra), None, paths, index.store.roots, stored, {}, lambda n: None)
                assert (len(changes.todo), len(changes.vanished)) == (expected, 0)

            call = plan
        case "info":
            assert index is not None
            repeats = 3
            call = lambda k: index.info()  # noqa: E731
        case "lookup_ids":
            assert index is not None
            index.view()
            rows, repeats = index.row_reader(), 9

            def look_up(k: int) -> None:
                keys = index.keys_of_ids(some[60 * k : 60 * k + 60])
                assert len(rows.read(list(keys.values()))) == len(keys)
                index.search_among(list(keys), query)

            call = look_up
        case "search":
            assert index is not None
            queries = make_embeddings([str(n) for n in range(QUERIES)], 11).vectors[::VECTORS]
            exact = [{r.key for r in index.search(q, 50, exact=True)} for q in queries]
            found = [{r.key for r in index.search(q, 50)} for q in queries]
            pairs = zip(found, exact, strict=True)
            more["recall"] = round(float(np.mean([len(f & e) / 50 for f, e in pairs])), 4)
            repeats = 200
            call = lambda k: index.search(queries[k % len(queries)], 50)  # noqa: E731
        case "plan_all":
            stored = StoredFiles(Index(store).store, count)

            def compare(k: int) -> None:
                for start in range(0, count, 4_096):
                    states = stored.states([image_id(n) for n in range(start, min(start + 4_096, count))])
                    assert states.known.mean() > 0.9 or start < count // 8  # some are deleted

            call = compare
        case "verify":
            assert index is not None
            call = lambda k: index.verify()  # noqa: E731
    seconds, cpu = [], []
    with Memory() as memory:
        for k in range(repeats):
            started, used = time.perf_counter(), time.process_time()
            call(k)
            seconds.append(time.perf_counter() - started)
            cpu.append(time.process_time() - used)
    median, used = (round(1000 * statistics.median(times), 2) for times in (seconds, cpu))
    return {"ms": median, "cpu_ms": used, "mb": memory.most, "resident_mb": round(status_mb("VmHWM"), 1), **more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, required=True, help="Where to write stores; they are deleted afterwards."
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--memory", type=parse_memory, default="3GB", help="For building the search index.")
    parser.add_argument("--keep", action="store_true", help="Keep stores and results, and add to those there.")
    parser.add_argument("--operations", nargs="+", default=[*BOOKKEEPING, "index", *SEARCH])
    parser.add_argument("--kind", help="FAISS index type. Default: by size.")
    parser.add_argument("--to", type=Path, default=RESULTS)
    parser.add_argument("--run", nargs=2, metavar=("OPERATION", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(run(given.run[0], given.folder, int(given.run[1]))))
        return
    results: dict[str, Any] = {"command": command_line()}
    results |= {
        "vectors_per_image": VECTORS,
        "dim": DIM,
        "images_at_once": AT_ONCE,
        "memory": given.memory,
        "sizes": {},
    }
    if given.keep and given.to.exists():
        results["sizes"] = json.loads(given.to.read_text())["sizes"]
    for count in given.sizes:
        folder = given.folder.absolute() / str(count)
        there = given.keep and (folder / "store").exists()
        of_size: dict[str, Any] = results["sizes"].setdefault(str(count), {})
        of_size.setdefault("making", {})
        if not there:
            of_size["making"] = make_store(folder, count, given.memory)
        for operation in given.operations:
            if operation == "index":
                of_size["making"] |= make_index(folder, given.kind, given.memory)
            else:
                words = "--folder", str(folder), "--run", operation, str(count)
                command = [sys.executable, "-m", "benchmarks.store_growth", *words]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                failed = {"failed": done.stderr[-500:]}
                of_size[operation] = json.loads(done.stdout) if done.returncode == 0 else failed
                of_size[operation]["load"] = round(os.getloadavg()[0], 1)
            print(count, operation, of_size.get(operation, of_size["making"]), flush=True)
            given.to.write_text(json.dumps(results | {"ratios": ratios(results["sizes"])}, indent=1) + "\n")
        if not given.keep:
            shutil.rmtree(folder)


def ratios(sizes: dict[str, Any]) -> dict[str, Any]:
    """Return how much more the largest store takes than the smallest, by operation."""
    first, *_, last = [*sizes.values(), *sizes.values()]
    both = [name for name in (*BOOKKEEPING, *SEARCH) if "ms" in first.get(name, {}) and "ms" in last.get(name, {})]
    return {name: {unit: round(last[name][unit] / first[name][unit], 2) for unit in ("ms", "cpu_ms")} for name in both}


if __name__ == "__main__":
    main()
