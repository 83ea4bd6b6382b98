"""How much disk and memory a store, its search files and a published copy take, from the number of images.

The formulas follow what `Store`, `SegmentFolder` and `forclip.index.milvus` write; docs/scale.md has them as a list.
Bytes count powers of ten: 1 GB is 10^9 bytes.
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

from forclip.index.index_kinds import Codes, bytes_per_vector
from forclip.index.milvus.recall import choose_index
from forclip.index.milvus.settings import VectorIndex
from forclip.index.optimize import MIN_INDEXED_VECTORS, MIN_SEGMENT_VECTORS, max_segment_vectors
from forclip.index.schema import Precision

Place = Literal["local", "bucket", "milvus"]
PLACES: tuple[Place, ...] = ("local", "bucket", "milvus")
BUCKET_PRICE = 0.023  # USD per GB and month, list price of S3 Standard for the first 50 TB
DISK_PRICE = 0.08  # USD per GB and month, list price of EBS gp3
DEFAULT_BUILD_MEMORY = 16 * 10**9

# Vectors that are left of 25, by the cosine from which they are merged: FOR on the toy world, three seeds
# (docs/results/compactness.json).
MEASURED_VECTORS = 25
MEASURED_MERGES = {0.8: 5.756, 0.9: 10.512, 0.95: 16.359, 0.98: 22.189}

_CODE_BYTES: dict[Precision, int] = {"fp16": 2, "int8": 1}  # per number
_BOX_BYTES = 8  # four half-precision numbers
_ID_BYTES = 40  # characters of an id, and of a location; both are longer for images in buckets
_TABLE_ROW = 70 + 2 * _ID_BYTES  # the file columns, compressed, and the four scalar indexes
_SEGMENT_ROW = 53 + 2 * _ID_BYTES  # images.arrow, numbers, offsets, places and the two lookups
_ROW_NUMBER = 8  # of a vector in an inverted list
_LISTS_FACTOR, _FINER_LISTS = 4, 1 << 13  # as forclip.index.optimize chooses lists
_PROCESS_BYTES = 250 * 10**6  # libraries and what a search allocates (search_growth.json), without the model
_IMAGE_BYTES = 5  # of a store that is open (store_growth.json)
_MILVUS_SCALARS = 140 + _ID_BYTES  # of a vector: its key, image, box and the columns that every store has
_MILVUS_IMAGE = 250 + 2 * _ID_BYTES  # a row of the collection of images, with its lookups
_LINK_BYTES, _UPPER_LINKS = 4, 1.1  # a neighbour in HNSW's graph; the upper layers add up to a tenth
_DISKANN_SHARE = 0.125  # of single-precision vectors that Milvus keeps compressed in memory, its default
_DISKANN_LINKS = 56  # per vector on disk, Milvus's default degree
_COUNT_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


@dataclass(frozen=True)
class Stored:
    """What is stored. vectors_per_image: a mean; dim: of a vector; precision: of its numbers."""

    images: int
    vectors_per_image: float
    dim: int
    precision: Precision

    @property
    def vectors(self) -> int:
        return round(self.images * self.vectors_per_image)

    @property
    def vector_bytes(self) -> int:
        """Of one vector."""
        return self.dim * _CODE_BYTES[self.precision]


@dataclass(frozen=True)
class Need:
    """What one choice needs.

    disk: bytes on the disk of the machine that searches, 0 for Milvus; bucket: bytes in the bucket; memory: bytes with
    which a search reads nothing but exact scores from disk; least_memory: bytes without which it fails; segments: of
    the search files, each of which is searched, 0 without any; per_month: storage in USD.
    """

    place: Place
    stored: Stored
    disk: int
    bucket: int
    memory: int
    least_memory: int
    segments: int
    per_month: float


def parse_count(text: str) -> int:
    """Return the number that a text such as 50M, 100k, 1.5M or 2,000,000 stands for. Raises ValueError for another."""
    plain = re.sub(r"(?<=\d)[,_](?=\d{3}(\D|$))", "", text.strip())
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKMGB]?)", plain)
    value = float(match[1]) * _COUNT_UNITS[match[2].upper()] if match else 0.0
    if not 1 <= value <= 10**12 or value != int(value):
        raise ValueError(f"the number of images is a whole number such as 50M, 100k or 2000000, not {text!r}")
    return int(value)


def merged_share(merge: float) -> float:
    """Return the share of vectors that merging leaves, as measured on the toy world, linear between the measurements.

    Raises ValueError for a cosine outside what was measured.
    """
    least = min(MEASURED_MERGES)
    if not least <= merge <= 1:
        raise ValueError(
            f"--merge {merge:g}: how many vectors are left was measured from {least:g} to 1; give your own count with "
            "--vectors-per-image"
        )
    cosines = [*MEASURED_MERGES, 1.0]
    return float(np.interp(merge, cosines, [*MEASURED_MERGES.values(), MEASURED_VECTORS])) / MEASURED_VECTORS


def table_bytes(stored: Stored) -> int:
    """Return the size of the table of images, its scalar indexes included, after `forclip compact`."""
    return round(stored.vectors * (stored.vector_bytes + _BOX_BYTES) + stored.images * _TABLE_ROW)


def segment_bytes(stored: Stored) -> int:
    """Return the size of the search segments: the vectors once more, in order, with boxes and ids; 0 for few vectors,
    which are read from the table."""
    if stored.vectors < MIN_SEGMENT_VECTORS:
        return 0
    return round(stored.vectors * (stored.vector_bytes + _BOX_BYTES) + stored.images * _SEGMENT_ROW)


def count_segments(stored: Stored, build_memory: int = DEFAULT_BUILD_MEMORY) -> int:
    """Return into how many segments the vectors go if an index may take so many bytes to build."""
    if stored.vectors < MIN_SEGMENT_VECTORS:
        return 0
    return math.ceil(stored.vectors / max_segment_vectors(build_memory, stored.dim))


def count_lists(stored: Stored, build_memory: int = DEFAULT_BUILD_MEMORY) -> int:
    """Return the most inverted lists that a segment gets."""
    in_one = min(stored.vectors, max_segment_vectors(build_memory, stored.dim))
    lists = 1 << int(math.log2(_LISTS_FACTOR * math.sqrt(in_one)))
    return max(lists, min(4 * lists, _FINER_LISTS))


def index_bytes(stored: Stored, build_memory: int = DEFAULT_BUILD_MEMORY, codes: Codes = "sq8") -> int:
    """Return the size of the approximate index: inverted lists. 0 for few vectors, which are compared.

    codes: precision of the lists. Where most lists of 8-bit codes would be searched, forclip writes codes of a quarter
    of this size instead.
    """
    if stored.vectors < MIN_INDEXED_VECTORS:
        return 0
    lists = count_segments(stored, build_memory) * count_lists(stored, build_memory)
    return stored.vectors * bytes_per_vector(codes, stored.dim) + lists * (2 * stored.dim + 8)


def disk_bytes(stored: Stored, codes: Codes = "sq8") -> int:
    """Return the size of a local store, its search files included. codes: precision of the index."""
    return table_bytes(stored) + segment_bytes(stored) + index_bytes(stored, codes=codes)


def search_memory(stored: Stored, build_memory: int = DEFAULT_BUILD_MEMORY) -> tuple[int, int]:
    """Return the bytes of memory for fast search, and those that it can't do without; the model comes on top.

    Segments and indexes are mapped files, so they need memory only to be fast: the index, or where there is none, the
    vectors. Images without a segment are in memory.
    """
    least = _PROCESS_BYTES + stored.images * _IMAGE_BYTES
    read = index_bytes(stored, build_memory) or stored.vectors * stored.vector_bytes
    if not segment_bytes(stored):
        return least + read, least + read
    return least + read, least


def milvus_bytes(stored: Stored, index: VectorIndex) -> tuple[int, int]:
    """Return the bytes of memory and of object storage that one replica of a published store takes in Milvus.

    Milvus loads the index and the columns. Its storage has the vectors and columns, and the index once more. Without
    headroom. Raises ValueError for a kind of index without a formula.
    """
    links = _UPPER_LINKS * 2 * index.build.get("M", 0) * _LINK_BYTES
    match index.kind:
        case "FLAT":
            loaded = float(stored.vector_bytes)
        case "HNSW":
            loaded = stored.vector_bytes + links
        case "HNSW_SQ":
            loaded = stored.dim + links
        case "IVF_FLAT":
            loaded = stored.vector_bytes + _ROW_NUMBER
        case "IVF_SQ8":
            loaded = float(stored.dim + _ROW_NUMBER)
        case "DISKANN":
            loaded = _DISKANN_SHARE * 4 * stored.dim
        case kind:
            raise ValueError(f"--milvus-index {kind!r}: there is a formula for FLAT, HNSW, HNSW_SQ, IVF_* and DISKANN")
    on_disk = stored.vector_bytes + _DISKANN_LINKS * _LINK_BYTES if index.kind == "DISKANN" else loaded
    columns = stored.vectors * _MILVUS_SCALARS + stored.images * _MILVUS_IMAGE
    memory = stored.vectors * loaded + columns
    return round(memory), round(columns + stored.vectors * (stored.vector_bytes + on_disk))


def need(
    place: Place,
    stored: Stored,
    *,
    build_memory: int = DEFAULT_BUILD_MEMORY,
    milvus_index: str | None = None,
    bucket_price: float = BUCKET_PRICE,
    disk_price: float = DISK_PRICE,
) -> Need:
    """Return what it takes to keep and search a store in one of the places.

    local: the store with its search files on the disk of one machine. bucket: the table in a bucket, the search files
    on the disk of a machine that searches. milvus: the table in a bucket, and published to Milvus, whose own storage is
    a bucket too. build_memory: for the search index; milvus_index: Milvus's name of a kind, None as `forclip publish`
    chooses; prices: USD per GB and month.
    """
    table, disk, segments = table_bytes(stored), 0, 0
    if place == "milvus":
        memory, storage = milvus_bytes(stored, choose_index(stored.vectors, milvus_index))
        least, bucket = memory, table + storage
    else:
        search = segment_bytes(stored) + index_bytes(stored, build_memory)
        disk, bucket = (table + search, 0) if place == "local" else (search, table)
        memory, least = search_memory(stored, build_memory)
        segments = count_segments(stored, build_memory)
    per_month = (bucket * bucket_price + disk * disk_price) / 1e9
    return Need(place, stored, disk, bucket, memory, least, segments, per_month)
