"""Run the page: serve, quickstart."""

import os
import shlex
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from forclip.cli.app import Compute, Device, Moved, MovedWeights, StorePlace, app, moved_model
from forclip.cli.search import LabelFile, LabelImages, Split, Subset, open_labels, report_outdated
from forclip.console import plain_console

if TYPE_CHECKING:
    from forclip.embedding.ingest import IndexSummary

Host = Annotated[str, Option(help="Address to listen on. Any but this machine's loopback address needs a token.")]
Port = Annotated[int, Option(min=1, max=65535, help="Port to listen on.")]
Token = Annotated[str | None, Option(envvar="FORCLIP_TOKEN", help="Access token that clients must send.")]


@app.command()
def quickstart(
    photos: Annotated[str, Argument(help="Folder of pictures and videos.")],
    to: Annotated[
        Path | None, Option(help="Store to fill. Default: beside the folder, with .store at its end.")
    ] = None,
    model: Annotated[
        str | None, Option(help="Model of a new store: a run, a model folder or a name of `forclip models`.")
    ] = None,
    pretrained: Annotated[
        str | None, Option(help="An architecture's weights: open_clip tag, file, or random. Needs --model.")
    ] = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    browse: Annotated[bool, Option("--open/--no-open", help="Open the page in the browser, if there is one.")] = True,
    device: Device = "cpu",
    compute: Compute = "auto",
) -> None:
    """Index a folder and open the page to search it: images are found while others are still being indexed.

    Stopped and run again, it continues, and adds what is new.
    """
    from forclip.config import checked_compute
    from forclip.progress import tracking
    from forclip.server.app import listen, page_link, serve
    from forclip.server.quickstart import default_store, index_in_background, prepare_store
    from forclip.server.security import Access

    access = Access(host, token)
    store = default_store(photos) if to is None else to
    listener = listen(access, port)  # before the model, which takes a while to load
    choice = checked_compute(compute)
    searcher = prepare_store(photos, store, moved_model(model, pretrained), device, choice)
    link = page_link(access, port)

    def show_end(ended: "IndexSummary | str") -> None:
        if isinstance(ended, str):
            typer.echo(f"forclip: {ended}", err=True)
            return
        counts = f"{ended.added} added, {ended.updated} updated, {ended.unchanged} unchanged"
        typer.echo(f"{counts}, {len(ended.unreadable)} could not be read: {store}")
        typer.echo(f"The page: {link}  (Ctrl-C stops; `forclip serve {shlex.quote(str(store))}` opens it again)")

    typer.echo(f"Indexing {photos} into {store}\nThe page: {link}  (Ctrl-C stops; run the command again to continue)")
    with tracking(plain_console(stderr=True)) as track:
        indexing = index_in_background(photos, store, searcher, device, choice, track, show_end)
        try:
            serve(searcher, access, listener, indexing=indexing, started=lambda: open_page(link) if browse else None)
        finally:
            if indexing.is_running():  # images that are not stored yet are embedded again by the next run
                typer.echo("forclip: interrupted", err=True)
                sys.stdout.flush()
                os._exit(130)


@app.command()
def serve(
    store: StorePlace,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    token: Token = None,
    annotations: LabelFile = None,
    images: LabelImages = None,
    subset: Subset = None,
    split: Split = None,
    model: Moved = None,
    pretrained: MovedWeights = None,
    device: Device = "cpu",
    compute: Compute = "auto",
    picture_cache: Annotated[
        int, Option(min=0, help="Megabytes of pictures from buckets and shards that are kept in memory.")
    ] = 256,
    workers: Annotated[
        int, Option(min=1, max=64, help="Processes that answer requests; each uses about one core when it is busy.")
    ] = 1,
) -> None:
    """Serve a page to search on, and the API behind it."""
    from forclip.config import checked_compute
    from forclip.search.searcher import open_searcher
    from forclip.server.app import page_link
    from forclip.server.app import serve as serve_until_stopped
    from forclip.server.security import Access
    from forclip.server.workers import Served, listen_for_workers, serve_by_workers

    access = Access(host, token)
    listeners = listen_for_workers(access, port, workers)  # before the model, which takes a while to load
    moved = moved_model(model, pretrained)
    choice = checked_compute(compute)
    searcher = open_searcher(store, device, moved, choice)
    report_outdated(searcher.index)
    labels = open_labels(searcher.index, annotations, images, subset, split)
    typer.echo(f"{len(searcher.index)} images: {page_link(access, port)}  (Ctrl-C stops)")
    cache = picture_cache * 1_000_000
    if workers == 1:
        serve_until_stopped(searcher, access, listeners[0], labels, cache)
    else:
        serve_by_workers(Served(store, device, moved, access, labels, cache // workers, choice), searcher, listeners)


def open_page(link: str) -> None:
    """Open a page in the browser of a desktop. A browser in the terminal would hide the progress."""
    if sys.platform in ("darwin", "win32") or any(name in os.environ for name in ("DISPLAY", "WAYLAND_DISPLAY")):
        webbrowser.open(link)
