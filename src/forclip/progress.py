"""Report the progress of long work, and what a user should know about it."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int], None]  # called with the number of items done since the last call
Track = Callable[[str, int], Advance]  # starts a task: a description and the total number of items


class Notice(Warning):
    """Something that the user should know and that is no error: one line, shown by every command."""


def notify(message: str) -> None:
    """Issue a `Notice`: Python shows it as a warning, the command line as a line on standard error."""
    warnings.warn(message, Notice, stacklevel=3)


def silent(count: int) -> None:
    """An Advance that reports nothing."""


def untracked(description: str, total: int) -> Advance:
    """A Track that reports nothing."""
    return silent


@contextmanager
def tracking(console: Console) -> Iterator[Track]:
    """Show a progress bar with counts and times for each task."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:

        def track(description: str, total: int) -> Advance:
            task = progress.add_task(description, total=total)
            return lambda count: progress.advance(task, count)

        yield track
