"""What many requests want at once, made together: what comes while a batch is made is the next one."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

from anyio import CapacityLimiter, to_thread

from forclip.index.threads import cores, one_core

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_MOST = 64  # in a batch


class Batches(Generic[Key, Value]):
    """make: values for some keys, in their order, in a thread of its own. A key that comes alone waits for no other."""

    def __init__(self, make: Callable[[Sequence[Key]], Sequence[Value]], name: str, most: int = _MOST) -> None:
        self._make, self._most = make, most
        self._waiting: dict[Key, Future[Value]] = {}
        self._running = False
        self._changing = Lock()
        self._thread = ThreadPoolExecutor(1, name)

    def get(self, key: Key) -> Value:
        """Raises what `make` raises for this key alone."""
        return self._asked(key).result()

    async def awaited(self, key: Key) -> Value:
        """As `get`, without a thread that waits."""
        # Others may wait for the same: who stops waiting must not stop them.
        return await asyncio.shield(asyncio.wrap_future(self._asked(key)))

    def _asked(self, key: Key) -> Future[Value]:
        with self._changing:
            waited_for = self._waiting.get(key)
            if waited_for is None:
                waited_for = self._waiting[key] = Future()
                # Once, not for each key: under a load that never ends, what waits in the thread's queue would grow.
                if not self._running:
                    self._running = True
                    self._thread.submit(self._run)
        return waited_for

    def _run(self) -> None:
        """Batch after batch until nothing waits."""
        while taken := self._taken():
            self._answer(taken)

    def _taken(self) -> dict[Key, Future[Value]]:
        with self._changing:
            taken = {key: self._waiting.pop(key) for key in list(self._waiting)[: self._most]}
            self._running = bool(taken)
        return taken

    def _answer(self, taken: dict[Key, Future[Value]]) -> None:
        try:
            answered = list(zip(taken.values(), self._make(list(taken)), strict=True))
        except Exception as error:
            if len(taken) == 1:
                for waited_for in taken.values():
                    waited_for.set_exception(error)
            else:  # so that one that can't be made fails by itself
                for key, waited_for in taken.items():
                    self._answer({key: waited_for})
            return
        for waited_for, value in answered:
            waited_for.set_result(value)


Result = TypeVar("Result")

_MOST = 4  # half of a search is Python's own, of which one runs at a time


class SearchThreads:
    """threads: at once; whoever comes first is first. Other requests have threads of their own."""

    def __init__(self, threads: int | None = None) -> None:
        self._places = CapacityLimiter(threads or min(cores(), _MOST))

    async def run(self, search: Callable[[], Result]) -> Result:
        """What it returns, or raises."""

        def on_one_core() -> Result:
            with one_core():
                return search()

        return await to_thread.run_sync(on_one_core, limiter=self._places)
