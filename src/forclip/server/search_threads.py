"""Searches in few threads: many that take turns with Python's lock wake each other up more than they search."""

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from forclip.index.threads import cores, one_core

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
