"""--quiet and --log, as a user types them."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from forclip.cli import app, main
from forclip.progress import ticker
from forclip.progress.job import Job
from forclip.toyworld.dataset import ToyWorld
from tests.child import run_in_child
from tests.cli.test_cli import assert_one_line, run, write_config


def events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def pictures(tmp_path: Path, small_world: ToyWorld) -> Path:
    """Five pictures and one file that is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for file in sorted(small_world.images.glob("gallery_*.jpg"))[:5]:
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def index_slowly(*arguments: str) -> None:
    """Run a command that takes its time for every item, and whose progress is reported often."""
    ticker._SECONDS = ticker._LATER_SECONDS = 0.05
    advance = Job._advance

    def slowly(job: Job, stage: Any, count: int) -> None:
        advance(job, stage, count)
        time.sleep(0.1)

    setattr(Job, "_advance", slowly)  # noqa: B010 (a method)
    sys.argv = ["forclip", *arguments]
    main()


def test_a_job_without_a_terminal_prints_lines(pictures: Path, tmp_path: Path) -> None:
    finished = run_in_child(index_slowly, "index", pictures, "--to", tmp_path / "store", "--model", "forclip-mini")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("5 added, 0 updated")
    lines = finished.stderr.splitlines()
    assert any(re.fullmatch(r"looking for changes: \d of 6 \(\d+%\), [\d.]+/s, 0:0\d left", line) for line in lines)
    assert any(line.startswith("embedding: 6 in 0:0") and line.endswith("1 skipped") for line in lines)


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_prints_the_result_alone(pictures: Path, tmp_path: Path, place: str) -> None:
    log = tmp_path / "log.jsonl"
    command: list[str | Path] = ["index", pictures, "--to", tmp_path / "store", "--model", "forclip-mini"]
    command += ["--log", log]
    command.insert(0 if place == "before" else len(command), "--quiet")
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert result.stdout.startswith("5 added")
    loud = run("index", pictures, "--to", tmp_path / "other", "--model", "forclip-mini")
    assert "embedding: 6 in" in loud.stderr  # not quiet for ever
    written = events(log)
    assert (written[0]["event"], written[0]["command"]) == ("start", "index")
    assert (written[-1]["event"], written[-1]["status"]) == ("end", "completed")
    (embedded,) = [event for event in written if event["event"] == "stage_end" and event["stage"] == "embedding"]
    assert (embedded["done"], embedded["total"], embedded["skipped"]) == (6, 6, 1)
    assert any(event["event"] == "notice" for event in written)


def test_quiet_errors_are_printed_and_logged(tmp_path: Path) -> None:
    result = run("--log", tmp_path / "log.jsonl", "info", tmp_path / "missing", "--quiet")
    assert_one_line(result, "missing")
    end = events(tmp_path / "log.jsonl")[-1]
    assert end["status"] == "failed"
    assert "missing" in end["error"]


def test_a_log_in_a_folder_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_line(run("--log", tmp_path / "file" / "log.jsonl", "models"), "log.jsonl", "cannot be written")


def test_every_command_has_quiet() -> None:
    names = [info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands]
    assert len(names) > 15
    for command in [*([name] for name in names), ["data", "check"]]:
        shown = run(*command, "--help").output
        assert "--quiet" in shown, command


def test_a_quiet_training_prints_the_model_alone(tmp_path: Path, small_world: ToyWorld) -> None:
    config = write_config(tmp_path, small_world, train={"epochs": 1, "interpolation": 0.5})
    log, out = tmp_path / "log.jsonl", tmp_path / "run"
    result = run("train", config, "--out", out, "--quiet", "--log", log)
    assert result.exit_code == 0, result.output
    assert result.output == f"The model: {out}\n"
    stages = {event["stage"]: event for event in events(log) if event["event"] == "stage_end"}
    assert stages["finetuning"]["done"] == stages["finetuning"]["total"] > 0


@pytest.mark.parametrize("rank", ["0", "1"])
def test_torchrun_does_not_start_other_commands_several_times(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str
) -> None:
    for key, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": rank}.items():
        monkeypatch.setenv(key, value)
    commands: list[list[str]] = [
        ["index", str(pictures), "--to", str(tmp_path / "store")],
        ["--quiet", "search", "store", "dog"],
    ]
    for command in commands:
        result = run(*command)
        if rank == "0":
            assert_one_line(result, "torchrun", "train and eval")
        else:
            assert (result.exit_code, result.output) == (2, "")
    assert not (tmp_path / "store").exists()
