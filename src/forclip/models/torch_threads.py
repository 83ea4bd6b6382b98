"""In how many threads torch works: a small piece of work is done sooner in one."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_ROUNDS = 5
_WORTH = 0.7  # of one thread's time: more threads must be clearly faster, for they are slower on a busy machine


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """For the thread that calls it, one thread at a time. None: as many as torch has."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_thread_count(work: Callable[[], object]) -> int:
    """1, or all that torch has where `work` is much faster with them: its best time of some rounds decides."""
    most = torch.get_num_threads()
    return most if most > 1 and _seconds(work, most) < _WORTH * _seconds(work, 1) else 1


def _seconds(work: Callable[[], object], threads: int) -> float:
    taken = []
    with torch_threads(threads):
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            work()
            taken.append(time.perf_counter() - started)
    return min(taken)
