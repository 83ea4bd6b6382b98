"""Run FAISS in this process's own threads, one core each.

OpenMP's threads, which FAISS uses by itself, wait for each other if a core is busy with something else. For a search
of a millisecond that costs more than it gains.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Semaphore, local
from typing import TypeVar

import faiss

from forclip.cpu import usable_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

_thread_state = local()


def parallel_map(call: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return `call`'s result for each item, in order.

    Work goes to cores that no other call of this function uses; the calling thread does the rest, so concurrent
    searches get one core each. `call` must only compute with FAISS and never wait. The first error is raised.
    """
    items = list(items)
    if len(items) == 1:
        with one_core():
            return [call(items[0])]
    waiting = deque(enumerate(items))
    results: dict[int, Result] = {}

    def work() -> None:
        while waiting:
            try:
                position, item = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            results[position] = call(item)

    def help_out() -> None:
        try:
            work()
        finally:
            _free_cores().release()

    helpers: list[Future[None]] = []
    while len(helpers) < len(waiting) - 1 and _free_cores().acquire(blocking=False):
        helpers.append(_pool().submit(help_out))
    with one_core():
        work()
    for helper in helpers:
        helper.result()
    return [results[position] for position in range(len(results))]


@cache
def cores() -> int:
    """Return how many cores this process may use. Found once: every search needs it."""
    return usable_cores()


@contextmanager
def one_core() -> Iterator[None]:
    """Keep FAISS to one core in the calling thread. Nested blocks cost nothing."""
    if getattr(_thread_state, "one_core", False):
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    _thread_state.one_core = True
    try:
        yield
    finally:
        _thread_state.one_core = False
        faiss.omp_set_num_threads(before)


@cache
def _free_cores() -> Semaphore:
    """Cores besides the caller's."""
    return Semaphore(cores() - 1)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, cores() - 1), "faiss", initializer=lambda: faiss.omp_set_num_threads(1))
