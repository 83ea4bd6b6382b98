"""Report the progress of long work, and what a user should know about it.

Work reports to a `Track`, which `tracking` shows. What else a function reports (`skipped`, `expect`, `portion`,
`record`) goes to the job that is shown; without one, nothing happens.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from forclip.console import plain_console
from forclip.progress.displays import Display, new_display
from forclip.progress.event_log import EventLog
from forclip.progress.job import Advance, Job, Planned, silent
from forclip.progress.ticker import ticking

__all__ = [
    "Advance",
    "EventLog",
    "Notice",
    "Planned",
    "Track",
    "console_for_results",
    "expect",
    "is_quiet",
    "notify",
    "portion",
    "record",
    "reporting",
    "silent",
    "skipped",
    "tracking",
    "untracked",
]

Track = Callable[[str, int], Advance]  # starts a stage: a description and the total number of items


class Notice(Warning):
    """Something that the user should know and that is no error: one line, shown by every command."""


class _Current:
    """What this process reports to."""

    quiet = False
    log: EventLog | None = None
    job: Job | None = None


def notify(message: str) -> None:
    """Issue a `Notice`: Python shows it as a warning, the command line as a line on standard error."""
    warnings.warn(message, Notice, stacklevel=3)


def untracked(description: str, total: int) -> Advance:
    """A Track that reports nothing."""
    return silent


@contextmanager
def reporting(*, quiet: bool = False, log: EventLog | None = None) -> Iterator[None]:
    """Choose where `tracking` reports to: nowhere but the log if quiet."""
    before = _Current.quiet, _Current.log
    _Current.quiet, _Current.log = quiet, log
    try:
        yield
    finally:
        _Current.quiet, _Current.log = before


def is_quiet() -> bool:
    """Whether only errors and results are shown."""
    return _Current.quiet


@contextmanager
def tracking(console: Console) -> Iterator[Track]:
    """Show progress: bars in a terminal, and lines elsewhere, one every so often.

    A stage ends when the next one starts, also if it was abandoned. Within another `tracking`, it is that one's.
    """
    if _Current.job is not None:
        yield _Current.job.start
        return
    displays: list[Display] = [] if _Current.quiet or console.quiet else [new_display(console)]
    displays += [] if _Current.log is None else [_Current.log]
    job = _Current.job = Job(displays)
    try:
        with ticking(job.tick):
            yield job.start
    except BaseException:
        job.close(completed=False)
        raise
    else:
        job.close()
    finally:
        _Current.job = None


def skipped(count: int) -> None:
    """Report items of the current stage that could not be used."""
    if _Current.job is not None:
        _Current.job.skip(count)


def expect(*stages: Planned) -> None:
    """Say which stages are still to come, all of them, so that the time of the whole job can be estimated."""
    if _Current.job is not None:
        _Current.job.expect(stages)


@contextmanager
def portion(number: int, count: int) -> Iterator[None]:
    """Mark a part of a job that has `count` parts alike, such as one for each seed. number: from 0."""
    if _Current.job is None:
        yield
        return
    with _Current.job.portion(number, count):
        yield


def console_for_results(console: Console) -> Console:
    """Return a console that is not silenced by `reporting(quiet=True)`. console: the one for messages."""
    return plain_console(stderr=console.stderr) if _Current.quiet else console


def record(event: str, **values: Any) -> None:
    """Write an event with plain values to the log."""
    if _Current.log is not None:
        _Current.log.write(event, **values)
