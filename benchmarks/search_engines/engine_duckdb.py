"""DuckDB: exact search in SQL over all vectors, grouped by image."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from benchmarks.search_data import Vectors
from benchmarks.search_engines.protocol import Ladder, Setting, blocks
from forclip.types import Floats

_FILE = "images.duckdb"


class DuckDb:
    """A table with one row per vector, in float32, because DuckDB has no half-precision arrays."""

    def build(self, vectors: Vectors, folder: Path) -> None:
        with duckdb.connect(folder / _FILE) as connection:
            connection.execute(f"CREATE TABLE vectors (image INTEGER, vector FLOAT[{vectors.dim}])")
            for start, block in blocks(vectors, 2000):
                images = np.arange(start, start + len(block), dtype=np.int32)
                flat = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), vectors.dim)
                rows = pa.table({"image": np.repeat(images, vectors.per_image), "vector": flat})
                connection.register("rows", rows)
                connection.execute("INSERT INTO vectors SELECT * FROM rows")
                connection.unregister("rows")

    def open(self, vectors: Vectors, folder: Path) -> None:
        self._connection = duckdb.connect(folder / _FILE, read_only=True)
        self._sql = (
            f"SELECT image, max(array_inner_product(vector, $1::FLOAT[{vectors.dim}])) AS score"
            " FROM vectors GROUP BY image ORDER BY score DESC LIMIT $2"
        )

    def ladders(self, vectors: Vectors, k: int) -> list[Ladder]:
        return [[{}]]

    def query(self, vector: Floats, k: int, setting: Setting) -> Sequence[int]:
        return [image for image, _ in self._connection.execute(self._sql, [vector, k]).fetchall()]
