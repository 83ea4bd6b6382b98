"""A log of JSON lines: what a program reads of a job."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from forclip.progress import EventLog, record, reporting, skipped, ticker, tracking


def events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_events_of_a_job_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ticker, "_SECONDS", 0.01)
    log = EventLog(tmp_path / "new" / "log.jsonl")
    with reporting(quiet=True, log=log), tracking(Console()) as track:
        advance = track("embedding", 6)
        advance(2)
        skipped(1)
        record("notice", message="a picture\nof two lines", nothing=None)
        now = {"stage": "embedding", "done": 2, "total": 6, "skipped": 1}
        while not any(event.items() >= now.items() for event in events(tmp_path / "new" / "log.jsonl")):
            time.sleep(0.01)
        advance(4)
        track("trying", 3)
    log.finish()
    written = events(tmp_path / "new" / "log.jsonl")
    times = [datetime.fromisoformat(event.pop("time")) for event in written]
    assert times == sorted(times)
    assert times[0].utcoffset() is not None
    ticks = [event for event in written if event["event"] == "progress"]
    done = [tick["done"] for tick in ticks]
    assert done == sorted(done)
    others = [event for event in written if event["event"] != "progress"]
    assert others[0] == {"event": "stage", "stage": "embedding", "total": 6}
    assert others[1] == {"event": "notice", "message": "a picture\nof two lines"}
    assert [(e["stage"], e["done"], e["ended"]) for e in others if e["event"] == "stage_end"] == [
        ("embedding", 6, "completed"),
        ("trying", 0, "ended early"),
    ]


def test_a_log_is_continued(tmp_path: Path) -> None:
    for number in range(2):
        log = EventLog(tmp_path / "log.jsonl")
        log.write("start", number=number)
        log.finish()
        log.write("late")  # nothing happens
    assert [event["number"] for event in events(tmp_path / "log.jsonl")] == [0, 1]


def test_a_file_that_can_not_be_written_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path}: cannot be written"):
        EventLog(tmp_path)


def test_a_full_disk_ends_the_log_and_not_the_job() -> None:
    said: list[str] = []
    log = EventLog(Path("/dev/full"), said.append)
    with reporting(log=log), tracking(Console(quiet=True)) as track:
        track("embedding", 1)(1)
    log.finish()
    assert len(said) == 1
    assert "/dev/full" in said[0]
