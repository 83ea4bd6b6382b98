"""Control the number of PyTorch's threads: small operations are faster in one."""

import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

_REQUIRED_RATIO = 0.7  # of one thread's time: on a busy machine more threads get slower, so the gain must be clear


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Set the number of threads inside a block, for the calling thread. None keeps the current number."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_thread_count(work: Callable[[], object]) -> int:
    """Return the current number of threads if `work` is clearly faster with it, else 1. Compares the best of 5 runs."""
    most = torch.get_num_threads()
    return most if most > 1 and _seconds(work, most) < _REQUIRED_RATIO * _seconds(work, 1) else 1


def _seconds(work: Callable[[], object], threads: int) -> float:
    with torch_threads(threads):
        return min(timeit.repeat(work, timer=time.perf_counter, number=1, repeat=5))
