"""Whole runs on two workers: as one process, continued by one, killed and resumed, measured, and ended by an error."""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from forclip import distributed
from forclip.experiments import evaluate
from forclip.training import runs, teachers, trainer
from tests.training.test_runs import GALLERY, coco
from tests.workers import run_in_workers

IMAGES = [
    ["cat"],
    ["dog"],
    ["cat", "dog"],
    [],
    ["car"],
    ["cup"],
    ["cat", "cup"],
]


def write_config(folder: Path, repetitions: int, **data: Any) -> Path:
    """A small run with a teacher, and labels of a third of the images. Half of the images are trained on."""
    coco(folder / "train.json", IMAGES * repetitions)
    coco(folder / "gallery.json", GALLERY)
    content = {
        "data": {"train": {"annotations": "train.json"}, "gallery": {"annotations": "gallery.json"}, **data},
        "model": {"name": "forclip-mini"},
        "head": {"num_query_tokens": 2, "seeding": "clusters"},
        "train": {
            **{"epochs": 1, "views": 2, "batch_size": 9, "teacher": "cluster", "teacher_clusters": 2},
            **{"labelled_fraction": 0.4, "checkpoint_every": 3, "learning_rate": 0.001, "interpolation": 0.5},
        },
        "eval": {"clusters": [2]},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return folder / "run.yaml"


def train_run(config: str, out: str, kill_at: str = "", resume: str = "") -> None:
    """Train in float32, with one thread. kill_at: the step at which the second worker kills itself."""
    torch.set_num_threads(1)
    # Products in bfloat16 differ by more than rounding where a batch is divided.
    setattr(trainer, "multiplies_bfloat16", lambda device: False)  # noqa: B010 (a function)
    if kill_at:
        step = trainer.train_step

        def die(state: trainer.TrainingState, *arguments: Any) -> None:
            step(state, *arguments)
            if state.step == int(kill_at) and distributed.rank() == 1:
                os.kill(os.getpid(), signal.SIGKILL)

        setattr(trainer, "train_step", die)  # noqa: B010 (a function)
    runs.train(config, out, resume=bool(resume), console=Console(width=200))


def train_and_evaluate(config: str, out: str) -> None:
    """Train, and measure the run. The second worker must write no result."""
    train_run(config, out)
    if distributed.rank() == 1:
        for name in ("write_metrics", "write_comparison_report"):
            setattr(evaluate, name, None)
    evaluate.evaluate(config, Path(out) / "eval", model=out, console=Console(width=200))


def fail_on_second(config: str, out: str) -> None:
    """Train, each worker as on a machine of its own; the second cannot read a picture when it runs the teacher."""
    os.environ["GROUP_RANK"] = str(distributed.rank())
    if distributed.rank() == 1:

        def fail(*arguments: Any) -> None:
            raise ValueError("picture seven is gone")

        setattr(teachers.HeadTeacher, "__call__", fail)  # noqa: B010 (a method)
    train_run(config, out)


def weights(run: Path, end: str) -> Tensor:
    """The trained weights of a head, but the keys' bias: it changes no attention, so that rounding errors move it."""
    state = {k: v for k, v in load_file(run / "ends.safetensors").items() if k.startswith(end)}
    return torch.cat([v.flatten() for k, v in state.items() if "k_proj.bias" not in k and ".pooled" not in k])


@dataclass
class Finished:
    """A run of two workers that share a cache: two shards of training images, and one of the gallery."""

    config: Path
    out: Path
    cache: Path


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("workers")
    config = write_config(folder, 20, cache="cache")
    processes = run_in_workers(train_and_evaluate, 2, config, folder / "two")
    assert [process.returncode for process in processes] == [0, 0], processes[0].stderr
    assert "The model:" in processes[0].stdout
    assert processes[1].stdout + processes[1].stderr == ""
    return Finished(config, folder / "two", folder / "cache")


def test_two_workers_train_as_one_process_does(
    of_two: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "multiplies_bfloat16", lambda device: False)
    config, one = yaml.safe_load(of_two.config.read_text()), tmp_path / "one"
    del config["data"]["cache"]
    for labels in config["data"].values():
        labels["annotations"] = str(of_two.config.with_name(labels["annotations"]))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    runs.train(tmp_path / "run.yaml", one, console=Console(quiet=True))
    moved = (weights(one, "tuned") - weights(one, "untuned")).norm()
    for end in ("untuned", "tuned"):
        assert (weights(of_two.out, end) - weights(one, end)).norm() < 1e-4 * moved
    names = ("teacher", "share", "pooled_share", "class_vectors", "candidate", "aligned")
    chosen = [json.loads((run / "choices.json").read_text()) for run in (one, of_two.out)]
    assert [chosen[0][name] for name in names] == [chosen[1][name] for name in names]


def test_a_killed_run_resumes_bit_for_bit(of_two: Finished, tmp_path: Path) -> None:
    killed = run_in_workers(train_run, 2, of_two.config, tmp_path, "5")
    assert killed[1].returncode == -signal.SIGKILL
    assert killed[0].returncode not in (0, -signal.SIGKILL)
    assert "lost contact with another worker" in killed[0].stderr
    assert not (tmp_path / "config.json").exists()
    resumed = run_in_workers(train_run, 2, of_two.config, tmp_path, "", "resume")
    assert [process.returncode for process in resumed] == [0, 0], resumed[0].stderr
    assert torch.equal(weights(tmp_path, "tuned"), weights(of_two.out, "tuned"))
    history = [json.loads((run / "history.json").read_text()) for run in (tmp_path, of_two.out)]
    assert history[0] == history[1]


def test_shards_of_a_cache_are_reused_by_any_number_of_workers(of_two: Finished) -> None:
    headers = {file: file.stat().st_mtime_ns for file in of_two.cache.rglob("tokens.json")}
    assert len(headers) >= 3  # two shards of training images, and the gallery's
    # One process continues what two began: the checkpoint at the end of the finetuning.
    model = runs.train(of_two.config, of_two.out, resume=True, console=Console(quiet=True))
    assert {file: file.stat().st_mtime_ns for file in of_two.cache.rglob("tokens.json")} == headers
    assert model.class_vectors is not None


def test_two_workers_measure_as_one_process_does(of_two: Finished, tmp_path: Path) -> None:
    several = json.loads((of_two.out / "eval" / "metrics.json").read_text())
    one = evaluate.evaluate(of_two.config, tmp_path, model=of_two.out, console=Console(quiet=True))
    assert several["methods"].keys() == one["methods"].keys()
    assert several["gallery"] == one["gallery"]
    for name, values in one["methods"].items():
        for key in ("base", "all", "vectors_per_image"):
            assert several["methods"][name][key] == pytest.approx(values[key], abs=0.01), (name, key)
    assert (of_two.out / "eval" / "report.html").exists()


def test_an_error_on_one_worker_ends_all_with_its_message(tmp_path: Path) -> None:
    finished = run_in_workers(fail_on_second, 2, write_config(tmp_path, 3), tmp_path / "run")
    assert all(process.returncode for process in finished)
    assert "ValueError: picture seven is gone" in finished[1].stderr
    assert "picture seven is gone" in finished[0].stderr
    assert not (tmp_path / "run" / "config.json").exists()
