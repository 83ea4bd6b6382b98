"""A whole run on several workers: continued by one process, and ended by an error."""

import os
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from forclip import distributed
from forclip.training import runs, teachers
from tests.training.test_runs import coco
from tests.workers import run_in_workers

IMAGES = [
    ["cat"],
    ["dog"],
    ["cat", "dog"],
    [],
    ["car"],
    ["cup"],
    ["cat", "cup"],
] * 22  # half is trained on: 77, two shards of a cache


def write_config(folder: Path, **data: Any) -> Path:
    """A small run with trials, a teacher, and labels of a third of the images."""
    coco(folder / "train.json", IMAGES)
    settings = {"epochs": 2, "views": 2, "batch_size": 9, "teacher": "cluster", "teacher_clusters": 2}
    content = {
        "data": {"train": {"annotations": "train.json"}, **data},
        "model": {"name": "forclip-mini"},
        "head": {"num_query_tokens": 2, "seeding": "clusters"},
        "train": {
            **settings,
            "labelled_fraction": 0.4,
            "checkpoint_every": 5,
            "learning_rate": 0.001,
            "interpolation": 0.5,
        },
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


def train_run(config: str, out: str) -> None:
    """Train, with one thread."""
    torch.set_num_threads(1)
    runs.train(config, out, console=Console(width=200))


def fail_on_second(config: str, out: str) -> None:
    """Train, each worker as on a machine of its own; the second cannot read a picture when it runs the teacher."""
    os.environ["GROUP_RANK"] = str(distributed.rank())
    if distributed.rank() == 1:

        def fail(*arguments: Any) -> None:
            raise ValueError("picture seven is gone")

        setattr(teachers.HeadTeacher, "__call__", fail)  # noqa: B010 (a method)
    train_run(config, out)


def test_shards_of_a_cache_are_reused_by_any_number_of_workers(tmp_path: Path) -> None:
    config = write_config(tmp_path, cache="cache")
    first = run_in_workers(train_run, 2, config, tmp_path / "two")
    assert [process.returncode for process in first] == [0, 0], first[0].stderr
    headers = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("tokens.json")}
    assert len(headers) == 2
    # One process continues what two began: the checkpoint at the end of the finetuning.
    model = runs.train(config, tmp_path / "two", resume=True, console=Console(quiet=True))
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("tokens.json")} == headers
    assert model.class_vectors is not None


def test_an_error_on_one_worker_ends_all_with_its_message(tmp_path: Path) -> None:
    finished = run_in_workers(fail_on_second, 2, write_config(tmp_path), tmp_path / "run")
    assert all(process.returncode for process in finished)
    assert "ValueError: picture seven is gone" in finished[1].stderr
    assert "picture seven is gone" in finished[0].stderr
    assert not (tmp_path / "run" / "config.json").exists()
