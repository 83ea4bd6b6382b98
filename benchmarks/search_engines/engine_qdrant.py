"""Qdrant Edge: one multivector per image with max-sim, or one point per vector, grouped afterwards.

Uses HNSW over float16 vectors, with 8-bit copies that a query may use or ignore. By default, Qdrant scans small shards.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import qdrant_edge as qe

from benchmarks.search_data import Vectors
from benchmarks.search_engines.protocol import Ladder, Setting, blocks, doubling, fetches, first_distinct
from forclip.types import Floats


class QdrantEdge:
    """layout: `multivector` or `rows`."""

    def __init__(self, layout: str) -> None:
        assert layout in ("multivector", "rows")
        self.layout = layout

    def build(self, vectors: Vectors, folder: Path) -> None:
        max_sim = qe.MultiVectorConfig(qe.MultiVectorComparator.MaxSim)
        stored = qe.EdgeVectorParams(
            vectors.dim,
            qe.Distance.Dot,
            multivector_config=max_sim if self.layout == "multivector" else None,
            datatype=qe.VectorStorageDatatype.Float16,
            quantization_config=qe.ScalarQuantizationConfig(qe.ScalarType.Int8, memory=qe.Memory.Pinned),
        )
        shard = qe.EdgeShard.create(str(folder), qe.EdgeConfig(vectors=stored, wal_enabled=False))
        for start, block in blocks(vectors, 200):
            shard.update(qe.UpdateOperation.upsert_points(self._points(start, block)))
        shard.optimize()
        shard.flush()
        shard.close()

    def _points(self, start: int, block: Floats) -> list[qe.Point]:
        """Points of a block. Qdrant accepts NumPy arrays, although its stubs do not say so."""
        if self.layout == "rows":
            first = start * block.shape[1]
            return [qe.Point(first + n, v) for n, v in enumerate(block.reshape(-1, block.shape[2]))]
        return [qe.Point(start + n, v) for n, v in enumerate(block)]

    def open(self, vectors: Vectors, folder: Path) -> None:
        self._per_image = vectors.per_image if self.layout == "rows" else 1
        self._shard = qe.EdgeShard.load(str(folder))

    def ladders(self, vectors: Vectors, k: int) -> list[Ladder]:
        limits = [k] if self.layout == "multivector" else fetches(vectors, k)
        graph: list[Ladder] = [
            [{"limit": limit, "quantized": quantized, "ef": ef} for ef in doubling(limit, 16 * limit)]
            for limit in limits
            for quantized in (True, False)
        ]
        return [*graph, [{"limit": limits[-1], "exact": True}]]

    def query(self, vector: Floats, k: int, setting: Setting) -> Sequence[int]:
        if setting.get("exact"):
            ignored = qe.QuantizationSearchParams(ignore=True)
            parameters = qe.SearchParams(exact=True, quantization=ignored)
        else:
            codes = qe.QuantizationSearchParams(ignore=not setting["quantized"], rescore=True, oversampling=2.0)
            parameters = qe.SearchParams(hnsw_ef=int(setting["ef"]), quantization=codes)
        nearest = qe.Query.Nearest(vector.tolist())
        request = qe.QueryRequest(int(setting["limit"]), query=nearest, params=parameters, with_payload=False)
        points = np.array([point.id for point in self._shard.query(request)], np.int64)
        return first_distinct((points // self._per_image).tolist(), k)
