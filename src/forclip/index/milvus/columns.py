"""The columns of a published store: how their values are kept in Milvus, and the schemas of its collections.

A store is three collections. `NAME` has one row per vector, with all columns that filters may use. `NAME_images` has
one row per image: an image is published if its row is there, so that it appears and vanishes as a whole. `NAME_store`
has texts: the store's header, the settings of search, the files of the model.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa

from forclip.index.columns import to_shown
from forclip.index.filter_values import Kind, Value

Precision = Literal["fp32", "fp16", "int8"]
LONGEST_TEXT = 65_535  # bytes
MOST_FIELDS = 64
_VECTOR_TYPES: dict[Precision, str] = {"fp32": "FLOAT_VECTOR", "fp16": "FLOAT16_VECTOR", "int8": "INT8_VECTOR"}
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_LARGEST = sys.float_info.max  # stands for infinity, which Milvus refuses

_ARROW: dict[str, tuple[pa.DataType, Kind, str]] = {  # by the name of the Arrow type: kind in filters, Milvus's type
    "bool": (pa.bool_(), "boolean", "BOOL"),
    "int32": (pa.int32(), "integer", "INT64"),
    "int64": (pa.int64(), "integer", "INT64"),
    "double": (pa.float64(), "double", "DOUBLE"),
    "string": (pa.string(), "text", "VARCHAR"),
    "date32[day]": (pa.date32(), "date", "INT64"),
    "timestamp[us]": (pa.timestamp("us"), "timestamp", "INT64"),
    "timestamp[us, tz=UTC]": (pa.timestamp("us", "UTC"), "timestamp", "INT64"),
}


@dataclass(frozen=True)
class PublishedColumn:
    """A column that is in Milvus. field: its name there; type: the name of its Arrow type in the store."""

    name: str
    field: str
    type: str
    nullable: bool = True

    @property
    def arrow_type(self) -> pa.DataType:
        return _ARROW[self.type][0]

    @property
    def value(self) -> Value:
        """The column as a part of a filter, with its field in place of SQL."""
        return Value(_ARROW[self.type][1], self.field, self.name, aware=self.type.endswith("tz=UTC]"))

    def to_milvus(self, values: pa.Array | pa.ChunkedArray) -> tuple[list[Any], int]:
        """Convert values of the store; also return how many texts are too long and left out."""
        shown = to_shown(values).to_pylist()
        match self.type:
            case "date32[day]":
                return [None if v is None else v.toordinal() - _EPOCH.toordinal() for v in shown], 0
            case "timestamp[us]" | "timestamp[us, tz=UTC]":
                return [None if v is None else microseconds(v) for v in shown], 0
            case "double":
                return [None if v is None else min(max(v, -_LARGEST), _LARGEST) for v in shown], 0
            case "string":
                kept = [
                    v if v is None or len(v.encode("utf-8", "surrogatepass")) <= LONGEST_TEXT else None for v in shown
                ]
                return kept, sum(v is not None for v in shown) - sum(v is not None for v in kept)
        return shown, 0

    def from_milvus(self, value: Any) -> Any:
        """Invert `to_milvus` for one value."""
        if value is None:
            return None
        match self.type:
            case "date32[day]":
                return date.fromordinal(int(value) + _EPOCH.toordinal())
            case "timestamp[us]":
                return _EPOCH + int(value) * _MICROSECOND
            case "timestamp[us, tz=UTC]":
                return (_EPOCH + int(value) * _MICROSECOND).replace(tzinfo=UTC)
            case "double":
                return float("inf") * (1 if value > 0 else -1) if abs(value) == _LARGEST else value
        return value


def microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970, in UTC if the moment has a zone."""
    naive = moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    return (naive - _EPOCH) // _MICROSECOND


# Columns of every store. Those that only images have can't be filtered by: on each vector they would take much memory.
FILTERABLE = tuple(
    PublishedColumn(name, name, of_type, nullable=False)
    for name, of_type in (
        *(("id", "string"), ("width", "int32"), ("height", "int32"), ("size", "int64")),
        *(("modified", "int64"), ("source", "string"), ("added", "timestamp[us, tz=UTC]")),
    )
)
OF_IMAGES = tuple(
    PublishedColumn(name, name, of_type, nullable=False)
    for name, of_type in (("uri", "string"), ("content_hash", "string"), ("decoding", "int32"))
)


def checked_precision(name: str) -> Precision:
    """Return a known precision, or raise ValueError."""
    match name:
        case "fp32" | "fp16" | "int8":
            return name
    raise ValueError(f"precision must be fp32, fp16 or int8, not {name!r}")


def published_columns(types: Mapping[str, pa.DataType], chosen: Sequence[str] | None) -> list[PublishedColumn]:
    """Return the columns of a user to publish. types: Arrow types by name; chosen: names, None for all.

    Raises ValueError for an unknown name, and for more columns than a collection holds.
    """
    names = list(types) if chosen is None else list(dict.fromkeys(chosen))
    if unknown := [name for name in names if name not in types]:
        raise ValueError(f"there is no column {unknown[0]!r}; the columns are {', '.join(types) or 'none'}")
    most = MOST_FIELDS - len(FILTERABLE) - len(OF_IMAGES) - 6
    if len(names) > most:
        raise ValueError(
            f"a collection holds {most} columns, not {len(names)}: name the ones to filter by, such as "
            f"--column {names[0]!r}"
        )
    columns = []
    for number, name in enumerate(names):
        stored = str(to_shown(pa.array([], types[name])).type)
        columns.append(PublishedColumn(name, f"c{number}", stored if stored in _ARROW else "string"))
    return columns


def vectors_schema(columns: Sequence[PublishedColumn], dim: int, precision: Precision) -> Any:
    """Return the schema of the collection of vectors."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("image", DataType.INT64)
    schema.add_field("box", DataType.INT64)
    schema.add_field("vector", DataType[_VECTOR_TYPES[precision]], dim=dim)
    _add_columns(schema, [*FILTERABLE, *columns])
    return schema


def images_schema(columns: Sequence[PublishedColumn]) -> Any:
    """Return the schema of the collection of images. Milvus demands a vector in every collection."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("image", DataType.INT64, is_primary=True)
    schema.add_field("vectors", DataType.INT64)
    schema.add_field("digest", DataType.INT64)
    schema.add_field("draw", DataType.INT64)
    schema.add_field("unused", DataType.FLOAT_VECTOR, dim=2)
    _add_columns(schema, [*FILTERABLE, *OF_IMAGES, *columns])
    return schema


def texts_schema() -> Any:
    """Return the schema of the collection of texts."""
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("name", DataType.VARCHAR, is_primary=True, max_length=1024)
    schema.add_field("text", DataType.VARCHAR, max_length=LONGEST_TEXT)
    schema.add_field("unused", DataType.FLOAT_VECTOR, dim=2)
    return schema


def field_type(column: PublishedColumn) -> Any:
    """Return Milvus's type of a column."""
    from pymilvus import DataType

    return DataType[_ARROW[column.type][2]]


def _add_columns(schema: Any, columns: Sequence[PublishedColumn]) -> None:
    for column in columns:
        length = {"max_length": LONGEST_TEXT} if column.type == "string" else {}
        schema.add_field(column.field, field_type(column), nullable=column.nullable, **length)
