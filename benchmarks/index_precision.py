"""Measure what precisions of vectors and of the search index cost: bytes per image, recall, p50 and mAP.

    forclip demo --out runs/demo --seeds 3
    python -m benchmarks.index_precision --demo runs/demo --out docs/results/index_precision.json [--images 12000]

Two parts. The toy world of the demo (128 dimensions): mAP@50 of each precision of stored vectors, cosine from which
they are merged, and precision of the search index, with exact rescoring. Generated vectors of the search benchmark
(512 dimensions, 25 an image): recall and p50 on a store of some size. Bytes are all that is on disk, per image: table,
scalar indexes, segments and the search index, as built for --images; on the toy world those of the formulas in
docs/scale.md, because a few hundred images weigh less than their file headers.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.compactness import K, mean_average_precisions
from benchmarks.demo_runs import demo_seeds, mean_and_std
from benchmarks.search_data import World, concepts_for, make_queries, make_world, write_vectors
from benchmarks.search_engines.engine_forclip import as_images
from benchmarks.search_engines.protocol import blocks
from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig
from forclip.data.formats.coco import load_coco
from forclip.embedding.embed import embed_images
from forclip.embedding.merge import merge_near_duplicates
from forclip.index.capacity import Stored, disk_bytes
from forclip.index.image_index import Index
from forclip.index.index_kinds import CODES, Codes, lists_kind
from forclip.index.schema import Precision, StoreHeader
from forclip.index.store import ImageFile
from forclip.models.retrieval_model import load_model
from forclip.toyworld.dataset import ToyWorld, novel_names
from forclip.types import Floats, ImageEmbeddings

PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")
MERGES = (None, 0.98, 0.95, 0.9)
TOY_LISTS, QUERIES, PER_IMAGE, DIM = 16, 200, 25, 512
LARGE = 1_000_000  # images for which the formulas give bytes per image


@dataclass(frozen=True)
class Kind:
    """precision: of the stored vectors; merge: the cosine from which they are merged; codes: of the index, None for
    exact search."""

    precision: Precision
    merge: float | None
    codes: Codes | None

    @property
    def name(self) -> str:
        merged = "" if self.merge is None else f", merged from {self.merge}"
        return f"{self.precision}{merged}, {self.codes or 'no index'}"


def make_store(folder: Path, dim: int, precision: Precision, parts: Sequence[ImageEmbeddings]) -> Index:
    largest = max(float(np.abs(part.vectors).max()) for part in parts)
    code_range = largest * 1.25 if precision == "int8" else 1.0
    index = Index.create(folder, StoreHeader("benchmark", dim, {"name": "benchmark"}, precision, code_range))
    for part in parts:
        index.add(part, [ImageFile(i, 640, 480, f"{n:032x}", 1000, 5) for n, i in enumerate(part.image_ids)])
    return index


def timed_search(index: Index, queries: Floats) -> tuple[float, float]:
    """Return the recall of the best K images, against exact search of the same store, and the p50 in ms."""
    exact = [{r.key for r in index.search(query, K, exact=True)} for query in queries]
    seconds, recalls = [], []
    for query, best in zip(queries, exact, strict=True):
        started = time.perf_counter()
        found = index.search(query, K)
        seconds.append(time.perf_counter() - started)
        recalls.append(len({r.key for r in found} & best) / len(best))
    return float(np.mean(recalls)), 1000 * float(np.median(seconds))


def measure_toy(demo: Path, seed: int) -> dict[str, dict[str, float]]:
    """Measure each kind on the gallery of one seed."""
    world = ToyWorld(demo / f"world-{seed}", novel_names(seed))
    model = load_model(ModelConfig(str(demo / f"model-{seed}")))
    gallery = load_coco(world.gallery_file, world.images)
    full, skipped = embed_images(model, gallery.paths)
    assert not skipped
    texts = np.stack([model.encode_query(name).numpy() for name in gallery.class_names])
    rows = {}
    for precision in PRECISIONS:
        for merge in MERGES:
            embeddings = full if merge is None else merge_near_duplicates(full, merge)
            with tempfile.TemporaryDirectory() as folder:
                index = make_store(Path(folder) / "s", model.dim, precision, [embeddings])
                for codes in (None, *CODES):
                    index.optimize("none" if codes is None else lists_kind(TOY_LISTS, model.dim, codes), texts[::12])
                    maps = mean_average_precisions(index, texts, gallery, embeddings.image_ids, world.novel)
                    recall, p50 = timed_search(index, texts)
                    per_image = len(embeddings.vectors) / len(embeddings)
                    size = disk_bytes(Stored(LARGE, per_image, model.dim, precision), codes or "sq8") / LARGE
                    values = {**maps, "vectors_per_image": per_image, "bytes_per_image": size}
                    rows[Kind(precision, merge, codes).name] = {**values, "recall": recall, "p50_ms": p50}
    return rows


def measure_generated(folder: Path, images: int) -> dict[str, dict[str, Any]]:
    """Measure each kind on generated vectors. An index is built by size, as `forclip compact --index` builds it."""
    world = make_world(concepts_for(images), DIM, 0)
    other = World(world.centres, world.popularity, world.image_mean, world.text_mean, 99)
    queries, typical = make_queries(world, QUERIES, images), make_queries(other, 64, images)
    vectors = write_vectors(folder / "vectors.npy", world, images, PER_IMAGE)
    rows = {}
    for precision in PRECISIONS:
        parts = [as_images(start, block)[0] for start, block in blocks(vectors, 4_000)]
        index = make_store(folder / precision, DIM, precision, parts)
        del parts
        for codes in CODES:
            # Earlier versions of the table, kept for an hour, are no part of the bytes.
            index.store.compact(timedelta(0))
            started = time.perf_counter()
            index.compact(codes)
            index.optimize(codes, typical)
            seconds = time.perf_counter() - started
            recall, p50 = timed_search(index, queries)
            info = index.info()
            rows[Kind(precision, None, codes).name] = {
                "bytes_per_image": (info["table_bytes"] + info["search_bytes"]) / images,
                "index_bytes_per_image": sum(f.stat().st_size for f in folder.rglob("ann-*.faiss")) / images,
                "recall": recall,
                "p50_ms": p50,
                "index": [part["index"] for part in info["parts"]],
                "nprobe": [part.get("nprobe") for part in info["parts"]],
                "compared": [part.get("compared") for part in info["parts"]],
                "build_s": seconds,
            }
            print(Kind(precision, None, codes).name, rows[Kind(precision, None, codes).name], flush=True)
        shutil.rmtree(folder / precision)
    return rows


def summarise(by_seed: Sequence[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over seeds, and the difference of each kind to half precision, exactly searched, paired by seed."""
    summed: dict[str, dict[str, float]] = {}
    first = Kind("fp16", None, None).name
    for name in by_seed[0]:
        rows = [results[name] for results in by_seed]
        summed[name] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        for group in ("base", "novel"):
            summed[name][f"{group}_cost"], summed[name][f"{group}_cost_std"] = mean_and_std(
                [results[name][group] - results[first][group] for results in by_seed]
            )
    return summed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="Output folder of forclip demo; without it, no mAP.")
    parser.add_argument("--images", type=int, default=12_000, help="Generated images; 0 for none.")
    parser.add_argument("--out", type=Path, required=True, help="JSON file; parts that are not measured stay.")
    given = parser.parse_args()
    results: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    command = f"python -m benchmarks.index_precision {' '.join(sys.argv[1:])}"
    if given.demo is not None:
        seeds = demo_seeds(given.demo)
        by_seed = [measure_toy(given.demo, seed) for seed in seeds]
        mean = summarise(by_seed)
        results["toy"] = {"command": command, "metric": f"mAP@{K}, min({K},R)", "seeds": seeds, "mean": mean}
        write_text_atomically(given.out, json.dumps(results, indent=1) + "\n")
        table = Table("store", "vectors", "kB an image", "base", "novel", "recall", "p50 ms")
        for name, row in mean.items():
            changes = [f"{row[g]:.1f} ({row[f'{g}_cost']:+.2f})" for g in ("base", "novel")]
            sizes = [f"{row['vectors_per_image']:.1f}", f"{row['bytes_per_image'] / 1e3:.2f}"]
            table.add_row(name, *sizes, *changes, f"{row['recall']:.4f}", f"{row['p50_ms']:.2f}")
        Console(width=120).print(table)
    if given.images:
        with tempfile.TemporaryDirectory() as folder:
            rows = measure_generated(Path(folder), given.images)
        shape = {"images": given.images, "vectors_per_image": PER_IMAGE, "dim": DIM}
        results["generated"] = {"command": command, **shape, "kinds": rows}
        write_text_atomically(given.out, json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
