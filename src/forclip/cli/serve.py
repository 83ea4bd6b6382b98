"""Serve a store on a page: serve."""

from pathlib import Path
from typing import Annotated

import typer

from forclip.cli.app import app, clear_errors
from forclip.cli.options import AnnotationsOption, Device, LabelImages, Split, Subset, open_labels


@app.command()
def serve(
    store: Annotated[Path, typer.Argument(help="A store that `forclip index` wrote.")],
    host: Annotated[str, typer.Option(help="Address to listen at; another than this machine's own needs a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="FORCLIP_TOKEN", help="Who asks must have it. From FORCLIP_TOKEN too.")
    ] = None,
    annotations: AnnotationsOption = None,
    images: LabelImages = None,
    subset: Subset = None,
    split: Split = None,
    device: Device = "cpu",
) -> None:
    """A page to search on, and the API behind it."""
    with clear_errors():
        from forclip.search.searcher import open_searcher
        from forclip.server.run import link, listening
        from forclip.server.run import serve as serve_until_stopped
        from forclip.server.security import Access

        access = Access(host, token)
        listener = listening(access, port)  # before the model, which takes a while to load
        searcher = open_searcher(store, device)
        labels = open_labels(searcher.index, annotations, images, subset, split)
        typer.echo(f"{len(searcher.index)} images: {link(access, port)}  (Ctrl-C stops)")
        serve_until_stopped(searcher, access, listener, labels)
