"""A whole run on several workers: as one process, killed and resumed, and ended by an error."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from forclip import distributed
from forclip.training import runs, teachers, trainer
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


def train_run(config: str, out: str, kill_at: str = "", resume: str = "") -> None:
    """Train in exact arithmetic. kill_at: a step of the finetuning at which the second worker kills itself."""
    torch.set_num_threads(1)
    # Products in bfloat16 differ by more than rounding where a batch is divided.
    trainer.multiplies_bfloat16 = lambda device: False
    if kill_at:
        step = trainer.train_step

        def die(state: trainer.TrainingState, *arguments: Any) -> None:
            step(state, *arguments)
            if state.step == int(kill_at) and (Path(out) / "checkpoint.safetensors").exists():
                os.kill(os.getpid(), signal.SIGKILL if distributed.rank() == 1 else 0)

        trainer.train_step = die
    runs.train(config, out, resume=bool(resume), console=Console(width=200))


def fail_on_second(config: str, out: str) -> None:
    """Train, each worker as on a machine of its own; the second cannot read a picture when it runs the teacher."""
    os.environ["GROUP_RANK"] = str(distributed.rank())
    if distributed.rank() == 1:

        def fail(*arguments: Any) -> None:
            raise ValueError("picture seven is gone")

        teachers.HeadTeacher.__call__ = fail
    train_run(config, out)


def ends(run: Path, end: str) -> Tensor:
    """All weights of a head but the keys' bias, which changes no attention and so is moved by rounding errors."""
    state = load_file(run / "ends.safetensors")
    return torch.cat([v.flatten() for k, v in state.items() if k.startswith(end) and "k_proj.bias" not in k])


def test_a_run_on_workers_equals_one_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cache, after a kill and with another number of workers; with a cache, which one process reuses."""
    monkeypatch.setattr(trainer, "multiplies_bfloat16", lambda device: False)
    config, one, several = write_config(tmp_path), tmp_path / "one", tmp_path / "several"
    train_run(str(config), str(one))
    killed = run_in_workers(train_run, 2, config, several, "8")
    assert killed[1].returncode == -signal.SIGKILL
    assert killed[0].returncode != 0
    assert "lost contact with another worker" in killed[0].stderr
    resumed = run_in_workers(train_run, 2, config, several, "", "resume")
    assert [process.returncode for process in resumed] == [0, 0], resumed[0].stderr
    assert "The model:" in resumed[0].stdout
    assert resumed[1].stdout + resumed[1].stderr == ""
    moved = (ends(one, "tuned") - ends(one, "untuned")).norm()
    assert torch.equal(ends(several, "untuned"), ends(one, "untuned"))
    assert (ends(several, "tuned") - ends(one, "tuned")).norm() < 1e-5 * moved
    names = ("teacher", "share", "pooled_share", "class_vectors", "candidate", "aligned")
    chosen = [json.loads((run / "choices.json").read_text()) for run in (one, several)]
    assert [chosen[0][name] for name in names] == [chosen[1][name] for name in names]


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
