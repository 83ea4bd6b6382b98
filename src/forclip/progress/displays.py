"""Show progress to a person: bars in a terminal, and lines in a log."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from forclip.console import plain_console
from forclip.progress.job import JobDisplay, Progress

Display = JobDisplay
_SECONDS_PER_CHANGE = 0.2  # of a bar


def new_display(console: Console) -> Display:
    """Return bars for a terminal, and lines for anything else.

    Lines go to standard error if the console is standard output, which is for results.
    """
    if not console.is_terminal and console.file is sys.stdout:
        console = plain_console(stderr=True)
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


class LineDisplay:
    """Prints a line at every tick, and one at the end of each stage."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def start(self, progress: Progress) -> None:
        """Print nothing: most stages are short."""

    def change(self, progress: Progress) -> None:
        """Print nothing."""

    def tick(self, progress: Progress) -> None:
        """Print where the stage is."""
        if progress.done < progress.total:
            self._print(describe(progress))

    def end(self, progress: Progress, completed: bool) -> None:
        """Print what was done."""
        if progress.total:
            self._print(describe_end(progress, completed))

    def close(self) -> None:
        """Nothing is left to do."""

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class BarDisplay:
    """Shows a bar for the current stage and one for the whole job, below lines of the stages that have ended."""

    def __init__(self, console: Console) -> None:
        texts = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[more]}", markup=False)
        columns = texts[0], BarColumn(), MofNCompleteColumn(), texts[1]
        # Only what standard output shows in the same terminal would be printed into the bars.
        self._bars = Bars(*columns, console=console, redirect_stdout=sys.stdout.isatty())
        self._stage: TaskID | None = None
        self._changed = 0.0
        self._job = self._bars.add_task("in all", total=100, visible=False, more="")
        self._bars.start()

    def start(self, progress: Progress) -> None:
        """Show a new bar."""
        visible = progress.total > 0
        self._stage = self._bars.add_task(progress.stage, total=progress.total, visible=visible, more="")
        self.tick(progress)

    def change(self, progress: Progress) -> None:
        """Move the bars, at most a few times a second."""
        if time.monotonic() - self._changed >= _SECONDS_PER_CHANGE:
            self.tick(progress)

    def tick(self, progress: Progress) -> None:
        """Move the bars."""
        self._changed = time.monotonic()
        if self._stage is not None:
            self._bars.update(self._stage, completed=progress.done, more=_more(progress))
        share = progress.job_share
        if share is not None:
            left = describe_seconds(progress.job_seconds_left)
            self._bars.update(self._job, completed=round(100 * share), visible=True, more=f"about {left} left")

    def end(self, progress: Progress, completed: bool) -> None:
        """Replace the bar by a line."""
        if self._stage is not None:
            self._bars.remove_task(self._stage)
            self._stage = None
        if progress.total:
            self._bars.console.print(describe_end(progress, completed), markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Remove the bars."""
        self._bars.update(self._job, visible=False)
        self._bars.stop()


def describe(progress: Progress) -> str:
    """Return one line such as `embedding: 1,024 of 5,000 (20%), 34/s, 1:57 left; in all about 4:10 left`."""
    if progress.total == 1:
        return f"{progress.stage}: {describe_seconds(progress.seconds)} so far"
    percent = f" ({100 * progress.done // progress.total}%)" if progress.total else ""
    text = f"{progress.stage}: {progress.done:,} of {progress.total:,}{percent}, {_more(progress)}"
    if progress.job_seconds_left is not None:
        text += f"; in all about {describe_seconds(progress.job_seconds_left)} left"
    return text


def describe_end(progress: Progress, completed: bool) -> str:
    """Return one line such as `embedding: 5,000 in 2:25, 34/s`."""
    seconds = describe_seconds(progress.seconds)
    skipped = f", {progress.skipped:,} skipped" if progress.skipped else ""
    if progress.total == progress.done == 1:
        return f"{progress.stage}: done in {seconds}"
    if progress.done >= progress.total:
        rate = f", {describe_rate(progress.done / progress.seconds)}" if progress.seconds >= 1 else ""
        return f"{progress.stage}: {progress.done:,} in {seconds}{rate}{skipped}"
    ended = "ended early" if completed else "stopped"
    return f"{progress.stage}: {ended} after {progress.done:,} of {progress.total:,} in {seconds}{skipped}"


def _more(progress: Progress) -> str:
    if progress.rate is None:
        text = f"none done in {describe_seconds(progress.seconds)}"
    else:
        text = f"{describe_rate(progress.rate)}, {describe_seconds(progress.seconds_left)} left"
    return text + (f", {progress.skipped:,} skipped" if progress.skipped else "")


def describe_rate(rate: float) -> str:
    """Return a rate by the second, or by the minute or hour if it is low."""
    for unit, seconds in (("s", 1), ("min", 60)):
        if rate * seconds >= 1:
            return f"{rate * seconds:.{0 if rate * seconds >= 10 else 1}f}/{unit}"
    return f"{rate * 3600:.1f}/h"


def describe_seconds(seconds: float | None) -> str:
    """Return a duration such as 1:57, 2:04:10 or `3 d 4 h`."""
    if seconds is None:
        return "unknown"
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{whole:02}" if hours else f"{minutes}:{whole:02}"
