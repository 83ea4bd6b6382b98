"""Keep Ctrl-C, which a terminal sends to all of its processes, to the one process that handles it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from threading import current_thread, main_thread


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Deliver a Ctrl-C when the block ends. Processes that are started in the block never get one.

    A process that is still loading Python cannot ignore it by itself, and would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask") or current_thread() is not main_thread():
        yield
        return
    resource_tracker.ensure_running()  # its start, with the first process, would let signals through again
    received: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    # The mask is for the processes that are started, which inherit it. It is this thread's alone: while other threads
    # run, such as those of libraries, one of them gets the signal, and Python handles it here at once.
    if handler is not None:
        signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        if received:
            signal.raise_signal(signal.SIGINT)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process: the one that started it handles it, and ends this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
