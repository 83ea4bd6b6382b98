"""Workers that are actors of Ray, on one machine or on a cluster."""

import os
import platform
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from forclip.embedding.slices import Embedder, Slice
from forclip.embedding.worker import EmbedderSpec, PackedSlice, describe_error, embed_slice
from forclip.embedding.worker_pool import Done, Event, Failed, Lost, Ready
from forclip.one_line import one_line

_DEFAULT_CPUS, _MOST_CPUS = 4, 8  # of a worker: more threads embed little faster


class RayWorkers:
    """A `WorkerPool` of actors. Each asks the cluster for its share of CPUs and GPUs, and starts where they are free.

    An actor that finds no room waits; a cluster that grows by itself then adds a machine.
    """

    def __init__(
        self, spec: EmbedderSpec, device: str, *, address: str | None, workers: int | None, cpus: int | None
    ) -> None:
        """Connect to a cluster, or start Ray on this machine.

        address: of the cluster, `auto` for the one that this machine belongs to, None for that of RAY_ADDRESS or this
        machine only; workers: their number, None for as many as the cluster has room for; cpus: of each, None for a
        fair share. Raises ValueError if Ray is not installed or the cluster can't be reached.
        """
        self._ray = ray = _import_ray()
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            _connect(ray, address)
        on_gpu = device.startswith("cuda")
        total = ray.cluster_resources()
        slots = int(total.get("GPU", 0)) if on_gpu else workers or 0
        if cpus is None:
            cpus = min(_MOST_CPUS, max(1, int(total.get("CPU", 1)) // max(1, slots))) if slots else _DEFAULT_CPUS
            cpus = min(cpus, max(1, int(total.get("CPU", 1))))
        self.workers = workers or max(1, slots or int(total.get("CPU", 1)) // cpus)
        actor = ray.remote(num_cpus=cpus, num_gpus=1 if on_gpu else 0, max_restarts=0)(_Actor)
        # Ray shows an actor only its own GPU. With a GPU, the CPUs decode.
        self._new_actor = partial(actor.remote, spec, "cuda" if on_gpu else device, cpus, cpus if on_gpu else 0)
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, tuple[int, bool]] = {}  # the worker, and whether it is a slice, by what will be returned
        self._started = 0

    def add(self) -> int:
        number, self._started = self._started, self._started + 1
        self._actors[number] = actor = self._new_actor()
        self._calls[actor.load.remote()] = number, False
        return number

    def remove(self, worker: int) -> None:
        self._ray.kill(self._actors.pop(worker))

    def submit(self, worker: int, images: Slice) -> None:
        # An actor's working folder is another one.
        paths = [path.absolute() if isinstance(path, Path) else path for path in images.paths]
        self._calls[self._actors[worker].embed.remote(replace(images, paths=paths))] = worker, True

    def wait(self, seconds: float) -> list[Event]:
        waiting = list(self._calls)
        done, _ = self._ray.wait(waiting, num_returns=1, timeout=seconds)
        if done:  # and what else is done
            done, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        # In the order of the calls: that of each actor's slices.
        return [event for call in waiting if call in set(done) for event in self._events(call)]

    def _events(self, call: Any) -> list[Event]:
        worker, is_slice = self._calls.pop(call)
        if worker not in self._actors:
            return []  # of an actor that was lost before
        errors = self._ray.exceptions
        try:
            result: PackedSlice | str | None = self._ray.get(call)
        except errors.RayActorError as error:
            return [self._lose(worker, _describe_loss(error))]
        except errors.RayError as error:  # such as a result that was lost with its machine
            result = f"{type(error).__name__}: {_one_line(error)}"
        match result:
            case PackedSlice():
                return [Done(worker, result.unpack())]
            case None:
                return [Ready(worker)]
        return [Failed(worker, result) if is_slice else self._lose(worker, result)]

    def _lose(self, worker: int, reason: str) -> Lost:
        self._ray.kill(self._actors.pop(worker))
        return Lost(worker, reason)

    def close(self) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        self._calls.clear()
        if self._connected_here:
            self._ray.shutdown()


class _Actor:
    """A worker. Its errors are returned as text: an exception of this machine may not be known where the job is."""

    def __init__(self, spec: EmbedderSpec, device: str, threads: int, processes: int) -> None:
        self._spec, self._device, self._threads, self._processes = spec, device, threads, processes
        self._embedder: Embedder | None = None

    def load(self) -> str | None:
        """Load the model. Returns None, or why it can't be loaded."""
        warnings.simplefilter("ignore")  # the job has shown them
        torch.set_num_threads(self._threads)
        try:
            self._embedder = self._spec.load(self._device)
        except Exception as error:
            return f"{platform.node()}: {describe_error(error)}"
        return None

    def embed(self, images: Slice) -> PackedSlice | str:
        """Embed a slice. Returns it, or why that fails."""
        assert self._embedder is not None
        try:
            return embed_slice(self._embedder, images, self._spec.precision, processes=self._processes)
        except Exception as error:
            return f"{platform.node()}: {describe_error(error)}"


def _import_ray() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise ValueError("--engine ray: Ray is not installed: pip install 'forclip[ray]'") from None
    return ray


def _connect(ray: ModuleType, address: str | None) -> None:
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"--address {address}: no Ray cluster answers: {_one_line(error)}") from None


def _describe_loss(error: Exception) -> str:
    text = _one_line(error)
    memory = ", as when memory runs out" if "SIGKILL" in text or "OOM" in text else ""
    return f"a worker was lost{memory}: {text}"


def _one_line(error: Exception) -> str:
    return one_line(error)[:300]
