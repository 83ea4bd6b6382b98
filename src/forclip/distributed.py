"""Several processes that work on one job, started by torchrun. In one process, each function returns what it is given.

All of these workers run the same program. A function marked *collective* must be called by all of them, in one order.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

_LONGEST_WAIT = timedelta(days=1)  # for a worker that still encodes images; one that fails or falls silent ends the job
_START = timedelta(minutes=5)  # until all workers are there
_HEARTBEAT, _SILENCE = 2.0, 300.0  # seconds between signs of life, and without one
_GRACE = 5.0  # seconds that a worker has to end by itself after another one failed

T = TypeVar("T")


class OtherWorkerFailed(RuntimeError):
    """Another worker failed and reports why. here: whether on this machine."""

    def __init__(self, number: int, message: str, here: bool) -> None:
        super().__init__(f"worker {number} failed: {message}")
        self.here = here


_active = False  # within `joined`, with more than one worker


def world_size() -> int:
    """Return the number of workers."""
    return dist.get_world_size() if _active else 1


def rank() -> int:
    """Return this worker's number, from 0."""
    return dist.get_rank() if _active else 0


def is_first() -> bool:
    """Whether this is worker 0, the only one that prints and writes files."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Join the workers that torchrun started, for one job. *Collective*; does nothing in one process.

    If a worker fails, it raises its own error and the others raise OtherWorkerFailed, or end if they can't: a job never
    hangs. Raises ValueError if not all workers start. Uses a process group that exists already.
    """
    global _active
    if _active or not _several():
        yield
        return
    own = not dist.is_initialized()
    watch = _join() if own else None
    _active = True
    try:
        yield
        barrier()
        if watch is not None:
            # The first worker may hold the connections: it must not end before the others watch no longer.
            watch.stop()
            barrier()
    except Exception as error:
        if watch is not None and not isinstance(error, OtherWorkerFailed):
            number, message, machine = watch.report(str(error) or repr(error))
            if number != dist.get_rank():
                raise OtherWorkerFailed(number, message, machine == _machine()) from None
        raise
    else:
        if own:
            dist.destroy_process_group()
    finally:
        _active = False
        if watch is not None:
            watch.stopped.set()


def _several() -> bool:
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size() > 1
    described = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return dist.is_available() and described and int(os.environ["WORLD_SIZE"]) > 1


def _machine() -> str:
    return os.environ.get("GROUP_RANK", "0")


def _join() -> "_Watch":
    on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        store, number, workers = next(iter(rendezvous("env://", timeout=_START)))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpus else "gloo",
            store=store,
            rank=number,
            world_size=workers,
            timeout=_LONGEST_WAIT,
        )
        watch = _Watch(number, workers)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"the workers do not find each other: {str(error).splitlines()[0]}") from None
    watch.start()
    return watch


class _Watch(threading.Thread):
    """Ends this worker if another one fails or falls silent: calls that wait for others can't be interrupted."""

    def __init__(self, number: int, workers: int) -> None:
        super().__init__(daemon=True, name="watch other workers")
        # A connection of its own, because another thread may wait on the process group's.
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=_START)
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self.store = PrefixStore(f"forclip/{attempt}", store)
        self.number, self.neighbour = number, (number + 1) % workers
        self.stopped = threading.Event()

    def stop(self) -> None:
        """End the thread, and return when it has ended."""
        self.stopped.set()
        self.join()

    def report(self, message: str) -> tuple[int, str, str]:
        """Report a failure. Returns the first one reported: the worker's number, its message and its machine."""
        try:
            failure = json.dumps([self.number, message, _machine()])
            number, message, machine = json.loads(self.store.compare_set("failure", "", failure))
            return number, message, machine
        except RuntimeError:  # the first worker's machine is gone
            return self.number, message, _machine()

    def run(self) -> None:
        heard, since = -1, time.monotonic()
        try:
            while not self.stopped.wait(_HEARTBEAT):
                self.store.add(f"alive {self.number}", 1)
                now = self.store.add(f"alive {self.neighbour}", 0)
                if now != heard:
                    heard, since = now, time.monotonic()
                elif time.monotonic() - since > _SILENCE:
                    self.report(f"worker {self.neighbour} has not answered for {_SILENCE / 60:.0f} minutes")
                if self.store.check(["failure"]):
                    break
        except RuntimeError as error:
            failure = self.number, f"lost contact with the first worker: {str(error).splitlines()[0]}", _machine()
        else:
            if self.stopped.is_set():
                return
            failure = self.report("")
        if self.stopped.wait(_GRACE):
            return
        if failure[0] == self.number or (self.number == 0 and failure[2] != _machine()):
            sys.stderr.write(f"forclip: {failure[1]}\n")
            sys.stderr.flush()
        os._exit(2)


@contextmanager
def _contact() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        raise ValueError(
            f"lost contact with another worker, which may have been killed, as for lack of memory ({reason})"
        ) from None


def local_device(device: str) -> str:
    """Return this worker's device: a GPU of its own where `device` is a GPU.

    Raises ValueError for more workers on a machine than GPUs, and for a device that several workers cannot share.
    """
    if world_size() == 1 or device == "cpu":
        return device
    if device.partition(":")[0] != "cuda":
        raise ValueError(f"device {device}: several workers train on cuda or cpu")
    number, count = int(os.environ.get("LOCAL_RANK", rank())), torch.cuda.device_count()
    if number >= count:
        raise ValueError(
            f"{os.environ.get('LOCAL_WORLD_SIZE', number + 1)} workers on this machine, but {count} GPUs:"
            " start one worker for each GPU, or set device: cpu"
        )
    torch.cuda.set_device(number)
    return f"cuda:{number}"


@contextmanager
def one_first() -> Iterator[None]:
    """Let one worker of each machine do something before the others, such as a download. *Collective*."""
    first = int(os.environ.get("LOCAL_RANK", rank())) == 0
    if not first:
        barrier()
    yield
    if first:
        barrier()


def part(count: int, block: int = 1) -> slice:
    """Return this worker's part of `count` items: whole blocks, in order, about equally many for each worker."""
    blocks, workers = -(-count // block), world_size()
    start, stop = (blocks * number // workers * block for number in (rank(), rank() + 1))
    return slice(min(start, count), min(stop, count))


def barrier() -> None:
    """Wait until all workers are here. *Collective*."""
    add_up(torch.zeros(1))


def broadcast(value: T) -> T:
    """Return the first worker's value, which can be pickled. *Collective*."""
    if world_size() == 1:
        return value
    box = [value if is_first() else None]
    with _contact():
        dist.broadcast_object_list(box, 0)
    result: Any = box[0]
    return result  # type: ignore[no-any-return]


def gather(value: T) -> list[T]:
    """Return all workers' values, which can be pickled, by their numbers. *Collective*."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with _contact():
        dist.all_gather_object(values, value)
    return values


def add_up(tensor: Tensor) -> Tensor:
    """Sum a tensor over the workers, in place, and return it. *Collective*."""
    if world_size() > 1:
        with _contact():
            dist.all_reduce(tensor)
    return tensor


def synchronise(tensors: Iterable[Tensor]) -> None:
    """Give tensors the first worker's values, in place. *Collective*."""
    if world_size() > 1:
        with torch.no_grad(), _contact():
            for tensor in tensors:
                values = tensor.detach().contiguous()
                dist.broadcast(values, 0)
                if not is_first():
                    tensor.copy_(values)


def gather_rows(values: Sequence[Tensor], positions: Tensor, count: int) -> Tensor:
    """Join rows that workers computed, on the CPU. *Collective*.

    values: this worker's [B, ...] in batches; positions: their places in the result [count, ...]. Each position belongs
    to one worker.
    """
    if world_size() == 1:
        return torch.cat(list(values))
    own = torch.cat(list(values)).cpu() if values else None
    described = gather((positions, None if own is None else (tuple(own.shape[1:]), own.dtype)))
    shape, dtype = next(form for _, form in described if form is not None)
    result = torch.empty(count, *shape, dtype=dtype)
    for number, (places, _) in enumerate(described):
        if len(places):
            rows = own if own is not None and number == rank() else torch.empty(len(places), *shape, dtype=dtype)
            with _contact():
                dist.broadcast(rows, number)
            result[places] = rows
    return result
