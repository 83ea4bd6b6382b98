"""What is known of a job: its stages, their rates, and the time that is left."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Protocol

_WINDOW = 60.0  # seconds of which the rate is shown
_RESOLUTION = 0.5  # seconds between two samples
_AT_ONCE = 0.01  # seconds within which a stage's first items were done before it started

Advance = Callable[[int], None]  # called with the number of items done since the last call


def silent(count: int) -> None:
    """An Advance that reports nothing."""


@dataclass(frozen=True)
class Planned:
    """A stage that is still to come.

    cost: expected seconds of an item on some machine; only the relation to the other stages counts. kind: stages of one
    kind take about equally long for an item; the name by default.
    """

    name: str
    total: int
    cost: float
    kind: str = ""


@dataclass(frozen=True)
class Progress:
    """What is shown of a stage at one moment.

    rate: items a second of the last minute, None as long as it is unknown; seconds: since the stage started;
    seconds_left: of the stage; job_seconds_left: of all stages, None if the stage is the whole job; job_share: the part
    of the job's time that has passed. None is unknown.
    """

    stage: str
    done: int
    total: int
    skipped: int
    seconds: float
    rate: float | None
    seconds_left: float | None
    job_seconds_left: float | None
    job_share: float | None


class JobDisplay(Protocol):
    """What a job reports to."""

    def start(self, progress: Progress) -> None:
        """A stage starts."""

    def change(self, progress: Progress) -> None:
        """A stage has advanced."""

    def tick(self, progress: Progress) -> None:
        """Some seconds have passed."""

    def end(self, progress: Progress, completed: bool) -> None:
        """A stage ends. completed: False if an error ended it."""

    def close(self) -> None:
        """The job ends."""


@dataclass
class _Stage:
    name: str
    total: int
    kind: str
    cost: float | None
    started: float
    done: int = 0
    before: int = 0  # items that were done when the stage started
    skipped: int = 0
    changed: float | None = None  # when it last advanced
    samples: deque[tuple[float, int]] = field(default_factory=deque)

    @property
    def measured(self) -> tuple[int, float]:
        """Items that took time, and the seconds."""
        return self.done - self.before, 0.0 if self.changed is None else self.changed - self.started


class Job:
    """The stages of a job, one after the other. Can be used from several threads."""

    def __init__(self, displays: Sequence[JobDisplay], clock: Callable[[], float] = time.monotonic) -> None:
        """displays: that the job reports to; clock: seconds."""
        self._displays, self._clock, self._lock = displays, clock, RLock()
        self._stage: _Stage | None = None
        self._upcoming: list[Planned] = []
        self._items: dict[str, int] = defaultdict(int)  # by kind, of stages that have ended
        self._seconds: dict[str, float] = defaultdict(float)
        self._planned_seconds = self._taken_seconds = 0.0  # of stages that were planned
        self._portion = (0, 1)
        self._portion_seconds: list[float] = []
        self._began = self._portion_began = clock()

    def start(self, name: str, total: int) -> Advance:
        """End the current stage, and start another one."""
        with self._lock:
            self._end()
            kind, cost = name, None
            for position, planned in enumerate(self._upcoming):
                if planned.name == name:
                    kind, cost = planned.kind or name, planned.cost
                    del self._upcoming[: position + 1]
                    break
            stage = self._stage = _Stage(name, total, kind, cost, self._clock())
            stage.samples.append((stage.started, 0))
            for display in self._displays:
                display.start(self._progress(stage))
        return lambda count: self._advance(stage, count)

    def skip(self, count: int) -> None:
        """Count items of the current stage that could not be used."""
        with self._lock:
            if self._stage is not None:
                self._stage.skipped += count

    def expect(self, stages: Sequence[Planned]) -> None:
        """Replace what is still to come."""
        with self._lock:
            self._upcoming = list(stages)

    @contextmanager
    def portion(self, number: int, count: int) -> Iterator[None]:
        """Mark a part of the job: one of `count` alike."""
        with self._lock:
            self._portion, self._portion_began, self._upcoming = (number, count), self._clock(), []
        yield
        with self._lock:
            self._end()
            self._portion_seconds.append(self._clock() - self._portion_began)
            self._upcoming = []

    def progress(self) -> Progress | None:
        """Return where the current stage is; None between two stages."""
        with self._lock:
            return None if self._stage is None else self._progress(self._stage)

    def tick(self) -> None:
        """Report where the current stage is."""
        with self._lock:
            if self._stage is not None:
                for display in self._displays:
                    display.tick(self._progress(self._stage))

    def close(self, completed: bool = True) -> None:
        """End the job. completed: False if an error ended it."""
        with self._lock:
            self._end(completed)
            for display in self._displays:
                display.close()

    def _advance(self, stage: _Stage, count: int) -> None:
        with self._lock:
            now = self._clock()
            if stage.done == 0 and now - stage.started < _AT_ONCE:
                stage.before, stage.samples[0] = count, (stage.started, count)
            stage.done += count
            stage.changed = now
            if now - stage.samples[-1][0] >= _RESOLUTION:
                stage.samples.append((now, stage.done))
                while len(stage.samples) > 2 and stage.samples[1][0] < now - _WINDOW:
                    stage.samples.popleft()
            if stage is self._stage:
                for display in self._displays:
                    display.change(self._progress(stage))

    def _end(self, completed: bool = True) -> None:
        stage, self._stage = self._stage, None
        if stage is None:
            return
        items, seconds = stage.measured
        self._items[stage.kind] += items
        self._seconds[stage.kind] += seconds
        if stage.cost is not None:
            self._planned_seconds += items * stage.cost
            self._taken_seconds += seconds
        for display in self._displays:
            display.end(self._progress(stage), completed)

    def _progress(self, stage: _Stage) -> Progress:
        now = self._clock()
        since, before = stage.samples[0]
        rate = (stage.done - before) / (now - since) if now > since and stage.done > before else None
        left = None if rate is None else max(0, stage.total - stage.done) / rate
        if stage.done >= stage.total:
            left = 0.0
        job_left = self._job_seconds_left(stage, left)
        elapsed = now - self._began
        share = None if job_left is None else elapsed / max(1e-9, elapsed + job_left)
        ended = stage.changed if stage.done >= stage.total and stage.changed is not None else now
        return Progress(
            *(stage.name, stage.done, stage.total, stage.skipped, ended - stage.started),
            *(rate, left, job_left, share),
        )

    def _job_seconds_left(self, stage: _Stage, left: float | None) -> float | None:
        number, count = self._portion
        if left is None or not (self._upcoming or number + 1 < count):
            return None
        items, seconds = stage.measured
        planned, taken = self._planned_seconds, self._taken_seconds
        if stage.cost is not None:
            planned, taken = planned + items * stage.cost, taken + seconds
        for upcoming in self._upcoming:
            kind = upcoming.kind or upcoming.name
            of_kind, seconds_of_kind = self._items[kind], self._seconds[kind]
            if kind == stage.kind:
                of_kind, seconds_of_kind = of_kind + items, seconds_of_kind + seconds
            if of_kind > 0 and seconds_of_kind > 0:
                left += upcoming.total * seconds_of_kind / of_kind
            elif planned > 0 and taken > 0:
                left += upcoming.total * upcoming.cost * taken / planned
            else:
                return None
        this = self._clock() - self._portion_began + left
        others = self._portion_seconds or [this]
        return left + (count - number - 1) * sum(others) / len(others)
