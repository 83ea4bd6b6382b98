"""What a row of a store is: Arrow columns, how vectors are encoded in them, and what a store remembers of its model.

One row an image. The header is JSON in the schema's metadata, so that no table can be without it.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forclip.types import Floats, Ints

FORMAT_VERSION = 2
Precision = Literal["fp16", "int8"]
Codes = NDArray[np.float16] | NDArray[np.int8]  # [total, dim], as stored

_HEADER_KEY = b"forclip"
_CODE_TYPE = {"fp16": pa.float16(), "int8": pa.int8()}
_LARGEST_CODE = 127

OWN_COLUMNS = (
    *("number", "id", "uri", "width", "height", "content_hash", "size", "modified", "source", "added"),
    *("vectors", "boxes"),
)


@dataclass(frozen=True)
class StoreHeader:
    """What all rows share. fingerprint: of the model that wrote them; model: how to load that again, preprocessing
    included. precision: of the stored vectors; code_range: what int8's 127 stands for; merge: the cosine from which on
    an image's vectors were merged, None: never."""

    fingerprint: str
    dim: int
    model: dict[str, Any]
    precision: Precision = "fp16"
    code_range: float = 1.0
    merge: float | None = None

    def __post_init__(self) -> None:
        checked_precision(self.precision)

    def encode(self, vectors: Floats) -> Codes:
        """Unit vectors [total, dim] as they are stored: half precision, or steps of code_range / 127."""
        if self.precision == "fp16":
            return vectors.astype(np.float16)
        steps = np.rint(vectors * (_LARGEST_CODE / self.code_range))
        codes: Codes = steps.clip(-_LARGEST_CODE, _LARGEST_CODE).astype(np.int8)
        return codes

    def decode(self, codes: Codes) -> NDArray[np.float64]:
        """What the codes stand for, [total, dim]: the vectors that exact search compares."""
        decoded = codes.astype(np.float64)
        return decoded if self.precision == "fp16" else decoded * self.scale

    @property
    def scale(self) -> float:
        """What a code is to be multiplied with."""
        return 1.0 if self.precision == "fp16" else self.code_range / _LARGEST_CODE

    def schema(self) -> pa.Schema:
        """An empty store's columns; a user's own come later."""
        text, number = pa.string(), pa.int64()
        columns = {
            **{"number": number, "id": text, "uri": text, "width": pa.int32(), "height": pa.int32()},
            **{"content_hash": text, "size": number, "modified": number, "source": text},
            "added": pa.timestamp("us", "UTC"),
            "vectors": pa.list_(pa.list_(_CODE_TYPE[self.precision], self.dim)),
            "boxes": pa.list_(pa.list_(pa.float16(), 4)),
        }
        assert tuple(columns) == OWN_COLUMNS
        return pa.schema(list(columns.items()), {_HEADER_KEY: self.to_json()})

    def to_json(self) -> str:
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)})


def checked_precision(name: str) -> Precision:
    """Raises ValueError for one that is not known."""
    match name:
        case "fp16" | "int8":
            return name
    raise ValueError(f"precision must be fp16 or int8, not {name!r}")


def read_header(schema: pa.Schema, place: str) -> StoreHeader:
    """Raises ValueError, naming place, for a table that is no store or of another format version."""
    text = (schema.metadata or {}).get(_HEADER_KEY)
    if text is None:
        raise ValueError(f"{place}: a Lance table, but no forclip store")
    try:
        content = json.loads(text)
        version = content.pop("format_version")
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{place}: the store's header is damaged: {error}") from None
    if version != FORMAT_VERSION:
        raise ValueError(f"{place}: format version {version!r}; this forclip reads version {FORMAT_VERSION}")
    try:
        return StoreHeader(**content)
    except TypeError as error:
        raise ValueError(f"{place}: the store's header is damaged: {error}") from None


def nested(values: NDArray[Any], offsets: Ints) -> pa.ListArray:
    """[total, width] values and offsets [rows + 1] as one list of fixed-size lists a row."""
    inner = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), inner)


def flat(column: pa.ChunkedArray, width: int) -> tuple[NDArray[Any], Ints]:
    """The inverse of `nested`: values [total, width] and offsets [rows + 1]."""
    rows = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    starts = rows.offsets.to_numpy()
    inner = rows.values.slice(starts[0], starts[-1] - starts[0])
    return inner.flatten().to_numpy().reshape(-1, width), (starts - starts[0]).astype(np.int64)
