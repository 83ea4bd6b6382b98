"""Plan a large index: hours, disk, memory and monthly storage, before anything is embedded."""

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table
from typer import Option

from forclip.cli.app import AsJson, app
from forclip.console import plain_console, print_table

if TYPE_CHECKING:
    from forclip.embedding.plan import Choice, Plan


@app.command()
def plan(
    images: Annotated[str, Option(metavar="COUNT", help="Number of images, such as 50M, 100k or 2000000.")],
    model: Annotated[
        str, Option(help="Run folder, model folder, a name of `forclip models`, or open_clip's.")
    ] = "clip-b16",
    gpus: Annotated[
        str | None, Option(metavar="NxCARD", help="GPUs that embed, such as 8xA100. Default: none, CPU cores embed.")
    ] = None,
    cpus: Annotated[
        int | None,
        Option(min=1, help="CPU cores, of all machines together. Default: this machine's; with --gpus 8 for each."),
    ] = None,
    rate: Annotated[
        float | None, Option(metavar="IMG/S", help="Images per second that you measured, in place of the estimate.")
    ] = None,
    image_size: Annotated[
        str | None,
        Option(metavar="PIXELS|ROWSxCOLUMNS", help="Size of the model's input. Default: the model's own."),
    ] = None,
    megapixels: Annotated[float, Option(help="Size of the pictures, which are taken as JPEGs.")] = 2.0,
    num_query_tokens: Annotated[
        int | None, Option(min=1, help="Vectors of an image, and of each tile. Default: 25, or the run's.")
    ] = None,
    tiles: Annotated[
        str | None, Option(help="Overlapping tiles, such as 3x3, 2x2 or none. Default: the model's own, or none.")
    ] = None,
    vectors_per_image: Annotated[
        float | None, Option(help="Vectors that are stored of an image, as `forclip info` shows of a sample of yours.")
    ] = None,
    merge: Annotated[
        float | None,
        Option(
            help="Merge an image's vectors from this cosine up. The table marks this choice with *. Default: unmerged."
        ),
    ] = None,
    precision: Annotated[
        str | None, Option(help="Number format, fp16 (default) or int8. The table marks this choice with *.")
    ] = None,
    compute: Annotated[
        str, Option(help="Number format of the model on GPUs: auto (half precision), float32, bf16 or fp16.")
    ] = "auto",
    memory: Annotated[str, Option(help="Memory to build the search index with.")] = "16GB",
    milvus_index: Annotated[str | None, Option(help="Milvus's index. Default: as `forclip publish` chooses.")] = None,
    price_per_gb_month: Annotated[
        float, Option(min=0, help="USD per GB and month in a bucket. Default: list price of S3 Standard.")
    ] = 0.023,
    disk_price_per_gb_month: Annotated[
        float, Option(min=0, help="USD per GB and month on a machine's disk. Default: list price of AWS's gp3 disks.")
    ] = 0.08,
    as_json: AsJson = False,
) -> None:
    """Estimate hours, disk, memory and monthly storage for so many images, before any of them is read.

    An architecture of open_clip needs no weights; a run, a model folder or a hub model is loaded.
    """
    from forclip.config import checked_compute
    from forclip.data.images.tiles import parse_tiles
    from forclip.embedding.plan import PlanOptions, make_plan
    from forclip.embedding.speed import parse_gpus
    from forclip.image_size import parse_image_size
    from forclip.index.capacity import parse_count
    from forclip.index.memory import parse_memory
    from forclip.index.schema import checked_precision
    from forclip.models.operations import model_size

    count, size = parse_count(images), parse_image_size(image_size)
    options = PlanOptions(
        megapixels=megapixels,
        gpus=None if gpus is None else parse_gpus(gpus),
        cpus=cpus,
        rate=rate,
        vectors_per_image=vectors_per_image,
        merge=merge,
        precision=None if precision is None else checked_precision(precision),
        compute=checked_compute(compute),
        build_memory=parse_memory(memory),
        milvus_index=milvus_index,
        bucket_price=price_per_gb_month,
        disk_price=disk_price_per_gb_month,
    )
    if vectors_per_image is not None and num_query_tokens is not None:
        raise ValueError("give either --vectors-per-image or --num-query-tokens")
    grid = None if tiles is None else parse_tiles(tiles)
    measured = model_size(model, size, num_query_tokens)
    planned = make_plan(count, measured if tiles is None else replace(measured, tiles=grid), options)
    if as_json:
        typer.echo(json.dumps(asdict(planned)))
        return
    _print(planned)


def _print(plan: "Plan") -> None:
    model, rate = plan.model, plan.rate
    passes = "" if plan.views == 1 else f", {plan.views} passes of the image tower each"
    typer.echo(
        f"{plan.images:,} images, {model.name}: {model.operations / 1e9:.1f} GFLOPs for a pass{passes}; "
        f"vectors of {model.dim} numbers"
    )
    limits = {
        "tower": ", limited by the GPUs",
        "decoding": ", limited by decoding",
        "both": "",
        "measured": ", as given",
    }
    speed = f"{rate.images_per_second:,.1f} images a second{limits[rate.bound]}"
    typer.echo(f"Embedding: {_hours(plan.embedding_hours)} at {speed}")
    table = Table("stored", Column("vectors", justify="right"), "where", box=None)
    for name in ("disk", "bucket", "memory", "segments", "index", "USD/month"):
        table.add_column(name, justify="right", no_wrap=True)
    for choice in plan.choices:
        table.add_row(*_cells(choice), style="bold" if choice.chosen else None)
    print_table(plain_console(), table)
    lines = ["* your options", *plan.assumptions]
    typer.echo("\n".join(lines))


def _cells(choice: "Choice") -> list[str]:
    need = choice.need
    vectors = need.stored.precision + ("" if choice.merge is None else f", merged from {choice.merge:g}")
    has_files = need.place != "milvus"
    return [
        vectors + (" *" if choice.chosen else ""),
        f"{need.stored.vectors_per_image:.1f}",
        need.place,
        _bytes(need.disk),
        _bytes(need.bucket),
        _bytes(need.memory),
        str(need.segments) if has_files else "",
        _core_hours(choice.index_core_hours) if has_files else "",
        f"{need.per_month:,.2f}" if need.per_month < 100 else f"{need.per_month:,.0f}",
    ]


def _bytes(count: int) -> str:
    """Three digits and a unit; nothing for 0."""
    if not count:
        return ""
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1e6:.3g} MB"


def _hours(hours: float) -> str:
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _core_hours(hours: float) -> str:
    if not hours:
        return ""
    return f"{hours:,.0f} core h" if hours >= 10 else f"{hours:.1f} core h"
