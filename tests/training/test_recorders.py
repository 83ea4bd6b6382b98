"""Recorded trainings: read back by TensorBoard's own reader and from wandb's files."""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from forclip.models.summary_head import SummaryHead
from forclip.progress import EventLog, reporting
from forclip.toyworld.dataset import ToyWorld
from forclip.training.recorders import TensorBoardRecorder, WandbRecorder, open_recorder
from forclip.training.runs import train
from tests.cli.test_cli import assert_one_line, run, write_config


def read_back(folder: Path) -> EventAccumulator:
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    read.Reload()
    return read


def wandb_records(data: bytes) -> Iterator[bytes]:
    """Read a .wandb file: a header, and records cut at blocks as in LevelDB's log."""
    position, block, record = 7, 32768, b""
    while position + 7 <= len(data):
        left = block - position % block
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


def test_a_run_is_recorded_and_its_result_is_the_same(tmp_path: Path, small_world: ToyWorld) -> None:
    settings = {"epochs": 2, "interpolation": None, "held_back_folds": 2}
    config = write_config(tmp_path, small_world, train=settings)
    log = EventLog(tmp_path / "log.jsonl")
    with reporting(quiet=True, log=log):
        recorded = train(config, tmp_path / "recorded", console=Console(quiet=True), tensorboard=True)
    log.finish()
    plain = train(config, tmp_path / "plain", console=Console(quiet=True))
    assert isinstance(recorded.head, SummaryHead)
    assert isinstance(plain.head, SummaryHead)
    for name, weight in recorded.head.state_dict().items():
        assert torch.equal(weight, plain.head.state_dict()[name]), name

    folder = tmp_path / "recorded" / "tensorboard"
    assert sorted(stage.name for stage in folder.iterdir()) == ["finetuning", "run", "trial 1 of 2", "trial 2 of 2"]
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    history = json.loads((tmp_path / "recorded" / "history.json").read_text())
    for stage in ("trial 1 of 2", "finetuning"):
        read = read_back(folder / stage)
        epochs = [event for event in events if event["event"] == "epoch" and event["stage"] == stage]
        assert [epoch["epoch"] for epoch in epochs] == [1, 2]
        steps = [point.step for point in read.Scalars("loss/total")]
        assert steps == list(range(1, epochs[-1]["step"] + 1))
        measured = ["map_seen_classes"] + ["map_held_out_classes"] * (stage != "finetuning")
        for name in measured:
            points = read.Scalars(name.replace("map_", "map/"))
            assert [point.step for point in points] == [epoch["step"] for epoch in epochs]
            assert [point.value for point in points] == pytest.approx([epoch[name] for epoch in epochs], abs=0.01)
        rankings = [tag for tag in read.Tags()["images"] if tag.startswith("rankings/")]
        assert 1 <= len(rankings) <= 4
        assert [image.step for image in read.Images(rankings[0])] == [epoch["step"] for epoch in epochs]
        assert read.Images(rankings[0])[0].width == 8 * read.Images(rankings[0])[0].height
    final = read_back(folder / "finetuning")
    assert not any(tag.startswith("map/held") for tag in final.Tags()["scalars"])
    for name in history[0]:
        written = [point.value for point in final.Scalars(f"loss/{name}")]
        assert written == pytest.approx([terms[name] for terms in history], rel=1e-5)
    assert "choices/text_summary" in read_back(folder / "run").Tags()["tensors"]


def test_a_resumed_run_hides_the_points_that_were_lost(tmp_path: Path) -> None:
    for first, last, value in ((1, 8, 1.0), (6, 10, 2.0)):  # killed after step 8, with a checkpoint after step 5
        recorder = TensorBoardRecorder(tmp_path)
        for step in range(first, last + 1):
            recorder.scalars("finetuning", step, {"loss/total": value})
        recorder.close()
    points = read_back(tmp_path / "finetuning").Scalars("loss/total")
    assert [(point.step, point.value) for point in points] == [(s, 1.0) for s in range(1, 6)] + [
        (s, 2.0) for s in range(6, 11)
    ]


class FakeWandb(ModuleType):
    """Keeps what it is told."""

    Error = type("Error", (Exception,), {})
    Settings, Image = dict, staticmethod(lambda picture: picture.size)

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.axes: dict[str, str] = {}
        self.summary: dict[str, str] = {}
        self.finished = 0

    def init(self, **options: Any) -> "FakeWandb":
        if options["project"] == "secret":
            raise self.Error("no API key")
        self.started.append(options)
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        self.axes[name] = step_metric

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        self.finished += 1


def test_wandb_gets_the_same_and_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for step in (1, 2):
        recorder = open_recorder(tmp_path, {"epochs": 2}, tensorboard=True, wandb="pictures")
        recorder.scalars("trial 1 of 2", step, {"loss/total": step / 2})
        recorder.picture("trial 1 of 2", step, "rankings/dog", Image.new("RGB", (8, 4)))
        recorder.text("choices", "{}")
        recorder.close()
    assert len({options["id"] for options in fake.started}) == 1
    assert fake.started[0]["config"] == {"epochs": 2}
    assert fake.axes == {"trial 1 of 2/*": "trial 1 of 2/step"}
    assert fake.rows[0] == {"trial 1 of 2/step": 1, "trial 1 of 2/loss/total": 0.5}
    assert fake.rows[3] == {"trial 1 of 2/step": 2, "trial 1 of 2/rankings/dog": (8, 4)}
    assert fake.summary == {"choices": "{}"}
    assert fake.finished == 2
    points = read_back(tmp_path / "tensorboard" / "trial 1 of 2").Scalars("loss/total")
    assert [(point.step, point.value) for point in points] == [(1, 0.5), (2, 1.0)]
    with pytest.raises(ValueError, match="--wandb secret: no API key"):
        open_recorder(tmp_path, {}, tensorboard=False, wandb="secret")


@pytest.mark.slow  # starts wandb's own service twice
def test_wandb_records_offline_and_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    for first in (1, 3):
        recorder = WandbRecorder("pictures", tmp_path, {"train": {"epochs": 2}})
        for step in (first, first + 1):
            recorder.scalars("finetuning", step, {"loss/total": step / 2})
        recorder.picture("finetuning", first + 1, "rankings/dog", Image.new("RGB", (8, 4)))
        recorder.text("choices", "{}")
        recorder.close()
    ids, points = set(), dict[float, float]()
    for file in tmp_path.glob("wandb/offline-run-*/*.wandb"):
        for content in wandb_records(file.read_bytes()):
            message = wandb_internal_pb2.Record()
            message.ParseFromString(content)
            if message.WhichOneof("record_type") == "run":
                ids.add((message.run.run_id, message.run.project))
            if message.WhichOneof("record_type") == "history":
                row = {(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in message.history.item}
                if "finetuning/loss/total" in row:
                    points[row["finetuning/step"]] = row["finetuning/loss/total"]
    assert len(ids) == 1
    assert points == {1: 0.5, 2: 1.0, 3: 1.5, 4: 2.0}
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/finetuning/rankings/*.png"))) == 2


@pytest.mark.parametrize(("option", "extra"), [(["--tensorboard"], "tensorboard"), (["--wandb", "mine"], "wandb")])
def test_a_missing_extra_is_named_before_any_work(
    tmp_path: Path, small_world: ToyWorld, monkeypatch: pytest.MonkeyPatch, option: list[str], extra: str
) -> None:
    for module in ("torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    result = run("train", write_config(tmp_path, small_world), "--out", tmp_path / "run", *option)
    assert_one_line(result, option[0], f"pip install 'forclip[{extra}]'")
