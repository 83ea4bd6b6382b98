"""Batch concurrent requests: what arrives while one batch runs forms the next one."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Batches(Generic[Key, Value]):
    """Computes values for keys in a thread of its own. A key that arrives alone is computed at once.

    compute: returns the values of some keys, in their order.
    """

    def __init__(self, compute: Callable[[Sequence[Key]], Sequence[Value]], name: str, most: int = 64) -> None:
        self._compute, self._most = compute, most
        self._waiting: dict[Key, Future[Value]] = {}
        self._running = False
        self._lock = Lock()
        self._thread = ThreadPoolExecutor(1, name)

    def get_many(self, keys: Sequence[Key]) -> list[Value]:
        """Wait for the values of some keys. Raises what `compute` raises when it is called with one of them alone."""
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
        while True:
            with self._lock:
                batch = {key: self._waiting.pop(key) for key in list(self._waiting)[: self._most]}
                self._running = bool(batch)
            if not batch:
                return
            self._resolve(batch)

    def _resolve(self, batch: dict[Key, Future[Value]]) -> None:
        try:
            resolved = list(zip(batch.values(), self._compute(list(batch)), strict=True))
        except Exception as error:
            for key, future in batch.items():
                if len(batch) == 1:
                    future.set_exception(error)
                else:  # each alone, so that a bad key fails by itself
                    self._resolve({key: future})
        else:
            for future, value in resolved:
                future.set_result(value)
