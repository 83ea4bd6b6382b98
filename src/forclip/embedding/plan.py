"""Plan a large index before anything is embedded: how long it takes, and what each way of keeping it needs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from forclip.config import Compute, ComputeChoice
from forclip.cpu import usable_cores
from forclip.embedding.speed import (
    CORES_PER_GPU,
    OPERATIONS_PER_CORE,
    UTILISATION,
    Gpus,
    Rate,
    core_seconds,
    estimate_rate,
    index_core_seconds,
)
from forclip.index.capacity import (
    BUCKET_PRICE,
    DEFAULT_BUILD_MEMORY,
    DISK_PRICE,
    MEASURED_VECTORS,
    PLACES,
    Need,
    Place,
    Stored,
    count_lists,
    index_bytes,
    merged_share,
    need,
)
from forclip.index.schema import Precision
from forclip.models.operations import ModelSize

SHOWN_MERGE = 0.9  # beside unmerged vectors, if no other is asked for


@dataclass(frozen=True)
class PlanOptions:
    """What is planned. None stands for a default.

    megapixels: of the pictures; cpus: of all machines together; rate: measured images per second; vectors_per_image:
    that are stored, in place of those that the model and `merge` give; merge, precision: the choice to mark; compute:
    the number format of GPUs, auto for half precision; the rest: as `forclip.index.capacity.need` takes it.
    """

    megapixels: float = 2.0
    gpus: Gpus | None = None
    cpus: int | None = None
    rate: float | None = None
    vectors_per_image: float | None = None
    merge: float | None = None
    precision: Precision | None = None
    compute: ComputeChoice = "auto"
    build_memory: int = DEFAULT_BUILD_MEMORY
    milvus_index: str | None = None
    bucket_price: float = BUCKET_PRICE
    disk_price: float = DISK_PRICE

    def __post_init__(self) -> None:
        """Raises ValueError for numbers out of range, and for two numbers of vectors."""
        for name, value in (
            ("--megapixels", self.megapixels),
            ("--rate", self.rate),
            ("--vectors-per-image", self.vectors_per_image),
        ):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is a number above 0, not {value:g}")
        for name, price in (
            ("--price-per-gb-month", self.bucket_price),
            ("--disk-price-per-gb-month", self.disk_price),
        ):
            if not (math.isfinite(price) and price >= 0):
                raise ValueError(f"{name} is a price in USD, not {price:g}")
        if self.vectors_per_image is not None and self.vectors_per_image < 1:
            raise ValueError(f"--vectors-per-image is at least 1, not {self.vectors_per_image:g}")
        if self.vectors_per_image is not None and self.merge is not None:
            raise ValueError("give either --vectors-per-image or --merge: the first counts what merging leaves")
        if self.compute in ("bf16", "fp16") and self.gpus is None:
            raise ValueError(f"--compute {self.compute} needs --gpus: for CPU cores, float32 is estimated alone")


@dataclass(frozen=True)
class Choice:
    """One way to keep the store. merge: None without merging; index_core_hours: to build the search index,
    0 in Milvus, which builds its own; chosen: whether the options ask for it."""

    merge: float | None
    need: Need
    index_core_hours: float
    chosen: bool


@dataclass(frozen=True)
class Plan:
    """views: passes of the image tower per image; cpus: cores that it counts on; assumptions: sentences."""

    images: int
    model: ModelSize
    views: int
    cpus: int
    rate: Rate
    embedding_hours: float
    choices: tuple[Choice, ...]
    assumptions: tuple[str, ...]


def make_plan(images: int, model: ModelSize, options: PlanOptions) -> Plan:
    """Estimate what so many images take. model: with the tiles that images are embedded in.

    Raises ValueError for options that have no formula.
    """
    views = 1 + (0 if model.tiles is None else len(model.tiles))
    cpus = options.cpus or (CORES_PER_GPU * options.gpus.count if options.gpus else usable_cores())
    if options.rate is None:
        seconds = core_seconds(options.megapixels, model.input_size, model.tiles)
        compute: Compute = "bf16" if options.compute == "auto" else options.compute
        rate = estimate_rate(model.operations, views, cpus, seconds, options.gpus, compute)
    else:
        rate = Rate(options.rate, "measured")
    choices = []
    precisions: tuple[Precision, ...] = ("fp16", "int8")
    for merge in (None,) if options.vectors_per_image else (None, options.merge or SHOWN_MERGE):
        for precision in precisions:
            vectors = options.vectors_per_image or model.num_query_tokens * views * merged_share(merge or 1.0)
            stored = Stored(images, max(1.0, vectors), model.dim, precision)
            is_chosen = precision == (options.precision or "fp16") and merge == options.merge
            choices += [_choose(place, stored, merge, options, is_chosen) for place in PLACES]
    hours = images / rate.images_per_second / 3600
    assumptions = tuple(_assumptions(model, options, rate, cpus))
    return Plan(images, model, views, cpus, rate, hours, tuple(choices), assumptions)


def _choose(place: Place, stored: Stored, merge: float | None, options: PlanOptions, is_chosen: bool) -> Choice:
    needed = need(
        place,
        stored,
        build_memory=options.build_memory,
        milvus_index=options.milvus_index,
        bucket_price=options.bucket_price,
        disk_price=options.disk_price,
    )
    seconds = 0.0
    if place != "milvus" and index_bytes(stored, options.build_memory):
        seconds = index_core_seconds(stored.vectors, stored.dim, count_lists(stored, options.build_memory))
    return Choice(merge, needed, seconds / 3600, is_chosen)


def _assumptions(model: ModelSize, options: PlanOptions, rate: Rate, cpus: int) -> Iterator[str]:
    gpus, pictures = options.gpus, f"JPEGs of {options.megapixels:g} megapixels"
    if options.rate is None and gpus is not None:
        card = gpus.card
        used, other = ("half precision", card.half), ("float32", card.single, rate.tower_single)
        if options.compute == "float32":
            used, other = ("float32", card.single), ("half precision", card.half, rate.tower_half)
        yield (
            f"No GPU was measured. It is assumed that the image tower reaches {UTILISATION:.0%} of the {card.name}'s "
            f"{used[1]:g} TFLOPS in {used[0]}: {rate.tower:,.0f} images a second. In {other[0]} ({other[1]:g} TFLOPS) "
            f"it would be {other[2]:,.0f}. --rate takes what you measure, as with `python -m benchmarks.gpu_speed`."
        )
        given = "" if options.cpus else f" ({CORES_PER_GPU} for each GPU, assumed)"
        busy = math.ceil(cpus * rate.tower / rate.decoding)
        yield (
            f"{cpus} CPU cores{given} decode {rate.decoding:,.0f} {pictures} a second, as measured on one core of an "
            f"AMD EPYC; {busy} keep the GPUs busy."
        )
    elif options.rate is None:
        yield (
            f"{cpus} CPU cores encode {rate.tower:,.1f} images a second, {OPERATIONS_PER_CORE / 1e9:.0f} GFLOPS each, "
            f"and decode {rate.decoding:,.0f} {pictures}, one after the other, as measured on two cores of an AMD EPYC."
        )
    if options.vectors_per_image is None:
        merge = options.merge or SHOWN_MERGE
        left = MEASURED_VECTORS * merged_share(merge)
        yield (
            f"Merging from {merge:g} leaves {left:.1f} of {MEASURED_VECTORS} vectors on the toy world, which is "
            "synthetic. Index a sample of your images with --merge, and give --vectors-per-image."
        )
    yield (
        "local: store and search files on one machine. bucket: the store in a bucket, the search files on the disk of "
        "one machine (FORCLIP_CACHE_GB must allow it). milvus: the store in a bucket, and published to Milvus, whose "
        "own storage is in the bucket too."
    )
    yield (
        "memory: to search fast, with the search index in the page cache; the model comes on top. Search files are "
        "mapped: with less memory a search is slower and does not fail. Measured with 2 million vectors, extrapolated."
    )
    yield (
        f"index: to build the search index in {options.build_memory / 1e9:g} GB of memory (--memory), extrapolated "
        "from 2 million vectors. A search goes through every segment; more memory makes fewer."
    )
    yield ("Milvus: one replica without headroom, by the sizes of its index and columns. No cluster was measured.")
    yield (
        f"USD: {options.bucket_price:g} per GB and month in a bucket, {options.disk_price:g} on a disk. The defaults "
        "are AWS's list prices of S3 Standard and gp3. Without requests, transfers and machines."
    )
