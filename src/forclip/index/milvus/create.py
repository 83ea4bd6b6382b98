"""Make the collections of a published store, and tell whether existing ones suit a store."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import lance

from forclip.index.milvus.catalogue import file_digest
from forclip.index.milvus.columns import (
    Precision,
    PublishedColumn,
    field_type,
    images_schema,
    published_columns,
    texts_schema,
    vectors_schema,
)
from forclip.index.milvus.recall import choose_index
from forclip.index.milvus.server import MilvusServer
from forclip.index.milvus.settings import SETTINGS, PublishSettings, SearchSettings, VectorIndex
from forclip.index.milvus.source import code_range, column_types, expected_vectors
from forclip.index.schema import StoreHeader
from forclip.index.store import Store


@dataclass(frozen=True)
class PublishOptions:
    """How a store is published. None stands for what the collection has, or for a new one: the store's own precision
    and vectors, all columns, and an index that suits the size.

    index: Milvus's name of its type; merge, max_vectors: as in StoreHeader; replace: drop a collection that holds other
    images, or was published in another way.
    """

    precision: Precision | None = None
    index: str | None = None
    columns: Sequence[str] | None = None
    merge: float | None = None
    max_vectors: int | None = None
    replace: bool = False


def create(server: MilvusServer, store: Store, table: lance.LanceDataset, options: PublishOptions) -> None:
    """Make the collections. The settings are written last: without them nothing is published."""
    precision = options.precision or ("fp32" if server.is_lite else store.header.precision)
    if server.is_lite and precision != "fp32":
        raise ValueError(f"{server.address}: Milvus Lite keeps vectors as fp32 only, not as {precision}")
    columns = published_columns(column_types(table), options.columns)
    index = choose_index(expected_vectors(table), options.index)
    drop(server)
    _create_collections(server, columns, store.header.dim, precision, index)
    server.load()
    files, model = _write_model(server, store)
    header = _published_header(store, table, precision, options)
    settings = PublishSettings(
        header=header,
        precision=precision,
        columns=tuple(columns),
        all_columns=options.columns is None,
        index=index,
        search=SearchSettings(),
        store=str(store.folder),
        files=files,
        model=model,
    )
    server.write_texts({SETTINGS: settings.to_json()})


def drop(server: MilvusServer) -> None:
    """Remove the collections, the settings first."""
    server.forget()
    with server.errors():
        for name in (server.texts, server.images, server.vectors):
            server.client.drop_collection(name)


def difference(settings: PublishSettings, store: Store, options: PublishOptions) -> str | None:
    """Say in what a collection differs from what is asked for, None if in nothing."""
    header = settings.header
    if header.fingerprint != store.header.fingerprint:
        return f"was published from a store of another model ({header.model.get('name')!r})"
    names = None if settings.all_columns else _names(column.name for column in settings.columns)
    wanted: list[tuple[str, object, object]] = [
        ("precision", settings.precision, options.precision),
        ("index", settings.index.kind, options.index),
        ("merge", header.merge, options.merge),
        ("max-vectors", header.max_vectors, options.max_vectors),
        ("column", names, None if options.columns is None else _names(options.columns)),
    ]
    for name, has, asked in wanted:
        if asked is not None and has != asked:
            return f"was published {f'with --{name} {has}' if has is not None else f'without --{name}'}, not {asked}"
    return None


def _names(columns: Iterable[str]) -> str:
    """Columns in any order, each once."""
    return ", ".join(sorted(set(columns)))


def with_new_columns(server: MilvusServer, settings: PublishSettings, table: lance.LanceDataset) -> PublishSettings:
    """Add the columns that a store has got since it was published. Raises ValueError where the server can't."""
    known = {column.name: column for column in settings.columns}
    types = column_types(table)
    if missing := [name for name in known if name not in types]:
        raise ValueError(
            f"{server.address}: column {missing[0]!r} is published, and the store has none; --replace publishes the "
            "store from scratch"
        )
    for column in published_columns(types, list(known)):
        if column.type != known[column.name].type:
            was = known[column.name].type
            raise ValueError(
                f"{server.address}: column {column.name!r} was published as {was} and is {column.type} now; --replace "
                "publishes the store from scratch"
            )
    if not settings.all_columns:
        return settings
    columns = list(settings.columns)
    for column in published_columns(types, [name for name in types if name not in known]):
        added = replace(column, field=f"c{len(columns)}")
        _add_column(server, added)
        columns.append(added)
    return replace(settings, columns=tuple(columns))


def _add_column(server: MilvusServer, column: PublishedColumn) -> None:
    length = {"max_length": 65_535} if column.type == "string" else {}
    for collection in (server.vectors, server.images):
        with server.errors():
            described = server.client.describe_collection(collection)
        if any(field["name"] == column.field for field in described["fields"]):
            continue  # added by a run that was killed
        try:
            with server.errors():
                server.client.add_collection_field(
                    collection, column.field, field_type(column), nullable=True, **length
                )
        except ValueError as error:
            raise ValueError(
                f"{server.address}: the server can't add the column {column.name!r}; "
                f"--replace publishes from scratch ({error})"
            ) from None


def _create_collections(
    server: MilvusServer, columns: Sequence[PublishedColumn], dim: int, precision: Precision, index: VectorIndex
) -> None:
    with server.errors():
        client = server.client
        schemas = {
            server.texts: (texts_schema(), ()),
            server.images: (images_schema(columns), ("id", "draw")),
            server.vectors: (vectors_schema(columns, dim, precision), ("image",)),
        }
        for name, (schema, looked_up) in schemas.items():
            params = client.prepare_index_params()
            if name == server.vectors:
                # `params` twice: pymilvus unpacks the outer ones, Milvus Lite reads only the inner ones.
                build = {"params": dict(index.build)}
                params.add_index("vector", index_type=index.kind, metric_type="IP", params=build)
            else:
                params.add_index("unused", index_type="FLAT", metric_type="L2")
            for field in looked_up:
                params.add_index(field, index_type="INVERTED")
            client.create_collection(name, schema=schema)
            client.create_index(name, params, sync=False)  # there is nothing to wait for: it is empty


def _write_model(server: MilvusServer, store: Store) -> tuple[dict[str, int], str]:
    """Store the files of the store's model. Returns the parts of each, and what identifies them all."""
    files, digest, folder = dict[str, int](), blake2b(digest_size=16), store.model_folder
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        content = file.read_bytes()
        files[file.name] = server.write_file(file.name, content)
        digest.update(file_digest(file.name, content))
    return files, digest.hexdigest() if files else ""


def _published_header(
    store: Store, table: lance.LanceDataset, precision: Precision, options: PublishOptions
) -> StoreHeader:
    header = store.header
    merge = header.merge if options.merge is None else options.merge
    most = header.max_vectors if options.max_vectors is None else options.max_vectors
    header = replace(header, merge=merge, max_vectors=most)
    if precision == "fp32" or precision == store.header.precision:
        return header
    return replace(header, precision=precision, code_range=code_range(table, store.header))
