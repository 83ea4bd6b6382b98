"""Progress of long work, told to whoever wants to know."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int], None]  # told how many more are done
Track = Callable[[str, int], Advance]  # a description and a total -> what to tell of progress


def silent(count: int) -> None:
    """Tells nobody."""


def untracked(description: str, total: int) -> Advance:
    """No bar."""
    return silent


@contextmanager
def tracking(console: Console) -> Iterator[Track]:
    """Progress bars with counts and times, one for each piece of work."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:

        def track(description: str, total: int) -> Advance:
            task = progress.add_task(description, total=total)
            return lambda count: progress.advance(task, count)

        yield track
