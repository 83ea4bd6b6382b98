"""Measure search where a store is published, against exact search of the same vectors.

    python -m benchmarks.search_cluster --images 20000 --out docs/results/search_cluster.json

Generates a store (benchmarks.search_data: 25 vectors an image), publishes it to Milvus Lite, which runs as a server in
a process of its own, and measures with text queries that `publish` has not seen: the recall of the best 50 images, and
the time of one search. On the same vectors and machine, it measures forclip's own index, and Lance's vector indexes
(IVF_PQ, IVF_RQ) on a table with one row per vector, which need no server. Milvus Lite is a small server in Python: its
recall is that of its indexes (FAISS), its times say nothing about a cluster.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from benchmarks.search_data import Vectors, concepts_for, exact_scores, make_queries, make_world, recall, write_vectors
from forclip.index.image_index import Index
from forclip.index.milvus.create import PublishOptions
from forclip.index.milvus.index import MilvusIndex
from forclip.index.milvus.publish import publish
from forclip.index.schema import StoreHeader
from forclip.index.store import ImageFile, Store
from forclip.types import Floats, ImageEmbeddings
from tests.milvus_server import running_server

K, PER_IMAGE = 50, 25
_IMAGES_AT_ONCE = 2000
_TIMED = 20  # queries, one after the other

Search = Callable[[Floats], Sequence[int]]


def make_store(folder: Path, vectors: Vectors) -> Store:
    """Put the vectors into a store, whose images are named by their numbers."""
    index = Index.create(folder, StoreHeader("benchmark", vectors.dim, {"name": "generated"}))
    for start in range(0, vectors.images, _IMAGES_AT_ONCE):
        block = vectors.of_images(start, start + _IMAGES_AT_ONCE)
        ids = tuple(f"{start + n:08d}" for n in range(len(block)))
        flat = block.reshape(-1, vectors.dim)
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        offsets = np.arange(len(block) + 1) * PER_IMAGE
        index.add(ImageEmbeddings(flat, offsets, ids), [ImageFile(f"/{i}", 640, 480) for i in ids])
    return index.store


def measure(search: Search, queries: Floats, scores: Floats) -> dict[str, Any]:
    """Return the recall of the best 50 images over all queries, and the time of one search."""
    found, seconds = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(np.array(search(query), np.int64))
        seconds.append(time.perf_counter() - start)
    recalls = [recall(images, of, K) for images, of in zip(found, scores, strict=True)]
    milliseconds = 1e3 * np.array(seconds[1:])
    return {
        "recall": float(np.mean(recalls)),
        "least_recall": float(np.min(recalls)),
        "queries": len(queries),
        "p50_ms": float(np.median(milliseconds)),
        "p95_ms": float(np.percentile(milliseconds, 95)),
    }


def measure_milvus(folder: Path, store: Store, kind: str | None, queries: Floats, scores: Floats) -> dict[str, Any]:
    """Publish the store to a server, and search there."""
    with running_server(folder / "milvus") as server:
        place = f"{server}/benchmark"
        start = time.perf_counter()
        summary = publish(store, place, PublishOptions(index=kind), lambda merge, most: None)
        published = time.perf_counter() - start
        index = MilvusIndex(place)
        settings = index.view().settings
        timed = measure(lambda q: numbers(index, q[None])[0], queries[:_TIMED], scores[:_TIMED])
        recalls = [recall(np.array(n), s, K) for n, s in zip(numbers(index, queries), scores, strict=True)]
        start = time.perf_counter()
        again = publish(store, place, PublishOptions(), lambda merge, most: None)
        return {
            "engine": f"milvus-lite {settings.index.kind}",
            "index": dict(settings.index.build),
            "search": {**settings.search.params, "compared": settings.search.compared},
            "recall_that_publish_measured": settings.search.recall,
            **timed,
            "recall": float(np.mean(recalls)),
            "least_recall": float(np.min(recalls)),
            "queries": len(recalls),
            "timed_queries": _TIMED,
            "publish_seconds": published,
            "publish_again_seconds": time.perf_counter() - start,
            "images": summary.added,
            "vectors": again.vectors,
        }


def numbers(index: MilvusIndex | Index, queries: Floats) -> list[list[int]]:
    """Return the numbers of the best images for each query."""
    return [[int(r.image_id) for r in results] for results in index.search_many(queries, K)]


def measure_lance(folder: Path, vectors: Vectors, kind: str, queries: Floats, scores: Floats) -> dict[str, Any]:
    """Search Lance's own index of a table with one row per vector, and group by image.

    Climbs from fast to thorough settings until the recall reaches 0.99.
    """
    uri, start = str(folder / f"{kind}.lance"), time.perf_counter()
    for first in range(0, vectors.images, _IMAGES_AT_ONCE):
        block = vectors.of_images(first, first + _IMAGES_AT_ONCE)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(block.astype(np.float16).reshape(-1)), vectors.dim)
        rows = pa.table({"image": np.repeat(np.arange(first, first + len(block)), PER_IMAGE), "vector": flat})
        lance.write_dataset(rows, uri, mode="append" if first else "create")
    dataset, lists = lance.dataset(uri), int(len(vectors) ** 0.5)
    codes = {"num_sub_vectors": vectors.dim // 8} if kind == "IVF_PQ" else {}
    dataset.create_index("vector", kind, metric="cosine", num_partitions=lists, **codes)
    built, dataset = time.perf_counter() - start, lance.dataset(uri)
    tried = []
    for fetch, refine, probes in ((250, 3, 16), (250, 10, 32), (500, 10, 64), (1000, 10, 128), (1000, 10, lists)):

        def search(query: Floats, fetch: int = fetch, refine: int = refine, probes: int = probes) -> list[int]:
            nearest = {"column": "vector", "q": query, "k": fetch, "nprobes": probes, "refine_factor": refine}
            found = dataset.to_table(["image", "_distance"], nearest=nearest)["image"].to_pylist()
            return list(dict.fromkeys(found))[:K]

        setting = {"fetch": fetch, "refine": refine, "nprobes": probes}
        tried.append({"search": setting, **measure(search, queries[:_TIMED], scores[:_TIMED])})
        if tried[-1]["recall"] >= 0.99:
            break
    size = sum(file.stat().st_size for file in Path(uri).rglob("*") if file.is_file())
    return {"engine": f"lance {kind}", "lists": lists, "build_seconds": built, "bytes": size, "tried": tried}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--index", help="Milvus's index; default: the one that publish chooses")
    parser.add_argument("--lance", nargs="*", default=["IVF_RQ", "IVF_PQ"], help="Lance's indexes")
    parser.add_argument("--without", action="append", default=[], help="milvus, lance or forclip; repeat for several")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        world = make_world(concepts_for(options.images), options.dim, 0)
        vectors = write_vectors(folder / "vectors.npy", world, options.images, PER_IMAGE)
        queries = make_queries(world, options.queries, options.images)
        scores, rows = exact_scores(vectors, queries), []
        store = make_store(folder / "store", vectors)
        if "forclip" not in options.without:
            index = Index(folder / "store")
            start = time.perf_counter()
            index.optimize()
            built = {"build_seconds": time.perf_counter() - start}
            rows.append(
                {"engine": "forclip", **built, **measure(lambda q: numbers(index, q[None])[0], queries, scores)}
            )
            print(json.dumps(rows[-1]), flush=True)
        for kind in options.lance if "lance" not in options.without else ():
            rows.append(measure_lance(folder, vectors, kind, queries, scores))
            print(json.dumps(rows[-1]), flush=True)
        if "milvus" not in options.without:
            rows.append(measure_milvus(folder, store, options.index, queries, scores))
            print(json.dumps(rows[-1]), flush=True)
    libraries = {name: version(name) for name in ("pymilvus", "milvus-lite", "pylance", "faiss-cpu", "numpy")}
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0], "libraries": libraries}
    data = {"images": options.images, "vectors_per_image": PER_IMAGE, "dim": options.dim}
    if options.out is not None:
        options.out.write_text(json.dumps({"data": data, **machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
