"""Add, widen and repair the users' columns of a store's Lance table."""

from collections.abc import Callable, Mapping

import lance
import pyarrow as pa

from forclip.bucket_path import StorePath
from forclip.index.columns import (
    NEW_SUFFIX,
    OLD_SUFFIX,
    cast_exactly,
    is_readable,
    is_stored_as_is,
    kind_of,
    name_problem,
    stored_type,
    to_shown,
    usable_name,
    wider_type,
)
from forclip.index.schema import BUILT_IN_COLUMNS


def make_columns(table: StorePath, types: Mapping[str, pa.DataType]) -> None:
    """Add columns for values of these types, and widen columns whose type can't hold them.

    All names, types and stored values are checked before the table changes. Raises ValueError for a name that a column
    can't have, and for values that neither the column nor a wider type holds. A column of no values is not made.
    """
    dataset = _finish_changes(table)
    if bad := [name for name in dataset.schema.names if not is_readable(name)]:
        raise ValueError(f"column {bad[0]!r} makes every change fail; `forclip compact` repairs it")
    stored: dict[str, pa.DataType] = {f.name: f.type for f in dataset.schema}
    added: dict[str, pa.DataType] = {}
    widened: dict[str, pa.DataType] = {}
    for name, new in types.items():
        if name in BUILT_IN_COLUMNS or name not in stored:
            if problem := name_problem(name, [n for n in (*stored, *added) if n not in BUILT_IN_COLUMNS]):
                raise ValueError(f"a column can't be named {name!r}: {problem}")
            if not pa.types.is_null(new):
                added[name] = stored_type(new)
        elif (wider := wider_type(stored[name], new)) is None:
            raise ValueError(f"column {name!r} holds {kind_of(stored[name])}, not {kind_of(new)}")
        elif wider != stored[name]:
            widened[name] = wider
            try:
                cast_exactly(dataset.to_table([name])[name], wider)
            except ValueError as error:
                raise ValueError(f"column {name!r} holds {kind_of(stored[name])}: {error}") from None
    for name, wider in widened.items():
        _replace(table, name, wider, lambda values, wider=wider: cast_exactly(values, wider))  # type: ignore[misc]
    if added:
        lance.dataset(str(table)).add_columns(pa.schema(added))


def column_problems(schema: pa.Schema) -> list[str]:
    """Describe the columns that `repair_columns` repairs, one sentence each."""
    problems = []
    for name, of_type in zip(schema.names, schema.types, strict=True):
        if not is_readable(name):
            problems.append(f"column {name!r} can't be read, and no image can be added; `forclip compact` repairs it")
        elif name not in BUILT_IN_COLUMNS and not is_stored_as_is(of_type):
            problems.append(f"column {name!r} holds {of_type}, which can't be shown; `forclip compact` converts it")
    return problems


def repair_columns(table: StorePath) -> None:
    """Give columns that older versions of forclip made a name and a type that work. Empty ones without are dropped."""
    dataset = _finish_changes(table)
    if bad := [name for name in dataset.schema.names if not is_readable(name)]:
        dataset = _rename(table, dataset, bad)
    for field in dataset.schema:
        if field.name not in BUILT_IN_COLUMNS and not is_stored_as_is(field.type):
            shown = to_shown(dataset.to_table([field.name])[field.name])  # the values decide the type
            _replace(table, field.name, shown.type, to_shown)


def _rename(table: StorePath, dataset: lance.LanceDataset, bad: list[str]) -> lance.LanceDataset:
    """Rename columns by position, because Lance does not find them by these names; drop those without values."""
    schema: pa.Schema = dataset.schema
    in_order = lance.schema.LanceSchema.from_pyarrow(schema)
    if [f.id() for f in in_order.fields()] != [f.id() for f in dataset.lance_schema.fields()]:
        return _rewrite_without(table, dataset, bad)
    names = list(schema.names)
    for name in bad:
        names[names.index(name)] = usable_name(name or "unnamed", names)
    renamed = pa.schema([f.with_name(n) for f, n in zip(schema, names, strict=True)], schema.metadata)
    operation = lance.LanceOperation.Project(lance.schema.LanceSchema.from_pyarrow(renamed))
    dataset = lance.LanceDataset.commit(str(table), operation, read_version=dataset.version)
    new = [n for n in names if n not in schema.names]
    empty = [n for n in new if dataset.count_rows(f"`{n}` IS NOT NULL") == 0]
    if empty:
        dataset.drop_columns(empty)
    return lance.dataset(str(table))


def _rewrite_without(table: StorePath, dataset: lance.LanceDataset, bad: list[str]) -> lance.LanceDataset:
    """Write the table again without columns, where columns that were dropped leave no order to go by."""
    kept = pa.schema([f for f in dataset.schema if f.name not in bad], dataset.schema.metadata)
    reader = dataset.scanner(columns=kept.names).to_reader()
    return lance.write_dataset(reader, str(table), schema=kept, mode="overwrite")


def _replace(
    table: StorePath, name: str, new: pa.DataType, convert: Callable[[pa.ChunkedArray], pa.Array | pa.ChunkedArray]
) -> None:
    """Give a column another type, in one step for readers. A kill leaves a column that `_finish_changes` drops."""
    dataset, temporary = lance.dataset(str(table)), name + NEW_SUFFIX

    def convert_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays([convert(batch[name]).cast(new)], [temporary])

    dataset.add_columns(lance.batch_udf(pa.schema({temporary: new}))(convert_batch), read_columns=[name])
    dataset = lance.dataset(str(table))
    dataset.alter_columns({"path": name, "name": name + OLD_SUFFIX}, {"path": temporary, "name": name})
    lance.dataset(str(table)).drop_columns([name + OLD_SUFFIX])


def _finish_changes(table: StorePath) -> lance.LanceDataset:
    """Drop what a killed change left, and open the table."""
    dataset = lance.dataset(str(table))
    left = [name for name in dataset.schema.names if name.endswith((OLD_SUFFIX, NEW_SUFFIX))]
    if left:
        dataset.drop_columns(left)
        dataset = lance.dataset(str(table))
    return dataset
