"""Vectors and boxes as rows of Milvus, and back to the codes that the store has."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forclip.index.milvus.columns import Precision
from forclip.index.milvus.server import MOST_ROWS, MilvusServer
from forclip.index.schema import Codes, StoreHeader
from forclip.index.table import StoredVectors
from forclip.types import Floats

_ROWS_AT_ONCE = MOST_ROWS // 4  # 8 MB of 512 dimensions in single precision
_LARGEST_CODE = 127


def row_name(key: int, position: int) -> str:
    """Return the primary key of an image's vector: the same whenever it is published."""
    return f"{key}-{position}"


def to_field(codes: Codes, header: StoreHeader, precision: Precision) -> NDArray[Any]:
    """Convert codes [total, dim] of a published store to values of Milvus's vector type."""
    return header.decode(codes).astype(np.float32) if precision == "fp32" else codes


def from_field(values: Sequence[Any], header: StoreHeader, precision: Precision) -> Codes:
    """Invert `to_field` for values as pymilvus returns them: lists of numbers, or bytes, alone or in a list."""
    match precision:
        case "fp32":
            # Encoding gives exactly the codes that the values were decoded from.
            return header.encode(np.array([np.asarray(value, np.float32) for value in values]))
        case "fp16" | "int8":
            of_type = np.float16 if precision == "fp16" else np.int8
            blobs = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
            codes: Codes = np.array([np.frombuffer(blob, of_type) for blob in blobs])
            return codes


def query_values(queries: Floats, precision: Precision) -> list[NDArray[Any]]:
    """Convert unit queries [Q, dim] to the type that Milvus compares with its vectors, best first as the cosine is."""
    match precision:
        case "fp32":
            return list(queries.astype(np.float32))
        case "fp16":
            return list(queries.astype(np.float16))
        case "int8":
            steps = queries * (_LARGEST_CODE / np.abs(queries).max(1, keepdims=True))
            return list(np.rint(steps).astype(np.int8))


def pack_boxes(boxes: NDArray[np.float16]) -> list[int]:
    """Pack boxes [total, 4] float16 into one whole number each."""
    packed: list[int] = np.ascontiguousarray(boxes, "<f2").view("<i8")[:, 0].tolist()
    return packed


def unpack_boxes(packed: Sequence[int]) -> NDArray[np.float16]:
    """Invert `pack_boxes`."""
    boxes: NDArray[np.float16] = np.array(packed, "<i8").view("<f2").reshape(-1, 4).astype(np.float16)
    return boxes


def read_stored(
    server: MilvusServer,
    header: StoreHeader,
    precision: Precision,
    images: Mapping[int, Mapping[str, Any]],
    **others: Any,
) -> Iterator[StoredVectors]:
    """Read the vectors of images in blocks. images: rows of `NAME_images` by key, with `vectors`, `id` and `uri`.

    An image that is deleted meanwhile is left out.
    """
    keys = list(images)
    counts = np.array([images[key]["vectors"] for key in keys], np.int64)
    blocks = np.cumsum(counts) // _ROWS_AT_ONCE if len(keys) else np.empty(0, np.int64)
    edges = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(keys)]
    for start, end in pairwise(edges):
        wanted = [(key, position) for key in keys[start:end] for position in range(images[key]["vectors"])]
        rows: dict[str, dict[str, Any]] = {}
        for first in range(0, len(wanted), MOST_ROWS):
            names = [row_name(*row) for row in wanted[first : first + MOST_ROWS]]
            fields = ["row", "vector", "box"]
            rows |= {row["row"]: row for row in server.query(server.vectors, fields, ids=names, **others)}
        of_image = {key: [rows.get(row_name(key, n)) for n in range(images[key]["vectors"])] for key in keys[start:end]}
        whole = {key: [row for row in found if row] for key, found in of_image.items() if all(found) and found}
        if whole:
            flat = [row for found in whole.values() for row in found]
            yield StoredVectors(
                np.array(list(whole), np.int64),
                from_field([row["vector"] for row in flat], header, precision),
                np.cumsum([0, *(len(found) for found in whole.values())]).astype(np.int64),
                unpack_boxes([row["box"] for row in flat]),
                pa.table({name: pa.array([images[key][name] for key in whole], pa.string()) for name in ("id", "uri")}),
            )
