"""Milvus Lite through pymilvus: one row per vector, grouped by image in the engine (group_by_field)."""

from collections.abc import Sequence
from pathlib import Path

from pymilvus import DataType, MilvusClient

from benchmarks.search_data import Vectors
from benchmarks.search_engines.protocol import Ladder, Setting, blocks, doubling, first_distinct, list_count
from forclip.types import Floats

_COLLECTION, _FILE = "images", "vectors.db"
_FETCHED_A_GROUP = 10  # vectors that Milvus Lite fetches per requested group; not configurable


class MilvusLite:
    """index: FLAT, IVF_SQ8 or HNSW."""

    def __init__(self, index: str) -> None:
        self.index = index

    def build(self, vectors: Vectors, folder: Path) -> None:
        client = MilvusClient(str(folder / _FILE))
        schema = MilvusClient.create_schema(auto_id=False)
        schema.add_field("row", DataType.INT64, is_primary=True)
        schema.add_field("image", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.dim)
        settings = {"IVF_SQ8": {"nlist": list_count(vectors)}, "HNSW": {"M": 16, "efConstruction": 128}}
        index = client.prepare_index_params()
        # `params` twice: pymilvus 3.0 unpacks the outer one, Milvus Lite 3.2 reads only the inner one.
        index.add_index(
            "vector", index_type=self.index, metric_type="IP", params={"params": settings.get(self.index, {})}
        )
        client.create_collection(_COLLECTION, schema=schema, index_params=index)
        for start, block in blocks(vectors, 200):
            client.insert(_COLLECTION, _rows(start, block))
        client.flush(_COLLECTION)
        client.load_collection(_COLLECTION)  # waits for the index
        client.close()

    def open(self, vectors: Vectors, folder: Path) -> None:
        self._client = MilvusClient(str(folder / _FILE))
        self._client.load_collection(_COLLECTION)

    def ladders(self, vectors: Vectors, k: int) -> list[Ladder]:
        certain = min(vectors.images, -(-(k - 1) * vectors.per_image // _FETCHED_A_GROUP) + 1)
        groups = doubling(k, max(k, certain))
        match self.index:
            case "IVF_SQ8":
                return [[{"groups": g, "nprobe": n} for n in doubling(4, max(4, list_count(vectors)))] for g in groups]
            case "HNSW":
                return [[{"groups": g, "ef": _FETCHED_A_GROUP * g * n} for n in (1, 2, 4, 8)] for g in groups]
        return [[{"groups": g} for g in groups]]

    def query(self, vector: Floats, k: int, setting: Setting) -> Sequence[int]:
        inner = {name: value for name, value in setting.items() if name != "groups"}
        (hits,) = self._client.search(
            _COLLECTION,
            [vector.tolist()],
            limit=setting["groups"],
            group_by_field="image",
            output_fields=["image"],
            search_params={"metric_type": "IP", "params": inner},
        )
        return first_distinct((hit["entity"]["image"] for hit in hits), k)


def _rows(start: int, block: Floats) -> list[dict[str, object]]:
    per_image = block.shape[1]
    return [
        {"row": (start + image) * per_image + position, "image": start + image, "vector": vector}
        for image, vectors in enumerate(block)
        for position, vector in enumerate(vectors)
    ]
