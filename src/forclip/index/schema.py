"""The columns of a store's Arrow table, one row per image, and the header that its schema carries."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from forclip.types import Floats, Ints

FORMAT_VERSION, MIGRATED_VERSION = 3, 2
Precision = Literal["fp16", "int8"]
Codes = NDArray[np.float16] | NDArray[np.int8]  # [total, dim], as stored

HEADER_KEY = "forclip"
# With it, Lance finds out that two writers insert the same id at the same time. It needs a column without nulls.
PRIMARY_KEY = {"lance-schema:unenforced-primary-key": "true"}
_CODE_TYPE = {"fp16": pa.float16(), "int8": pa.int8()}
_LARGEST_CODE = 127

_FILE_COLUMNS = {
    **{"number": pa.int64(), "id": pa.string(), "uri": pa.string(), "width": pa.int32(), "height": pa.int32()},
    **{"content_hash": pa.string(), "size": pa.int64(), "modified": pa.int64(), "source": pa.string()},
    "decoding": pa.int8(),
    "added": pa.timestamp("us", "UTC"),
}
BUILT_IN_COLUMNS = (*_FILE_COLUMNS, "vectors", "boxes")
DESCRIBED_COLUMNS = ("width", "height", "size", "added", "uri")  # of use in filters
HIDDEN_COLUMNS = ("number", "decoding", "vectors", "boxes")  # no filter may use them


@dataclass(frozen=True)
class StoreHeader:
    """What all images of a store share. It is JSON in the table's metadata, so no table can be without it.

    fingerprint: identifies the model that wrote the vectors, weights included; dim: dimensions of a vector; model: how
    to load its backbone again (name, pretrained, image_size, resize_mode), its tiles, its head and num_query_tokens;
    the head of a trained run is in the store's folder `model`; precision: of stored vectors, "fp16" (2 bytes per
    number) or "int8" (1 byte); code_range: the value that the int8 code 127 stands for, larger ones are clipped; merge:
    the cosine from which an image's vectors were merged, None if they were not; max_vectors: the largest number of
    vectors of an image, to which more were merged, None for any number; roots: as `forclip.index.roots.to_json` writes
    them; compute: the number formats that the model computed in when it wrote, the first one when the store was made;
    stores of earlier versions are float32's.

    Raises ValueError for an unknown precision.
    """

    fingerprint: str
    dim: int
    model: dict[str, Any]
    precision: Precision = "fp16"
    code_range: float = 1.0
    merge: float | None = None
    max_vectors: int | None = None
    roots: dict[str, dict[str, str]] = field(default_factory=dict)
    compute: list[str] = field(default_factory=lambda: ["float32"])

    def __post_init__(self) -> None:
        checked_precision(self.precision)

    def encode(self, vectors: Floats) -> Codes:
        """Encode unit vectors [total, dim] as half precision, or as integer multiples of code_range / 127."""
        if self.precision == "fp16":
            return vectors.astype(np.float16)
        steps = np.rint(vectors * (_LARGEST_CODE / self.code_range))
        codes: Codes = steps.clip(-_LARGEST_CODE, _LARGEST_CODE).astype(np.int8)
        return codes

    def decode(self, codes: Codes) -> NDArray[np.float64]:
        """Decode to [total, dim]. Exact search compares these values; their length is 1 up to rounding."""
        decoded = codes.astype(np.float64)
        return decoded if self.precision == "fp16" else decoded * self.scale

    @property
    def scale(self) -> float:
        """The factor from a code to its value."""
        return 1.0 if self.precision == "fp16" else self.code_range / _LARGEST_CODE

    def schema(self) -> pa.Schema:
        """Return the schema of an empty store. Users' metadata columns are added later."""
        vectors = pa.list_(pa.list_(_CODE_TYPE[self.precision], self.dim))
        columns = {**_FILE_COLUMNS, "vectors": vectors, "boxes": pa.list_(pa.list_(pa.float16(), 4))}
        schema = pa.schema(list(columns.items()), {HEADER_KEY: self.to_json()})
        return schema.set(schema.get_field_index("id"), pa.field("id", pa.string(), False, PRIMARY_KEY))

    def to_json(self) -> str:
        """The header as JSON, which `read_header` reads."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)})

    def identity(self) -> str:
        """Identify what cannot change: the model and how vectors are stored."""
        parts = [self.fingerprint, self.dim, self.precision, self.code_range, self.merge]
        # Without a limit it is the identity that stores of earlier versions wrote into their segments.
        return json.dumps(parts if self.max_vectors is None else [*parts, self.max_vectors])


def checked_precision(name: str) -> Precision:
    """Return a known precision, or raise ValueError."""
    match name:
        case "fp16" | "int8":
            return name
    raise ValueError(f"precision must be fp16 or int8, not {name!r}")


def read_header(schema: pa.Schema, path: str) -> StoreHeader:
    """Read a table's header. Raises ValueError, naming the path, for another kind of table or format version."""
    text = (schema.metadata or {}).get(HEADER_KEY.encode())
    if text is None:
        raise ValueError(f"{path}: a Lance table, but no forclip store")
    try:
        content = json.loads(text)
        version = content.pop("format_version")
        if version == FORMAT_VERSION:
            return StoreHeader(**content)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: the store's header is damaged: {error}") from None
    if version == MIGRATED_VERSION:
        raise ValueError(f"{path}: format version {version}; `forclip compact {path}` converts it, losing nothing")
    raise ValueError(f"{path}: format version {version!r}; this forclip reads version {FORMAT_VERSION}")


def to_lists(values: NDArray[Any], offsets: Ints) -> pa.ListArray:
    """Convert values [total, width] and offsets [rows + 1] to one list of fixed-size lists per row."""
    inner = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), inner)


def from_lists(column: pa.ChunkedArray, width: int) -> tuple[NDArray[Any], Ints]:
    """Invert `to_lists`: return values [total, width] and offsets [rows + 1]."""
    rows = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    starts = rows.offsets.to_numpy()
    inner = rows.values.slice(starts[0], starts[-1] - starts[0])
    return inner.flatten().to_numpy().reshape(-1, width), (starts - starts[0]).astype(np.int64)
