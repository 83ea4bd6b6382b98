"""Run routes outside the event loop, in a limited number of threads of their own.

FastAPI runs all plain functions in 40 common threads. Routes that may wait for a slow bucket or disk would take all of
them, and everything else would wait too.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def in_threads(
    limiter: CapacityLimiter,
) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Awaitable[Result]]]:
    """Decorate a route: it runs in a thread of the limiter, and waits in order of arrival until one is free."""

    def decorate(route: Callable[Parameters, Result]) -> Callable[Parameters, Awaitable[Result]]:
        @wraps(route)
        async def run(*args: Parameters.args, **options: Parameters.kwargs) -> Result:
            return await to_thread.run_sync(lambda: route(*args, **options), limiter=limiter)

        return run

    return decorate
