"""LanceDB: one multivector per image, or one row per vector, grouped by image afterwards."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfPq, IvfRq

from benchmarks.search_data import Vectors
from benchmarks.search_engines.protocol import Ladder, Setting, blocks, doubling, fetches, first_distinct
from forclip.types import Floats

_TABLE = "images"


class LanceDb:
    """layout: `multivector` or `rows`; index: `exact`, `pq` or `rq`. Uses cosines, the only metric for multivectors."""

    def __init__(self, layout: str, index: str) -> None:
        assert layout in ("multivector", "rows")
        self.layout, self.index = layout, index

    def build(self, vectors: Vectors, folder: Path) -> None:
        batches = (self._batch(start, block) for start, block in blocks(vectors, 2000))
        first = next(batches)
        table = lancedb.connect(folder).create_table(_TABLE, first)
        for batch in batches:
            table.add(batch)
        table.optimize(cleanup_older_than=timedelta(0))
        lists = _lists(vectors)
        match self.index:
            case "pq":
                config: Any = IvfPq(distance_type="cosine", num_partitions=lists, num_sub_vectors=vectors.dim // 8)
            case "rq":
                config = IvfRq(distance_type="cosine", num_partitions=lists)
            case _:
                return
        table.create_index("vectors", config=config)

    def _batch(self, start: int, block: Floats) -> pa.Table:
        count, per_image, dim = block.shape
        images = np.arange(start, start + count)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(block.astype(np.float16).reshape(-1)), dim)
        if self.layout == "rows":
            return pa.table({"image": np.repeat(images, per_image), "vectors": flat})
        offsets = pa.array(np.arange(count + 1, dtype=np.int32) * per_image)
        return pa.table({"image": images, "vectors": pa.ListArray.from_arrays(offsets, flat)})

    def open(self, vectors: Vectors, folder: Path) -> None:
        self._table = lancedb.connect(folder).open_table(_TABLE)

    def ladders(self, vectors: Vectors, k: int) -> list[Ladder]:
        limits = [k] if self.layout == "multivector" else fetches(vectors, k)
        if self.index == "exact":
            return [[{"limit": limit} for limit in limits]]
        lists = _lists(vectors)
        return [
            [{"limit": limit, "refine": refine, "nprobes": n} for n in doubling(4, max(4, lists))]
            for limit in limits
            for refine in (1, 3, 10, 30)
        ]

    def query(self, vector: Floats, k: int, setting: Setting) -> Sequence[int]:
        search: Any = self._table.search(vector, vector_column_name="vectors").distance_type("cosine")
        search = search.select(["image", "_distance"]).limit(setting["limit"])
        if "nprobes" in setting:
            search = search.nprobes(setting["nprobes"]).refine_factor(setting["refine"])
        return first_distinct(search.to_arrow()["image"].to_pylist(), k)


def _lists(vectors: Vectors) -> int:
    """LanceDB's default number of lists, the square root, but with at least 256 vectors per list for training."""
    return max(1, min(int(len(vectors) ** 0.5), len(vectors) // 256))
