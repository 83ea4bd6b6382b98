"""Fill and maintain a store: index, delete, duplicates, compact, relocate, verify."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text
from typer import Argument, Option

from forclip.cli.app import (
    AsJson,
    Compute,
    Device,
    Moved,
    MovedWeights,
    StoreFolder,
    StorePlace,
    app,
    moved_model,
    outdated_message,
)
from forclip.console import plain_console, print_table

_MAX_LISTED = 20  # images that a dry run lists
_MAX_REASONS = 20  # unreadable images whose reason is printed


Memory = Annotated[
    str | None,
    Option(metavar="SIZE", help="Memory for building the search index, such as 4GB. Default: half of what is free."),
]


@app.command()
def index(
    source: Annotated[
        str,
        Argument(
            help="Folder of images and videos, URL such as s3://bucket/photos, tar or parquet shards, pattern such as "
            "'photos/**/*.jpg', picture, video, or annotation file."
        ),
    ],
    to: Annotated[
        str, Option(help="Store to create, or to update if the same model wrote it: a folder, or s3://bucket/store.")
    ],
    model: Annotated[
        str | None,
        Option(help="Run folder, model folder, a name of `forclip models`, or open_clip's. Default: clip-b16."),
    ] = None,
    pretrained: Annotated[str | None, Option(help="An architecture's weights: open_clip tag, file, or random.")] = None,
    image_size: Annotated[
        str | None,
        Option(
            metavar="PIXELS|ROWSxCOLUMNS",
            help="Size of the model's input: 336, or 288x512 for 16:9 pictures. Default: the model's own.",
        ),
    ] = None,
    head: Annotated[str | None, Option(help="Untrained head: sum (default), global, dense or cluster_K.")] = None,
    num_query_tokens: Annotated[int | None, Option(min=1, help="Vectors per image with head sum. Default: 25.")] = None,
    images: Annotated[Path | None, Option(help="Image folder of an annotation file.")] = None,
    metadata: Annotated[
        Path | None,
        Option(help="CSV, Parquet or JSON lines file: a column `image`, and others to filter by with --where."),
    ] = None,
    precision: Annotated[str | None, Option(help="Number format of a new store: fp16 (default) or int8.")] = None,
    merge: Annotated[float | None, Option(help="Merge an image's vectors from this cosine up, such as 0.95.")] = None,
    max_vectors: Annotated[
        int | None, Option(min=1, help="Merge an image's most similar vectors until this many are left.")
    ] = None,
    tiles: Annotated[
        str | None,
        Option(
            help="Also embed overlapping tiles of each image, for small objects: 3x3, 2x2, none, or auto, by the "
            "pictures' size. Default: the model's own, or none."
        ),
    ] = None,
    tile_overlap: Annotated[
        float | None, Option(min=0, max=0.9, help="Part of a tile that it shares with its neighbour. Default: 0.5.")
    ] = None,
    every: Annotated[
        str | None, Option(help="Time between the frames of a video, such as 0.5s, 500ms or 2min. Default: 1s.")
    ] = None,
    retry: Annotated[bool, Option("--retry", help="Try unreadable images again.")] = False,
    delete_vanished: Annotated[bool, Option("--delete-vanished", help="Remove images that left the source.")] = False,
    workers: Annotated[
        int | None,
        Option(
            min=0,
            help="Processes. On a CPU all embed; on GPUs one for each embeds, and the others decode. Default: one that "
            "embeds; with --engine ray as many as there is room for.",
        ),
    ] = None,
    engine: Annotated[str, Option(help="What runs workers: local, or ray for a cluster.")] = "local",
    address: Annotated[
        str | None, Option(help="Ray cluster: auto, or ray://HOST:10001. Default: RAY_ADDRESS, or this machine.")
    ] = None,
    max_workers: Annotated[
        int | None, Option(min=1, help="With Ray: start up to this many workers while the cluster finds room.")
    ] = None,
    cpus_per_worker: Annotated[int | None, Option(min=1, help="With Ray: CPUs of each worker.")] = None,
    shard: Annotated[
        str | None,
        Option(
            metavar="I/N", help="Index only part I of N, counted from 0, as one of N jobs that write the same store."
        ),
    ] = None,
    images_per_commit: Annotated[
        int | None,
        Option(min=1, help="Images that are stored at once. Default: 1,024, with several workers 16,384."),
    ] = None,
    memory: Memory = None,
    device: Device = "cpu",
    compute: Compute = "auto",
    compiled: Annotated[bool, Option("--compile", help="Run the image tower through torch.compile.")] = False,
    batch_size: Annotated[
        int | None,
        Option(min=1, help="Images at once on a GPU (default: as many as fit, up to 256), or on each core of a CPU."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Embed images and frames of videos: adds new ones to a store, updates changed ones and lists unreadable ones."""
    from forclip.bucket_path import store_path
    from forclip.config import ModelConfig, checked_compute
    from forclip.data.images.frame_location import parse_interval
    from forclip.data.images.listing import describe_left_out
    from forclip.data.metadata import read_metadata
    from forclip.embedding.ingest import index_images
    from forclip.embedding.run_options import RunOptions, checked_engine
    from forclip.embedding.shard import parse_shard
    from forclip.embedding.skipped_list import SKIPPED_FILE
    from forclip.image_size import parse_image_size
    from forclip.index.schema import checked_precision
    from forclip.progress import tracking

    if model is None and (pretrained or image_size):
        raise ValueError("--pretrained and --image-size need --model")
    size = parse_image_size(image_size)
    console = plain_console(stderr=as_json)
    with tracking(console) as track:
        summary = index_images(
            source,
            to,
            model=None if model is None else ModelConfig(name=model, pretrained=pretrained, image_size=size),
            head=head,
            num_query_tokens=num_query_tokens,
            precision=None if precision is None else checked_precision(precision),
            merge=merge,
            max_vectors=max_vectors,
            tiles=tiles,
            tile_overlap=tile_overlap,
            images=images,
            metadata=None if metadata is None else read_metadata(metadata),
            every=None if every is None else parse_interval(every),
            retry=retry,
            delete_vanished=delete_vanished,
            device=device,
            compute=checked_compute(compute),
            compiled=compiled,
            batch_size=batch_size,
            run=RunOptions(
                workers=workers,
                engine=checked_engine(engine),
                images_per_commit=images_per_commit,
                shard=None if shard is None else parse_shard(shard),
                address=address,
                max_workers=max_workers,
                cpus=cpus_per_worker,
            ),
            track=track,
        )
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
        return
    failed, vanished = list(summary.unreadable.values()), len(summary.vanished)
    counts = f"{summary.added} added, {summary.updated} updated, {summary.unchanged} unchanged"
    if summary.videos:
        counts = f"{summary.videos} video{'' if summary.videos == 1 else 's'}; images and frames: {counts}"
    counts += f", {summary.moved} moved" if summary.moved else ""
    lines = [f"{counts}, {len(failed)} could not be read: {to}"]
    lines += [f"  {image.reason}" for image in failed[:_MAX_REASONS]]
    if len(failed) > _MAX_REASONS:
        lines.append(f"  and {len(failed) - _MAX_REASONS} more: {store_path(to) / SKIPPED_FILE}")
    if summary.skipped:
        lines.append(f"{summary.skipped} could not be read before and have not changed. --retry tries them again")
    if vanished:
        deletion = ": deleted" if delete_vanished else ". --delete-vanished deletes them"
        lines.append(f"{vanished} are no longer in the source{deletion} from the store")
    lines += summary.metadata
    if summary.not_indexed:
        lines.append("not indexed:")
        lines += [f"  {line}" for line in describe_left_out(summary.not_indexed)]
    if summary.added and not (summary.updated or summary.unchanged or summary.moved):  # a new store
        lines.append(f'search it: forclip search {quote(to)} "a text", or on a page: forclip serve {quote(to)}')
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


@app.command()
def delete(
    store: StoreFolder,
    where: Annotated[str | None, Option(help="SQL filter: the images to remove.")] = None,
    ids: Annotated[Path | None, Option(help="File of image ids, one per line.")] = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what would be deleted.")] = False,
    yes: Annotated[bool, Option("--yes", "-y", help="Delete without asking, as scripts need it.")] = False,
) -> None:
    """Remove images from a store, after showing how many. The image files themselves are not touched."""
    from forclip.config import read_names
    from forclip.index.image_index import Index

    if (where is None) == (ids is None):
        raise ValueError("give either --where or --ids")
    opened = Index(store)
    listed = [] if ids is None else opened.store.ids_of(read_names(ids))
    selected = opened.store.ids(where) if where is not None else opened.store.known_ids(listed)
    if unknown := [image_id for image_id in listed if image_id not in selected]:
        typer.echo(f"{len(unknown)} of {len(listed)} ids are not in the store, such as {unknown[0]!r}", err=True)
    count = f"{len(selected)} of {len(opened)} images"
    if dry_run:
        more = [f"  and {len(selected) - _MAX_LISTED} more"] if len(selected) > _MAX_LISTED else []
        listing = [f"  {image_id}" for image_id in sorted(selected)[:_MAX_LISTED]]
        typer.echo("\n".join([f"{count} would be deleted: {store}", *listing, *more]))
        return
    if selected and not yes:
        if not sys.stdin.isatty():
            raise ValueError(
                f"{store}: {count} would be deleted: --yes deletes them without asking, --dry-run lists them"
            )
        typer.confirm(f"Delete {count} from {store}? The image files stay.", abort=True)
    deleted = opened.delete(where) if where is not None else opened.delete_ids(sorted(selected))
    typer.echo(f"{deleted} deleted, {len(opened)} left: {store}")


@app.command()
def duplicates(
    store: StoreFolder,
    threshold: Annotated[
        float, Option(help="Lowest similarity with the first image of a group, up to 1. Default: 0.95.")
    ] = 0.95,
    where: Annotated[str | None, Option(help="SQL filter: the images to compare.")] = None,
    ids_to: Annotated[
        Path | None, Option(help="Write the ids of all but each group's first image, for `forclip delete --ids`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List groups of near-duplicate pictures: copies, other sizes and encodings, slight crops."""
    from forclip.atomic_write import write_text_atomically
    from forclip.index.duplicates import check_threshold, find_duplicates
    from forclip.index.image_index import Index
    from forclip.location import without_range
    from forclip.path_text import printable
    from forclip.progress import tracking

    check_threshold(threshold)
    opened = Index(store)
    with tracking(plain_console(stderr=True)) as track:
        groups = find_duplicates(opened, threshold, where, track("comparing", opened.count(where)))
    repeats = [image.image_id for group in groups for image in group[1:]]
    if ids_to is not None:
        write_text_atomically(ids_to, "".join(f"{image_id}\n" for image_id in repeats))
    if as_json:
        typer.echo(json.dumps([[vars(image) for image in group] for group in groups]))
        return
    table = Table("group", "similarity", "image")
    for number, group in enumerate(groups, start=1):
        for image in group:
            table.add_row(
                str(number), f"{image.similarity:.3f}", Text(printable(without_range(image.uri)), overflow="fold")
            )
    if groups:
        print_table(plain_console(), table)
    typer.echo(f"{len(groups)} groups; {len(repeats)} images repeat the first of their group: {store}")


@app.command()
def compact(
    store: StoreFolder,
    kind: Annotated[
        str | None,
        Option(
            "--index",
            help="Precision of the search index: sq8 (8 bits a dimension), rabitq4 or rabitq1; or a FAISS index type; "
            "or none. Default: as before, sq8 in a new store.",
        ),
    ] = None,
    memory: Memory = None,
    model: Moved = None,
    pretrained: MovedWeights = None,
    device: Device = "cpu",
) -> None:
    """Free the space of deleted images and old versions, and update the search index.

    Converts a store of an older format first.
    """
    from forclip.bucket_path import store_path
    from forclip.embedding.migrate import migrate_store, needs_migration
    from forclip.index.image_index import Index
    from forclip.index.memory import parse_memory

    folder = store_path(store)
    if isinstance(folder, Path) and needs_migration(folder):
        converted = migrate_store(folder, moved_model(model, pretrained), device)
        typer.echo(f"{converted} images converted to the current format: {store}")
    opened = Index(store)
    opened.compact(kind, None if memory is None else parse_memory(memory))
    contents = opened.info()
    size = (contents["table_bytes"] + contents["search_bytes"]) / 1e6
    typer.echo(f"{contents['images']} images, {size:.0f} MB: {store}")
    if outdated := contents["to_index_again"]:
        typer.echo(outdated_message(outdated))


@app.command()
def relocate(
    store: StoreFolder,
    roots: Annotated[list[str] | None, Argument(help="ROOT=FOLDER: where the images of a root are now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say where a store's images are after they have moved. Without ROOT=FOLDER, list the roots."""
    from forclip.embedding.relocate import describe_roots, relocate_roots
    from forclip.index.image_index import Index

    index = Index(store)
    if roots:
        relocate_roots(index, roots)
    described = describe_roots(index)
    if as_json:
        typer.echo(json.dumps(described))
        return
    if not described:
        typer.echo(f"{store}: has no root; none of its images is in a folder of this machine")
    for root in described:
        typer.echo(f"{root['root']}={root['folder']}  {root['images']} images, {root['state']}")


@app.command()
def verify(
    store: StorePlace,
    against: Annotated[
        str | None, Option(help="Compare the store with where it is published: milvus://HOST/COLLECTION.")
    ] = None,
) -> None:
    """Read a whole store and list problems; exit code 1 if there are any."""
    from forclip.cli.publish import verify_against, verify_place

    problems = verify_place(store) if against is None else verify_against(store, against)
    compared = store if against is None else f"{store} and {against}"
    sound = "sound" if against is None else "equal"
    typer.echo("\n".join([*problems, f"{compared}: " + (f"{len(problems)} problems" if problems else sound)]))
    if problems:
        raise typer.Exit(1)
