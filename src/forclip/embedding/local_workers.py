"""Workers that are processes of this machine."""

import multiprocessing
import os
import signal
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread

import torch

from forclip.embedding.slices import Slice
from forclip.embedding.worker import EmbedderSpec, PackedSlice, describe_error, embed_slice
from forclip.embedding.worker_pool import Advanced, Done, Event, Failed, Lost, Ready
from forclip.interrupts import ignore_interrupts, interrupts_held_back

_SECONDS_TO_END = 2.0


@dataclass(frozen=True)
class _Process:
    process: BaseProcess
    connection: Connection
    device: str


class LocalWorkers:
    """A `WorkerPool` of processes. Each has its own model and its share of the cores."""

    def __init__(self, spec: EmbedderSpec, devices: Sequence[str], threads: int, processes: int) -> None:
        """Prepare workers.

        devices: that the workers are spread over; threads: of PyTorch in each worker; processes: that decode for each,
        0 for threads.
        """
        self._spec, self._devices = spec, devices
        self._threads, self._processes = threads, processes
        self._workers: dict[int, _Process] = {}
        self._started = 0
        # A fork would inherit this process's threads, locks and GPU.
        self._context = multiprocessing.get_context("spawn")

    def add(self) -> int:
        used = Counter(worker.device for worker in self._workers.values())
        device = min(self._devices, key=lambda name: used[name])
        connection, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, self._spec, device, self._threads, self._processes), name="forclip worker"
        )
        number, self._started = self._started, self._started + 1
        with interrupts_held_back():  # until `close` knows the process
            process.start()
            self._workers[number] = _Process(process, connection, device)
        theirs.close()  # so that the end of the process ends the connection
        return number

    def remove(self, worker: int) -> None:
        removed = self._workers.pop(worker)
        removed.connection.close()  # ends it
        removed.process.join(_SECONDS_TO_END)
        _end([removed.process])

    def submit(self, worker: int, images: Slice) -> None:
        with suppress(OSError):  # of one that has died, which `wait` reports
            self._workers[worker].connection.send(images)

    def wait(self, seconds: float) -> list[Event]:
        number_of: dict[object, int] = {}
        for number, worker in self._workers.items():
            number_of |= {worker.connection: number, worker.process.sentinel: number}
        changed = {number_of[ready] for ready in wait(list(number_of), seconds)}  # type: ignore[arg-type]
        return [event for number in sorted(changed) for event in self._events(number)]

    def _events(self, number: int) -> list[Event]:
        worker, events = self._workers[number], list[Event]()
        try:
            while worker.connection.poll():
                events.append(_event(number, worker.connection.recv()))
            if worker.process.is_alive() or worker.connection.poll():
                return events
        except (OSError, EOFError):
            pass
        del self._workers[number]
        worker.process.join(_SECONDS_TO_END)
        _end([worker.process])
        worker.connection.close()
        if events and isinstance(events[-1], Lost):
            return events
        return [*events, Lost(number, _reason(worker.process.exitcode))]

    def close(self) -> None:
        for worker in self._workers.values():
            worker.process.terminate()
        _end([worker.process for worker in self._workers.values()])
        for worker in self._workers.values():
            worker.connection.close()
        self._workers.clear()


def _end(processes: Sequence[BaseProcess]) -> None:
    """Kill what does not end by itself."""
    for process in processes:
        if process.is_alive():
            process.terminate()
    for process in processes:
        process.join(_SECONDS_TO_END)
        if process.is_alive():
            process.kill()
            process.join()


def _reason(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        memory = ", as when memory runs out" if name == "SIGKILL" else ""
        return f"a worker process was ended by {name}{memory}"
    return f"a worker process ended with exit code {exit_code}"


def _event(number: int, message: int | str | PackedSlice | Exception) -> Event:
    """Convert what a worker sends: progress, that it is ready, a slice, or why it can't embed one or can't start."""
    match message:
        case int():
            return Advanced(number, message)
        case "ready":
            return Ready(number)
        case PackedSlice():
            return Done(number, message.unpack())
        case str():
            return Failed(number, message)
    return Lost(number, str(message))


def _work(connection: Connection, spec: EmbedderSpec, device: str, threads: int, processes: int) -> None:
    """What a worker process does, until its connection is closed."""
    ignore_interrupts()
    warnings.simplefilter("ignore")  # that process has shown them
    torch.set_num_threads(min(threads, torch.get_num_threads()))
    slices: SimpleQueue[Slice] = SimpleQueue()
    Thread(target=_receive, args=(connection, slices), daemon=True).start()
    try:
        try:
            embedder = spec.load(device)
        except Exception as error:
            connection.send(ValueError(describe_error(error)))
            return
        connection.send("ready")
        while True:
            images = slices.get()
            try:
                packed = embed_slice(embedder, images, spec.precision, connection.send, processes)
            except BrokenPipeError:
                raise
            except Exception as error:
                connection.send(describe_error(error))
            else:
                connection.send(packed)
    except BrokenPipeError:
        pass  # the job has ended
    finally:
        os._exit(0)  # threads that decode may still run


def _receive(connection: Connection, slices: "SimpleQueue[Slice]") -> None:
    """Receive slices while others are embedded, so that the sender never waits. End with the job."""
    try:
        while True:
            slices.put(connection.recv())
    except (OSError, EOFError):
        os._exit(0)
