"""FAISS in threads of our own, one core each."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from threading import Semaphore, local
from typing import TypeVar

import faiss

Item = TypeVar("Item")
Result = TypeVar("Result")

_of_thread = local()


def side_by_side(call: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """One result for each item. call: of FAISS alone, it must not wait for anything.

    The work is shared out to cores that no other call of this has; what is left is done right here, so that searches
    at the same time get a core each. OpenMP's own threads, woken for a millisecond's work, wait for each other where a
    core is busy with something else.
    """
    waiting = deque(enumerate(items))
    results: dict[int, Result] = {}

    def work() -> None:
        while waiting:
            try:
                place, item = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            results[place] = call(item)

    helpers: list[Future[None]] = []
    while len(helpers) < len(waiting) - 1 and _free_cores().acquire(blocking=False):
        helpers.append(_pool().submit(_as_helper, work))
    with one_core():
        work()
    for helper in helpers:
        helper.result()
    return [results[place] for place in range(len(results))]


def _as_helper(work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        _free_cores().release()


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def one_core() -> Iterator[None]:
    """For FAISS in the thread that calls it. Within such a block another one costs nothing."""
    if getattr(_of_thread, "one_core", False):
        yield
        return
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    _of_thread.one_core = True
    try:
        yield
    finally:
        _of_thread.one_core = False
        faiss.omp_set_num_threads(before)


@cache
def _free_cores() -> Semaphore:
    """Beside that of a caller."""
    return Semaphore(cores() - 1)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, cores() - 1), "faiss", initializer=lambda: faiss.omp_set_num_threads(1))
