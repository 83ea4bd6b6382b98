"""A store's images as they are published: blocks of vectors with columns, and digests that show what changed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import lance
import msgspec
import numpy as np
import pyarrow as pa

from forclip.index.columns import is_readable
from forclip.index.milvus.columns import FILTERABLE, OF_IMAGES, PublishedColumn
from forclip.index.schema import BUILT_IN_COLUMNS, StoreHeader, from_lists
from forclip.index.table import StoredVectors
from forclip.types import Floats, ImageEmbeddings, Ints

SAMPLE_QUERIES = 100
_IMAGES_AT_ONCE = 1000
_CODE_HEADROOM = 1.05
_SAMPLED_IMAGES = 1000

Reduce = Callable[[ImageEmbeddings], ImageEmbeddings]


@dataclass(frozen=True)
class SourceBlock:
    """Some images as they are published. columns: values in Milvus's types by field; too_long: texts left out."""

    stored: StoredVectors
    columns: Mapping[str, list[Any]]
    too_long: int


@dataclass(frozen=True)
class Source:
    """One version of a store. stored, published: headers, as the store has it and as it is published; reduce: makes
    fewer vectors of an image's, None to keep them."""

    table: lance.LanceDataset
    stored: StoreHeader
    published: StoreHeader
    columns: tuple[PublishedColumn, ...]
    reduce: Reduce | None

    def digests(self) -> tuple[Ints, Ints]:
        """Return the ascending keys of the images and what identifies the columns of each."""
        names = list(self._by_name)
        keys, digests = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for batch in self.table.to_batches(columns=["number", *names]):
            if batch.num_rows:
                keys.append(batch.column("number").to_numpy())
                digests.append(_digests_of(pa.Table.from_batches([batch]).select(names)))
        found, values = np.concatenate(keys), np.concatenate(digests)
        order = np.argsort(found)
        return found[order], values[order]

    def blocks(self, keys: Ints | None = None) -> Iterator[SourceBlock]:
        """Read images, all by default, in the order of the store."""
        stored = self.table.to_table(["number"])["number"].to_numpy()
        positions = np.arange(len(stored)) if keys is None else np.flatnonzero(np.isin(stored, keys))
        names = list(dict.fromkeys(["number", "id", "uri", "vectors", "boxes", *self._by_name]))
        for start in range(0, len(positions), _IMAGES_AT_ONCE):
            rows = self.table.take(positions[start : start + _IMAGES_AT_ONCE].tolist(), columns=names)
            codes, offsets = from_lists(rows["vectors"], self.stored.dim)
            boxes, _ = from_lists(rows["boxes"], 4)
            block = StoredVectors(rows["number"].to_numpy(), codes, offsets, boxes, rows.select(["id", "uri"]))
            columns, too_long = {}, 0
            for name, column in self._by_name.items():
                columns[column.field], left_out = column.to_milvus(rows[name])
                too_long += left_out
            yield SourceBlock(self._as_published(block), columns, too_long)

    def sample_queries(self) -> Floats:
        """Return stand-ins for text queries: means of two random stored vectors each, unit [Q, dim]."""
        rng, count = np.random.default_rng(0), self.table.count_rows()
        if not count:
            return np.empty((0, self.stored.dim), np.float32)
        chosen, which = np.unique(rng.integers(0, count, 2 * SAMPLE_QUERIES), return_inverse=True)
        codes, offsets = from_lists(self.table.take(chosen.tolist(), columns=["vectors"])["vectors"], self.stored.dim)
        rows = rng.integers(offsets[:-1][which], offsets[1:][which])
        vectors = self.stored.decode(codes[rows])
        mixed = vectors[:SAMPLE_QUERIES] + vectors[SAMPLE_QUERIES:]
        unit: Floats = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
        return unit

    @property
    def _by_name(self) -> dict[str, PublishedColumn]:
        return {column.name: column for column in (*FILTERABLE, *OF_IMAGES, *self.columns)}

    def _as_published(self, block: StoredVectors) -> StoredVectors:
        same = (self.stored.precision, self.stored.code_range) == (self.published.precision, self.published.code_range)
        if self.reduce is None and same:
            return block
        vectors = self.stored.decode(block.codes).astype(np.float32)
        if self.reduce is None:
            return replace(block, codes=self.published.encode(vectors))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        names = tuple(map(str, block.keys.tolist()))
        fewer = self.reduce(ImageEmbeddings(vectors, block.offsets, names, block.boxes.astype(np.float32)))
        assert fewer.boxes is not None
        codes, boxes = self.published.encode(fewer.vectors), fewer.boxes.astype(np.float16)
        return StoredVectors(block.keys, codes, fewer.offsets, boxes, block.images)


def column_types(table: lance.LanceDataset) -> dict[str, pa.DataType]:
    """Return the Arrow types of the users' columns by name."""
    return {f.name: f.type for f in table.schema if f.name not in BUILT_IN_COLUMNS and is_readable(f.name)}


def expected_vectors(table: lance.LanceDataset) -> int:
    """Estimate how many vectors a table has, from its first images."""
    count = table.count_rows()
    rows = table.take(list(range(min(count, _SAMPLED_IMAGES))), columns=["boxes"])["boxes"] if count else []
    return int(count * float(np.mean([len(row) for row in rows]))) if count else 0


def code_range(table: lance.LanceDataset, header: StoreHeader) -> float:
    """Return the value that int8's largest code stands for, from a sample of vectors."""
    count = table.count_rows()
    if not count:
        return 1.0
    chosen = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_IMAGES)).astype(np.int64)).tolist()
    codes, _ = from_lists(table.take(chosen, columns=["vectors"])["vectors"], header.dim)
    return float(np.abs(header.decode(codes)).max()) * _CODE_HEADROOM


def _digests_of(rows: pa.Table) -> Ints:
    """Identify the values of each row in 63 bits."""
    encode = msgspec.msgpack.Encoder().encode
    columns = [rows[name].to_pylist() for name in rows.column_names]
    digests = [
        int.from_bytes(blake2b(encode(values), digest_size=8).digest(), "big") >> 1
        for values in zip(*columns, strict=True)
    ]
    return np.array(digests, np.int64)


def select_columns(columns: Sequence[PublishedColumn], block: SourceBlock, image: int) -> dict[str, Any]:
    """Return the values of some columns for one image of a block, by field."""
    return {column.field: block.columns[column.field][image] for column in columns}
