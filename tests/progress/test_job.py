"""Rates and the time that is left, by a clock that the test turns."""

import pytest

from forclip.progress.job import Job, Planned, Progress


class Recorded:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.ticks: list[Progress] = []
        self.ended: list[tuple[Progress, bool]] = []
        self.closed = 0

    def start(self, progress: Progress) -> None:
        assert progress.done == 0

    def change(self, progress: Progress) -> None:
        self.last = progress

    def tick(self, progress: Progress) -> None:
        self.ticks.append(progress)

    def end(self, progress: Progress, completed: bool) -> None:
        self.ended.append((progress, completed))

    def close(self) -> None:
        self.closed += 1


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shown() -> Recorded:
    return Recorded()


@pytest.fixture
def job(clock: Clock, shown: Recorded) -> Job:
    return Job([shown], clock)


def test_the_rate_is_that_of_the_last_minute(job: Job, clock: Clock, shown: Recorded) -> None:
    advance = job.start("embedding", 1000)
    for _ in range(100):
        clock.now += 1
        advance(1)
    assert shown.last.rate == pytest.approx(1)
    for _ in range(70):
        clock.now += 1
        advance(5)
    job.tick()
    (tick,) = shown.ticks
    assert (tick.done, tick.total, tick.seconds) == (450, 1000, 170)
    assert tick.rate == pytest.approx(5)
    assert tick.seconds_left == pytest.approx(550 / 5)
    assert tick.job_seconds_left is None  # the stage is all that is known of the job


def test_a_stage_that_stands_still_has_no_old_rate(job: Job, clock: Clock, shown: Recorded) -> None:
    advance = job.start("embedding", 10)
    job.tick()
    clock.now += 1
    advance(1)
    clock.now += 99
    job.tick()
    assert [tick.rate for tick in shown.ticks] == [None, pytest.approx(1 / 100)]


def test_items_that_were_done_before_do_not_count_for_the_rate(job: Job, clock: Clock, shown: Recorded) -> None:
    advance = job.start("finetuning", 600)
    advance(500)  # by a run that is continued
    clock.now += 10
    advance(20)
    assert (shown.last.done, shown.last.rate, shown.last.seconds_left) == (520, 2, 40)


def test_a_new_stage_ends_one_that_was_abandoned(job: Job, clock: Clock, shown: Recorded) -> None:
    first = job.start("trying", 9)
    clock.now += 3
    first(3)
    second = job.start("training", 2)
    first(1)  # late; it no longer moves a bar
    clock.now += 1
    second(2)
    clock.now += 50
    job.close()
    assert [(p.stage, p.done, p.total) for p, _ in shown.ended] == [("trying", 3, 9), ("training", 2, 2)]
    assert shown.ended[1][0].seconds == 1  # not what came after
    assert shown.closed == 1


def test_skipped_items_count_for_their_stage(job: Job, shown: Recorded) -> None:
    job.start("a", 4)(4)
    job.skip(2)
    job.skip(1)
    job.start("b", 1)
    job.close(completed=False)
    assert [(p.skipped, completed) for p, completed in shown.ended] == [(3, True), (0, False)]


def test_the_time_of_the_job_follows_from_the_plan(job: Job, clock: Clock, shown: Recorded) -> None:
    """Encoding takes 2 s an image, so a step, planned at half of that, takes 1 s. Then a step is measured at 3 s."""
    trials = Planned("trial 1", 10, 1, "step"), Planned("trial 2", 10, 1, "step")
    job.expect([Planned("encoding", 50, 2), Planned("left out", 1000, 1), *trials])
    advance = job.start("encoding", 50)
    assert job._progress(job._stage).job_seconds_left is None  # type: ignore[arg-type]
    clock.now += 20
    advance(10)
    assert shown.last.seconds_left == 80
    assert shown.last.job_seconds_left == pytest.approx(80 + 1000 + 20)
    assert shown.last.job_share == pytest.approx(20 / 1120)
    advance(40)
    advance = job.start("trial 1", 10)
    clock.now += 6
    advance(2)
    assert shown.last.job_seconds_left == pytest.approx(8 * 3 + 10 * 3)
    clock.now += 24
    advance(8)
    job.start("trial 2", 10)
    job.tick()
    assert shown.ticks[-1].job_seconds_left is None  # nothing is known of the stage yet, and no other is left


def test_parts_alike_take_equally_long(job: Job, clock: Clock, shown: Recorded) -> None:
    for number in range(3):
        with job.portion(number, 4):
            advance = job.start(f"seed {number}", 10)
            clock.now += 5
            advance(5)
            expected = 5 + (4 - number - 1) * 10
            assert shown.last.job_seconds_left == pytest.approx(expected)
            clock.now += 5
            advance(5)
    with job.portion(3, 4):
        advance = job.start("seed 3", 10)
        clock.now += 5
        advance(5)
        assert shown.last.seconds_left == 5
        assert shown.last.job_seconds_left is None  # the last one is the rest of the job
