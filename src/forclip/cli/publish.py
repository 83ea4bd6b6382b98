"""Publish a store to a search cluster, and compare both sides."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from typer import Argument, Option

from forclip.cli.app import AsJson, StoreFolder, app
from forclip.console import plain_console


@app.command()
def publish(
    store: StoreFolder,
    to: Annotated[
        str,
        Argument(
            metavar="milvus://HOST/COLLECTION",
            help="Where: milvus://HOST[:PORT]/COLLECTION, milvus+https://…, or milvus-lite://FILE.db/COLLECTION. "
            "Credentials come from FORCLIP_MILVUS_TOKEN.",
        ),
    ],
    merge: Annotated[
        float | None,
        Option(help="Merge an image's vectors from this cosine up, such as 0.9. Default: as in the store."),
    ] = None,
    max_vectors: Annotated[
        int | None, Option(min=1, help="Merge an image's most similar vectors until this many are left.")
    ] = None,
    precision: Annotated[
        str | None, Option(help="Number format on the server: fp32, fp16 or int8. Default: the store's.")
    ] = None,
    index: Annotated[
        str | None, Option(help="Milvus's index, such as FLAT, HNSW, IVF_SQ8 or DISKANN. Default: by size.")
    ] = None,
    column: Annotated[
        list[str] | None, Option(help="Metadata column to filter by. Repeat for several. Default: all.")
    ] = None,
    replace: Annotated[
        bool, Option("--replace", help="Publish from scratch: delete everything that the collection holds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a store into Milvus, for search on a cluster; run again, it sends what changed. The store is not touched."""
    from forclip.embedding.merge import make_reduce
    from forclip.index.milvus.columns import checked_precision
    from forclip.index.milvus.create import PublishOptions
    from forclip.index.milvus.publish import publish as publish_store
    from forclip.index.store import Store
    from forclip.progress import tracking

    make_reduce(merge, max_vectors)  # refuses bad numbers before anything is done
    options = PublishOptions(
        precision=None if precision is None else checked_precision(precision),
        index=index,
        columns=column,
        merge=merge,
        max_vectors=max_vectors,
        replace=replace,
    )
    with tracking(plain_console(stderr=True)) as track:
        summary = publish_store(Store(store), to, options, make_reduce, track)
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
        return
    counts = f"{summary.added} added, {summary.updated} updated, {summary.deleted} deleted"
    typer.echo(f"{counts}, {summary.unchanged} unchanged; {summary.vectors} vectors: {to}")
    if summary.too_long:
        typer.echo(f"{summary.too_long} texts of more than 65535 bytes were left out: no filter finds them")
    if summary.recall is not None:
        typer.echo(f"Recall of the best 50 images against exact search: {summary.recall:.3f}")


def verify_place(place: str) -> list[str]:
    """Return the problems of a store, or of a published one."""
    from forclip.index.image_index import Index
    from forclip.index.milvus.address import is_milvus

    if is_milvus(place):
        from forclip.index.milvus.compare import verify_published
        from forclip.index.milvus.index import MilvusIndex

        return verify_published(MilvusIndex(place))
    return Index(place).verify()


def verify_against(store: str, place: str) -> list[str]:
    """Return in what a store and its published images differ."""
    from forclip.embedding.merge import make_reduce
    from forclip.index.milvus.compare import compare_with_store
    from forclip.index.milvus.index import MilvusIndex
    from forclip.index.store import Store
    from forclip.progress import tracking

    opened = Store(store)
    index = MilvusIndex(place)
    with tracking(plain_console(stderr=True)) as track:
        return compare_with_store(index, opened, make_reduce, track("comparing", len(opened)))
