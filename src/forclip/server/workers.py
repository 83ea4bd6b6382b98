"""Serve one store from several processes, which share a port, mapped files and the state of the service.

The first process starts the others, replaces those that die, and stops them. It answers no requests itself. Each worker
has its own caches and its own model, whose weights all of them map from one file.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from types import FrameType

from forclip.config import ComputeChoice, ModelConfig
from forclip.interrupts import interrupts_held_back
from forclip.search.labels import StoreLabels
from forclip.search.searcher import AnySearcher, open_searcher
from forclip.server.app import listen, serve
from forclip.server.security import Access
from forclip.server.shared_weights import use_weights, write_weights

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0  # seconds, after a replacement that could not start
_SECONDS_TO_STOP = 15.0  # for requests that are being answered
_HAVE_OWN_SOCKETS = sys.platform.startswith("linux")
_METRICS = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client finds the numbers of all processes


@dataclass(frozen=True)
class Served:
    """What each worker serves; picture_cache is in bytes. The others are arguments of `open_searcher` and `serve`."""

    store: str
    device: str
    model_override: ModelConfig | None
    access: Access
    labels: StoreLabels | None
    picture_cache: int
    compute: ComputeChoice = "auto"


def listen_for_workers(access: Access, port: int, workers: int) -> list[socket.socket]:
    """Bind a socket for each worker. Raises OSError as `listen` does.

    On Linux each has a socket of its own, between which the kernel distributes connections evenly. Elsewhere they take
    turns at one, so that a worker may get most of the connections.
    """
    first = listen(access, port)
    if workers == 1 or not _HAVE_OWN_SOCKETS:
        return [first] * workers
    port = first.getsockname()[1]
    first.close()  # it was bound alone, so no other service uses the port
    return [listen(access, port, is_shared=True) for _ in range(workers)]


def serve_by_workers(served: Served, searcher: AnySearcher, listeners: Sequence[socket.socket]) -> None:
    """Serve from as many processes as there are sockets, until interrupted.

    searcher: over the same store; its model's weights are shared by all workers.

    Raises:
        ValueError: if one of the first workers stops before it could answer. Later, a worker that dies is replaced, and
            the others answer alone until its replacement can.
    """
    with TemporaryDirectory(prefix="forclip-service-") as name, _environment(_METRICS, name):
        folder = Path(name)
        write_weights(searcher.model, folder)
        del searcher
        workers = _Workers(served, folder, listeners)
        before = signal.signal(signal.SIGTERM, _exit)
        try:
            workers.run()
        finally:
            workers.stop()
            signal.signal(signal.SIGTERM, before)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for processes that are started inside."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


class _Workers:
    """The processes of a service by number."""

    def __init__(self, served: Served, folder: Path, listeners: Sequence[socket.socket]) -> None:
        self._served, self._folder, self._listeners = served, folder, listeners
        self._port = int(listeners[0].getsockname()[1])
        # A fork would inherit this process's threads and locks.
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, BaseProcess] = {}
        self._ready: dict[int, Event] = {}

    def run(self) -> None:
        """Start all workers, and replace those that die."""
        for number, listener in enumerate(self._listeners):
            self._start(number, listener)
        have_answered: set[int] = set()
        failures = 0  # replacements in a row that could not start
        while True:
            ended = wait([process.sentinel for process in self._processes.values()])
            for number, process in list(self._processes.items()):
                if process.sentinel not in ended:
                    continue
                process.join()
                could_start = self._ready[number].is_set()
                failures = 0 if could_start else failures + 1
                if not could_start and number not in have_answered:
                    raise ValueError(
                        f"worker {number} stopped before it could answer, with exit code {process.exitcode}"
                    )
                have_answered.add(number)
                print(
                    f"forclip: worker {number} stopped, exit code {process.exitcode}; a new one starts", file=sys.stderr
                )
                if failures:
                    time.sleep(min(_FIRST_WAIT * 2 ** (failures - 1), _LONGEST_WAIT))
                self._start(number, self._socket_of_replacement(number))

    def _socket_of_replacement(self, number: int) -> socket.socket | None:
        """The socket of a replacement; None if it is to bind its own, when it can answer.

        While the old one is open, the kernel sends it connections, which would wait for the replacement.
        """
        if not _HAVE_OWN_SOCKETS or len(self._listeners) == 1:
            return self._listeners[number]
        self._listeners[number].close()
        return None

    def _start(self, number: int, listener: socket.socket | None) -> None:
        ready = self._context.Event()
        process = self._context.Process(
            target=_work,
            args=(self._served, self._folder, listener, self._port, ready),
            name=f"forclip worker {number}",
            daemon=True,
        )
        with interrupts_held_back():  # until `stop` knows the process
            process.start()
            self._ready[number], self._processes[number] = ready, process

    def stop(self) -> None:
        """Let workers finish what they are answering, and end them."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            process.join(_SECONDS_TO_STOP)
            if process.is_alive():
                process.kill()
                process.join()


def _work(served: Served, folder: Path, listener: socket.socket | None, port: int, ready: Event) -> None:
    Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        searcher = open_searcher(served.store, served.device, served.model_override, served.compute)
        use_weights(searcher.model, folder)
        listener = listener or listen(served.access, port, is_shared=True)
        serve(searcher, served.access, listener, served.labels, served.picture_cache, folder, ready.set)
    except (ValueError, OSError) as error:
        print(f"forclip: {error}", file=sys.stderr)
        sys.exit(2)


def _end_with_parent() -> None:
    """Stop this process when the first one is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
