"""What a person reads: durations, rates, lines in a log, bars in a terminal."""

import io
import sys

import pytest
from rich.console import Console

from forclip.progress import Planned, expect, reporting, skipped, tracking
from forclip.progress.displays import describe, describe_end, describe_rate, describe_seconds, new_display
from forclip.progress.job import Progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (117.4, "1:57"), (3599.6, "1:00:00"), (7450, "2:04:10"), (200_000, "2 d 7 h"), (None, "unknown")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert describe_seconds(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(1234.5, "1234/s"), (34.1, "34/s"), (3.41, "3.4/s"), (0.5, "30/min"), (0.001, "3.6/h")]
)
def test_rates(rate: float, text: str) -> None:
    assert describe_rate(rate) == text


def progress(done: int, total: int, **values: float | None) -> Progress:
    defaults: dict[str, float | None] = {"rate": 2.0, "seconds_left": 10.0, "job_seconds_left": None}
    chosen = defaults | values
    return Progress(
        *("embedding", done, total, 3, 60.0, chosen["rate"], chosen["seconds_left"], chosen["job_seconds_left"], None)
    )


def test_lines() -> None:
    line = describe(progress(1024, 5000, job_seconds_left=250.0))
    assert line == "embedding: 1,024 of 5,000 (20%), 2.0/s, 0:10 left, 3 skipped; in all about 4:10 left"
    assert "none done in 1:00" in describe(progress(0, 5000, rate=None, seconds_left=None))
    assert describe(progress(0, 1)) == "embedding: 1:00 so far"
    assert describe_end(progress(120, 120), True) == "embedding: 120 in 1:00, 2.0/s, 3 skipped"
    assert "ended early after 60 of 120" in describe_end(progress(60, 120), True)
    assert "stopped after 60 of 120" in describe_end(progress(60, 120), False)


def job(console: Console) -> None:
    with tracking(console) as track:
        expect(Planned("first", 4, 1), Planned("second", 4, 1))
        track("first", 4)(3)
        skipped(1)
        track("second", 4)(4)
        track("nothing to do", 0)


def test_a_terminal_shows_no_bar_of_an_abandoned_stage() -> None:
    screen = io.StringIO()
    job(Console(file=screen, force_terminal=True, width=100, color_system=None))
    shown = screen.getvalue()
    assert "first: ended early after 3 of 4" in shown
    # After the last move of the cursor, lines remain and no bar does.
    assert "\N{BOX DRAWINGS HEAVY HORIZONTAL}" not in shown.rpartition("second: 4 in")[2]
    assert "nothing to do" not in shown


def test_other_files_get_one_line_for_each_stage() -> None:
    file = io.StringIO()
    job(Console(file=file))
    lines = file.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["first", "second"]
    assert "1 skipped" in lines[0]


def test_progress_leaves_standard_output_to_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert not sys.stdout.isatty()
    job(Console())
    assert capsys.readouterr().out == ""
    new_display(Console(stderr=True))


def test_quiet_jobs_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(quiet=True):
        job(Console())
    job(Console(quiet=True))
    assert capsys.readouterr() == ("", "")


def test_a_failed_job_says_where_it_stopped() -> None:
    file = io.StringIO()

    def fail() -> None:
        with tracking(Console(file=file)) as track:
            track("first", 4)(3)
            raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        fail()
    assert "first: stopped after 3 of 4" in file.getvalue()
