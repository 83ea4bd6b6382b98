"""Batch concurrent requests: what arrives while one batch runs forms the next one."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

from anyio import CapacityLimiter, to_thread

from forclip.index.threads import cores, one_core

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_MAX_BATCH = 64
_MAX_SEARCH_THREADS = 4  # half of a search is Python code, which runs in one thread at a time


class Batches(Generic[Key, Value]):
    """Computes values for keys in a thread of its own. A key that arrives alone is computed at once.

    compute: returns the values of some keys, in their order.
    """

    def __init__(self, compute: Callable[[Sequence[Key]], Sequence[Value]], name: str, most: int = _MAX_BATCH) -> None:
        self._compute, self._most = compute, most
        self._waiting: dict[Key, Future[Value]] = {}
        self._running = False
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, name)

    def get_many(self, keys: Sequence[Key]) -> list[Value]:
        """Wait for the values of some keys. Raises what `compute` raises for one of them alone."""
        return [future.result() for future in [self._submit(key) for key in keys]]

    async def get(self, key: Key) -> Value:
        """Await the value of a key without blocking a thread. Raises what `compute` raises for it alone."""
        # Others may wait for the same future: one that is cancelled must not cancel it for them.
        return await asyncio.shield(asyncio.wrap_future(self._submit(key)))

    def _submit(self, key: Key) -> Future[Value]:
        with self._lock:
            future = self._waiting.get(key)
            if future is None:
                future = self._waiting[key] = Future()
                # Submit one run, not one for each key: under constant load the executor's queue would grow.
                if not self._running:
                    self._running = True
                    self._thread.submit(self._run)
        return future

    def _run(self) -> None:
        """Run batch after batch until no key waits."""
        while batch := self._next_batch():
            self._resolve(batch)

    def _next_batch(self) -> dict[Key, Future[Value]]:
        with self._lock:
            batch = {key: self._waiting.pop(key) for key in list(self._waiting)[: self._most]}
            self._running = bool(batch)
        return batch

    def _resolve(self, batch: dict[Key, Future[Value]]) -> None:
        try:
            resolved = list(zip(batch.values(), self._compute(list(batch)), strict=True))
        except Exception as error:
            if len(batch) == 1:
                next(iter(batch.values())).set_exception(error)
                return
            for key, future in batch.items():  # each alone, so that a bad key fails by itself
                self._resolve({key: future})
            return
        for future, value in resolved:
            future.set_result(value)


class SearchThreads:
    """Runs searches in few threads, in order of arrival: many threads would compete for Python's lock.

    threads: how many at once; None: up to four, by the number of cores. Other requests use FastAPI's own threads.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._limiter = CapacityLimiter(threads or min(cores(), _MAX_SEARCH_THREADS))

    async def run(self, search: Callable[[], Value]) -> Value:
        """Return or raise what `search` returns or raises."""

        def on_one_core() -> Value:
            with one_core():
                return search()

        return await to_thread.run_sync(on_one_core, limiter=self._limiter)
