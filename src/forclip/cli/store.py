"""Fill and look after a store: index, delete, compact, verify, info."""

import json
from pathlib import Path
from typing import Annotated

import typer

from forclip.cli.app import app, clear_errors
from forclip.cli.options import AsJson, Device, Pretrained


@app.command()
def index(
    source: Annotated[
        str, typer.Argument(help="A folder of pictures, a pattern such as 'photos/**/*.jpg', or a file of annotations.")
    ],
    to: Annotated[Path, typer.Option(help="The store: a new folder, or one that this model wrote.")],
    model: Annotated[
        str | None,
        typer.Option(help="A run's folder, forclip-mini (the default), an open_clip name, local-dir:PATH."),
    ] = None,
    pretrained: Pretrained = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels a side; the model's own without it.")] = None,
    head: Annotated[
        str | None, typer.Option(help="For a pretrained model: sum (the default), global, dense or cluster_K.")
    ] = None,
    num_query_tokens: Annotated[
        int | None, typer.Option(min=1, help="Vectors per image with the head `sum`; 25 without it.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of an annotation file's pictures.")] = None,
    metadata: Annotated[
        Path | None, typer.Option(help="CSV or Parquet: a column `image`, and others to filter by with --where.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of a new store's vectors: fp16 (the default), or int8 at half the size.")
    ] = None,
    merge: Annotated[
        float | None, typer.Option(help="Merge vectors of an image from this cosine on, such as 0.95.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try pictures again that could not be read before.")] = False,
    delete_vanished: Annotated[
        bool, typer.Option("--delete-vanished", help="Take pictures out that are not in the source any more.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that decode; 0: threads. Without it: processes beside a GPU.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Embed pictures and add them to a store: new ones and changed ones; unreadable ones are listed."""
    with clear_errors():
        from rich.console import Console

        from forclip.config import ModelConfig
        from forclip.data.metadata import read_metadata
        from forclip.embedding.ingest import IndexJob, StoreOptions, decoding_processes, index_images
        from forclip.index.schema import checked_precision

        table = None if metadata is None else read_metadata(metadata)
        processes = decoding_processes(device) if workers is None else workers
        job = IndexJob(source, images, table, retry, delete_vanished, processes)
        if model is None and (pretrained or image_size):
            raise ValueError("--pretrained and --image-size are of a --model")
        config = None if model is None else ModelConfig(name=model, pretrained=pretrained, image_size=image_size)
        bits = None if precision is None else checked_precision(precision)
        options = StoreOptions(config, head, num_query_tokens, bits, merge)
        index_images(job, to, options, device, Console())


@app.command()
def delete(
    store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")],
    where: Annotated[str | None, typer.Option(help="SQL over the store's columns: which images to take out.")] = None,
    ids: Annotated[Path | None, typer.Option(help="A file of image ids, one a line.")] = None,
) -> None:
    """Take images out of a store. The picture files stay where they are."""
    with clear_errors():
        from forclip.config import read_names
        from forclip.index.image_index import Index

        if (where is None) == (ids is None):
            raise ValueError("give either --where or --ids")
        opened = Index(store)
        count = opened.delete(where) if where is not None else opened.delete_ids(read_names(ids)) if ids else 0
        typer.echo(f"{count} deleted, {len(opened)} left: {store}")


@app.command()
def compact(
    store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")],
    kind: Annotated[
        str | None,
        typer.Option("--index", help="FAISS' name of an index, such as RaBitQ, or none; by size without it."),
    ] = None,
) -> None:
    """Give back the room of deleted images and old versions, and bring the search index in step."""
    with clear_errors():
        from forclip.index.image_index import Index

        opened = Index(store)
        opened.compact(kind)
        found = opened.info()
        typer.echo(f"{found['images']} images, {(found['table_bytes'] + found['search_bytes']) / 1e6:.0f} MB: {store}")


@app.command()
def verify(store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")]) -> None:
    """Read all of a store and say what is wrong with it; exit code 1 if anything is."""
    with clear_errors():
        from forclip.index.image_index import Index

        problems = Index(store).verify()
        for problem in problems:
            typer.echo(problem)
        typer.echo(f"{store}: " + (f"{len(problems)} problems" if problems else "sound"))
        if problems:
            raise typer.Exit(1)


@app.command()
def info(
    place: Annotated[Path, typer.Argument(help="A store or a run.")],
    as_json: AsJson = False,
) -> None:
    """What a store or a run holds."""
    with clear_errors():
        from forclip.embedding.ingest import describe

        described = describe(place)
        if as_json:
            typer.echo(json.dumps(described))
        else:
            for key, value in described.items():
                lines = value if isinstance(value, list) and value else [value]
                for line in lines:
                    told = ", ".join(f"{k} {v}" for k, v in line.items()) if isinstance(line, dict) else line
                    typer.echo(f"{key:20s} {told}")
