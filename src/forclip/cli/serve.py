"""Serve a store on a page: serve."""

from typing import Annotated

import typer

from forclip.cli.app import app, clear_errors
from forclip.cli.options import AnnotationsOption, Device, LabelImages, Split, StoreFolder, Subset, open_labels


@app.command()
def serve(
    store: StoreFolder,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's loopback address needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="FORCLIP_TOKEN", help="Access token that clients must send.")
    ] = None,
    annotations: AnnotationsOption = None,
    images: LabelImages = None,
    subset: Subset = None,
    split: Split = None,
    device: Device = "cpu",
) -> None:
    """Serve a page to search on, and the API behind it."""
    with clear_errors():
        from forclip.search.searcher import open_searcher
        from forclip.server.app import listen, page_link
        from forclip.server.app import serve as serve_until_stopped
        from forclip.server.security import Access

        access = Access(host, token)
        listener = listen(access, port)  # before the model, which takes a while to load
        searcher = open_searcher(store, device)
        labels = open_labels(searcher.index, annotations, images, subset, split)
        typer.echo(f"{len(searcher.index)} images: {page_link(access, port)}  (Ctrl-C stops)")
        serve_until_stopped(searcher, access, listener, labels)
