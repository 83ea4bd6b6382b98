"""FAISS in threads of our own, one core each."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import faiss

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(call: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """One result for each item. call: of FAISS alone, it must not wait for anything; the first is made right here.

    OpenMP's own threads, woken for a millisecond's work, wait for each other where a core is busy with something else.
    """
    first, *others = items
    waiting = [_pool().submit(call, item) for item in others]
    with _one_core():
        result = call(first)
    return [result, *(w.result() for w in waiting)]


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _one_core() -> Iterator[None]:
    """For the thread that calls it."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), "faiss", initializer=lambda: faiss.omp_set_num_threads(1))
