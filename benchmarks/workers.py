"""Measure how many images a second one process and several embed, and how many one process stores.

    python -m benchmarks.workers --images FOLDER --out FILE [--model forclip-mini] [--workers 2]

`embed` has the images a second of each number of workers, without the start of the processes and the loading of the
model. `store` has the images a second that `Index.put` stores, 25 vectors of 512 dimensions each, without embedding:
the most that the workers of one job can embed together. `load` is the machine's load before; a busy machine measures
nothing.
"""

import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.search import machine
from forclip.config import ModelConfig
from forclip.embedding.ingest import index_images
from forclip.embedding.run_options import RunOptions
from forclip.index.image_index import Index
from forclip.index.schema import StoreHeader
from forclip.index.store import ImageFile
from forclip.progress import Advance
from forclip.types import ImageEmbeddings

_STORED, _PARTS = 2048, 4


def measure_embedding(images: Path, model: str, workers: int) -> float:
    """Images a second from the first to the last progress that is reported."""
    times: list[tuple[float, int]] = []

    def track(description: str, total: int) -> Advance:
        return lambda count: times.append((time.perf_counter(), count)) if description == "embedding" else None

    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(workers=workers)
        index_images(str(images), Path(folder) / "store", model=ModelConfig(model), run=options, track=track)
    return sum(count for _, count in times[1:]) / (times[-1][0] - times[0][0])


def measure_storing() -> float:
    """Images a second that are stored, in commits of 2,048."""
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(_STORED * 25, 512)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    offsets = np.arange(0, _STORED * 25 + 1, 25, dtype=np.int64)
    with tempfile.TemporaryDirectory() as folder:
        index = Index.create(Path(folder) / "store", StoreHeader("none", 512, {"name": "none"}))
        start = time.perf_counter()
        for part in range(_PARTS):
            ids = tuple(f"r/{part}/{k}.jpg" for k in range(_STORED))
            index.put(ImageEmbeddings(vectors, offsets, ids), [ImageFile(i) for i in ids])
        return _STORED * _PARTS / (time.perf_counter() - start)


def main() -> None:
    """Measure and write."""
    from argparse import ArgumentParser

    parser = ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="forclip-mini")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    embed = {str(n): round(measure_embedding(given.images, given.model, n), 1) for n in (1, given.workers)}
    result = {"machine": machine(), "load": round(load, 1), "model": given.model, "embed": embed}
    result["store"] = round(measure_storing())
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
