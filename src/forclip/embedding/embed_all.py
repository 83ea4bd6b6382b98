"""Embed all images of a job in this process, in several, or with Ray, and store them slice by slice."""

from dataclasses import dataclass

import torch

from forclip.cpu import usable_cores
from forclip.embedding.embed import processes_for
from forclip.embedding.local_workers import LocalWorkers
from forclip.embedding.run_options import RunOptions
from forclip.embedding.run_slices import SliceRun
from forclip.embedding.slice_writer import SliceWriter
from forclip.embedding.slices import Embedder, Slice, embed_slices, whole_batches
from forclip.embedding.store_options import StoreOptions
from forclip.embedding.worker_pool import WorkerPool
from forclip.models.retrieval_model import RetrievalModel
from forclip.progress import Advance

IMAGES_PER_SLICE = 1024
_IMAGES_PER_SLICE_ON_GPU = 4096  # decoding starts afresh with each
_IMAGES_PER_COMMIT = 16_384  # of several workers
_SLICES_PER_WORKER = 4  # at least, so that the workers end at about the same time


@dataclass(frozen=True)
class WorkerPlan:
    """Which processes of this machine embed.

    devices: of each process that embeds; processes: that decode for each, 0 for threads.
    """

    devices: tuple[str, ...]
    processes: int
    is_this_process: bool


def plan_workers(run: RunOptions, device: str, processes: int | None) -> WorkerPlan:
    """Divide a machine among workers. processes: as `index_images` takes them.

    On a CPU every worker embeds. On GPUs one for each embeds, and the others decode for it.
    """
    workers = run.workers
    if device == "cpu":
        count = max(1, workers or 1)
        return WorkerPlan((device,) * count, processes or 0, count == 1 and run.engine == "local")
    gpus = [device]
    if device == "cuda" and (workers or 1) > 1 and torch.cuda.device_count() > 1:
        gpus = [f"cuda:{number}" for number in range(min(workers or 1, torch.cuda.device_count()))]
    if processes is None and workers is not None and (workers > len(gpus) or len(gpus) == 1):
        processes = workers // len(gpus)
    elif processes is None:
        processes = processes_for(len(gpus))
    return WorkerPlan(tuple(gpus), processes, len(gpus) == 1 and run.engine == "local")


def embed_all(
    images: Slice,
    model: RetrievalModel,
    options: StoreOptions,
    writer: SliceWriter,
    run: RunOptions,
    plan: WorkerPlan,
    device: str,
    advance: Advance,
) -> None:
    """Embed and store images with a loaded model. device: of Ray's workers. Raises ValueError if no worker can work."""
    first = min(whole_batches(min(IMAGES_PER_SLICE, run.images_per_commit or IMAGES_PER_SLICE), model), len(images))
    if plan.is_this_process or not len(images):
        embedder = Embedder(model, *options.merging(writer.index), options.batch_size)
        size = run.images_per_commit or IMAGES_PER_SLICE
        for embedded in embed_slices(embedder, images, size, advance, plan.processes):
            writer.write([embedded])
        return
    spec = options.spec(writer.index, model)
    pool: WorkerPool
    if run.engine == "ray":
        from forclip.embedding.ray_workers import RayWorkers  # Ray is an extra

        pool = ray = RayWorkers(spec, device, address=run.address, workers=run.workers, cpus=run.cpus)
        workers = ray.workers
    else:
        workers = len(plan.devices)
        pool = LocalWorkers(spec, plan.devices, max(1, usable_cores() // workers), plan.processes)
    commit = run.images_per_commit or _IMAGES_PER_COMMIT
    most = IMAGES_PER_SLICE if device == "cpu" else _IMAGES_PER_SLICE_ON_GPU
    share = -(-len(images) // (_SLICES_PER_WORKER * max(workers, run.max_workers or 0)))
    size = whole_batches(max(1, min(most, commit, share)), model)
    SliceRun(
        pool,
        writer.write,
        advance,
        workers=workers,
        max_workers=run.max_workers or workers,
        images_per_commit=commit,
        first_images=first if writer.index is None else 0,
    ).run(images.cut(size, first))
