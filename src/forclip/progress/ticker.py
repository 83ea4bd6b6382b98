"""Call a function every so often, from a thread of its own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS, _LATER_SECONDS = 10.0, 30.0  # between two calls, during the first minute and after it
_FIRST_CALLS = 6


@contextmanager
def ticking(tick: Callable[[], None]) -> Iterator[None]:
    """Call `tick` every 10 seconds during the first minute, then every 30 seconds, until the end."""
    ended = threading.Event()

    def run() -> None:
        calls = 0
        while not ended.wait(_SECONDS if calls < _FIRST_CALLS else _LATER_SECONDS):
            tick()
            calls += 1

    thread = threading.Thread(target=run, daemon=True, name="progress")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
