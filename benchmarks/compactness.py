"""Measure what smaller stores cost in mAP on the toy world: int8, merged vectors, compressed indexes with rescoring.

    forclip demo --out runs/demo --seeds 3
    python -m benchmarks.compactness --demo runs/demo --out docs/results/compactness.json

Uses the world and the model of each seed of the demo. Writes the gallery to a store of each kind and searches for every
class. Sizes are bytes per image, of the stored vectors and of the index.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.demo_runs import demo_arguments, mean_and_std
from forclip.atomic_write import write_text_atomically
from forclip.config import ModelConfig
from forclip.data.formats.coco import load_coco
from forclip.embedding.embed import embed_images
from forclip.embedding.merge import limit_vectors, merge_near_duplicates
from forclip.evaluation.metrics import ranked_average_precision
from forclip.index.image_index import Index
from forclip.index.schema import Precision, StoreHeader
from forclip.index.store import ImageFile
from forclip.models.retrieval_model import RetrievalModel, load_model
from forclip.toyworld.dataset import ToyWorld, novel_names
from forclip.types import Annotations, Floats, ImageEmbeddings

K = 50
COMMAND = "forclip demo --out runs/demo --seeds 3 && python -m benchmarks.compactness --demo runs/demo --out FILE"


@dataclass(frozen=True)
class Kind:
    """A kind of store.

    merge: least cosine at which vectors are merged; max_vectors: most vectors an image; index: FAISS factory string, or
    none.
    """

    precision: Precision = "fp16"
    merge: float | None = None
    index: str = "none"
    max_vectors: int | None = None


def kinds(dim: int) -> dict[str, Kind]:
    """The kinds of store to compare, by name."""
    return {
        "fp16": Kind(),
        "int8": Kind("int8"),
        **{f"fp16, merged from {cosine}": Kind(merge=cosine) for cosine in (0.98, 0.95, 0.9, 0.8)},
        **{f"fp16, at most {most}": Kind(max_vectors=most) for most in (15, 10, 5)},
        "int8, merged from 0.9": Kind("int8", 0.9),
        "fp16, index of 2 bits a dimension (the default's codes)": Kind(index=f"PQ{dim // 2}x4fs"),
        "fp16, binary index (RaBitQ, 1 bit a dimension)": Kind(index="RaBitQ"),
        "fp16, index of half a bit a dimension": Kind(index=f"PQ{dim // 8}x4fs"),
    }


def measure(demo: Path, seed: int) -> dict[str, dict[str, float]]:
    """Measure each kind of store on the world of one seed."""
    world = ToyWorld(demo / f"world-{seed}", novel_names(seed))
    model = load_model(ModelConfig(str(demo / f"model-{seed}")))
    gallery = load_coco(world.gallery_file, world.images)
    embeddings, skipped = embed_images(model, gallery.paths)
    assert not skipped
    return {
        name: _measure_kind(kind, model, embeddings, gallery, world.novel) for name, kind in kinds(model.dim).items()
    }


def _measure_kind(
    kind: Kind, model: RetrievalModel, full: ImageEmbeddings, gallery: Annotations, novel: tuple[str, ...]
) -> dict[str, float]:
    embeddings = full if kind.merge is None else merge_near_duplicates(full, kind.merge)
    embeddings = embeddings if kind.max_vectors is None else limit_vectors(embeddings, kind.max_vectors)
    code_range = float(np.abs(embeddings.vectors).max()) * 1.25 if kind.precision == "int8" else 1.0
    texts = np.stack([model.encode_query(name).numpy() for name in gallery.class_names])
    with tempfile.TemporaryDirectory() as folder:
        header = StoreHeader("benchmark", model.dim, {}, kind.precision, code_range)
        index = Index.create(Path(folder) / "s", header)
        index.add(embeddings, [ImageFile(i) for i in embeddings.image_ids])
        if kind.index != "none":
            index.optimize(kind.index, texts)
        maps = mean_average_precisions(index, texts, gallery, embeddings.image_ids, novel)
        index_bytes = sum(f.stat().st_size for f in Path(folder).rglob("ann-*.faiss"))
    width = 2 if kind.precision == "fp16" else 1
    images = len(embeddings)
    return {
        **maps,
        "vectors_per_image": len(embeddings.vectors) / images,
        "vector_bytes_per_image": len(embeddings.vectors) * model.dim * width / images,
        "index_bytes_per_image": index_bytes / images,
    }


def mean_average_precisions(
    index: Index, texts: Floats, gallery: Annotations, image_ids: Sequence[str], novel: Sequence[str]
) -> dict[str, float]:
    """Search for every class that the gallery has, and return mAP@K of base and novel classes in percent.

    texts: unit [classes, dim]; image_ids: in the order of the gallery's labels.
    """
    row_of = {i: row for row, i in enumerate(image_ids)}
    aps: dict[str, list[float]] = {"base": [], "novel": []}
    for column in np.flatnonzero(gallery.labels.any(0)):
        rows = [row_of[r.image_id] for r in index.search(texts[column], K)]
        rest = np.delete(gallery.labels[:, column], rows)
        ranked = np.concatenate([gallery.labels[rows, column], rest])
        group = "novel" if gallery.class_names[column] in novel else "base"
        aps[group].append(100 * ranked_average_precision(ranked, K))
    return {group: float(np.mean(values)) for group, values in aps.items()}


def summarise(by_seed: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Means over seeds, and the difference of each kind to fp16, paired by seed: mean and standard deviation."""
    summed: dict[str, dict[str, Any]] = {}
    for name in by_seed[0]:
        rows = [results[name] for results in by_seed]
        summed[name] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        for group in ("base", "novel"):
            mean, std = mean_and_std([results[name][group] - results["fp16"][group] for results in by_seed])
            summed[name] |= {f"{group}_cost": mean, f"{group}_cost_std": std}
    return summed


def main() -> None:
    runs = demo_arguments(__doc__)
    seeds = runs.seeds
    by_seed = [measure(runs.demo, seed) for seed in seeds]
    summed = summarise(by_seed)
    content = {"command": COMMAND, "metric": f"mAP@{K}, min({K},R)", "seeds": seeds, "mean": summed, "by_seed": by_seed}
    write_text_atomically(runs.out, json.dumps(content, indent=1) + "\n")
    table = Table("store", "base", "novel", "vectors", "bytes an image", "index bytes an image")
    for name, row in summed.items():
        changes = [f"{row[g]:.1f} ({row[f'{g}_cost']:+.2f})" for g in ("base", "novel")]
        sizes = [f"{row[k]:.1f}" for k in ("vectors_per_image", "vector_bytes_per_image", "index_bytes_per_image")]
        table.add_row(name, *changes, *sizes)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
