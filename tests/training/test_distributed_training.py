"""Training on several workers: equal to one process, whatever the labels and the batches."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from forclip import distributed
from forclip.config import TrainConfig
from forclip.embedding.row_shards import from_workers
from forclip.models.summary_head import window_seeded_head
from forclip.training import objectives, trainer
from forclip.training.trainer import TrainingSet, TrainingState, new_state, train
from tests.tiny import tiny_pool
from tests.workers import run_in_workers

# 22 images in batches of 3: no multiple of the workers, and the last batch has one image.
CONFIG = TrainConfig(epochs=2, batch_size=3, learning_rate=0.01)
KINDS = ("all verified", "partly verified", "labels of views", "unlabelled images", "every objective", "few in memory")


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator), dim=-1)


def training(kind: str) -> tuple[TrainingState, TrainingSet]:
    """A head with objectives, and two views of 22 images. Some kinds keep only a part of the rows on each worker."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 22, 9, 8, generator=generator).half()
    targets = torch.rand(2, 22, 4, generator=generator) < 0.3
    verified = torch.rand(2, 22, 4, generator=generator) < 0.6
    if kind != "labels of views":
        targets[1], verified[1] = targets[0], verified[0]
    if kind == "all verified":
        verified[:] = True
    if kind == "unlabelled images":
        verified[:, 4:] = False  # also batches without any label
    teacher, untuned = unit(generator, 2, 22, 3, 6).half(), unit(generator, 1, 22, 4, 6)
    texts, words = unit(generator, 4, 6), unit(generator, 7, 6)
    loss: objectives.BaseLoss = "softmax" if kind in ("every objective", "unlabelled images") else "binary"
    terms: list[objectives.Objective] = [
        objectives.BaseLabels(texts, loss, 1.0),
        objectives.PseudoLabels(words, 0.1, 0.5, 0),
        objectives.TeacherSet(2.0),
    ]
    if kind == "every objective":
        terms += [
            objectives.RandomTexts(words, 5, 0.1, 0.5, 0),
            objectives.NeighbourWords(words, torch.full((7,), 0.1), 0.5),
            objectives.QueryDiversity(0.1),
        ]
    own = torch.arange(22)[torch.arange(22) % distributed.world_size() == distributed.rank()]
    data = TrainingSet(tokens, torch.arange(22), targets, verified, teacher, untuned)
    data = replace(data, teacher=from_workers(teacher[:, own], own, 22))
    if kind == "few in memory":
        data = replace(data, tokens=from_workers(tokens[:, own], own, 22))
    config = replace(CONFIG, ema_decay=0.9 if kind == "every objective" else 0.0)
    return new_state(window_seeded_head(tiny_pool((3, 3)), 4), terms, config), data


def train_all_kinds(out: str) -> None:
    """Train each kind, and write the first worker's weights and losses."""
    torch.set_num_threads(1)
    # Products in bfloat16 differ by more than rounding where a batch is divided.
    trainer.multiplies_bfloat16 = lambda device: False
    results: dict[str, Tensor] = {}
    for kind in KINDS:
        state, data = training(kind)
        train(state, data, CONFIG, None, lambda step, terms: None)
        results |= {f"{kind}/{name}": tensor.clone() for name, tensor in state.tensors().items()}
        results[f"{kind}/history"] = torch.tensor([list(terms.values()) for terms in state.history])
    if distributed.is_first():
        save_file(results, out)


def test_workers_train_as_one_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "multiplies_bfloat16", lambda device: False)
    train_all_kinds(str(tmp_path / "one"))
    finished = run_in_workers(train_all_kinds, 2, tmp_path / "several")
    assert [process.returncode for process in finished] == [0, 0], finished[0].stderr
    one, several = load_file(tmp_path / "one"), load_file(tmp_path / "several")
    for kind in KINDS:
        start = training(kind)[0].tensors()
        # A bias of the keys changes no attention: its gradient is rounding errors, which AdamW scales up.
        names = [n for n in start if n.startswith(("head", "average", "base_labels")) and "k_proj.bias" not in n]
        moved = torch.cat([(one[f"{kind}/{n}"] - start[n]).flatten() for n in names]).norm()
        difference = torch.cat([(several[f"{kind}/{n}"] - one[f"{kind}/{n}"]).flatten() for n in names]).norm()
        assert difference < 1e-5 * moved, kind
        assert torch.allclose(one[f"{kind}/history"], several[f"{kind}/history"], rtol=1e-5, atol=1e-6)
