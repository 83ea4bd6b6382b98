"""Finetuning the summary head on cached tokens: one epoch, the whole run, and the state that survives a kill."""

import copy
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from forclip.config import TrainConfig
from forclip.models.pools import upgrade_key
from forclip.models.summary_head import SummaryHead
from forclip.training.objectives import Batch, Objective

_MAX_GRADIENT_NORM = 1.0
OnStep = Callable[[int, dict[str, float]], None]  # told the steps done and each objective's value


@dataclass(frozen=True)
class TrainingSet:
    """All that training sees of a dataset. Novel classes have no column in it.

    tokens: [V, I, T, W] float16 of the frozen backbone, V views of each image; targets, verified: [I, C] bool, base
    labels and which of them are known; teacher: [I, K, D] unit, K = 0 without one; untuned: [I, N, D] unit, the head's
    own vectors before training.
    """

    tokens: Tensor
    targets: Tensor
    verified: Tensor
    teacher: Tensor
    untuned: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, rows: Tensor, device: torch.device) -> Batch:
        """What the objectives may look at, of these rows."""
        return Batch(*(x[rows].to(device) for x in (self.targets, self.verified, self.teacher, self.untuned)))


@dataclass
class TrainingState:
    """What a kill must not lose. average: of the head's weights over steps, or None; history: one dict of objective
    values for each step done; identity: of the labels and settings, in whatever words: a checkpoint of another is
    refused."""

    head: SummaryHead
    objectives: Sequence[Objective]
    optimizer: torch.optim.AdamW
    average: SummaryHead | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    identity: str = ""

    @property
    def result(self) -> SummaryHead:
        """The head that training hands over."""
        return self.average or self.head

    @property
    def step(self) -> int:
        return len(self.history)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name; loading copies into these."""
        named = {f"head.{k}": v for k, v in self.head.state_dict().items()}
        if self.average is not None:
            named |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for objective in cast(Sequence[nn.Module], self.objectives):
            named |= {f"{objective.name}.{k}": v for k, v in objective.state_dict().items()}
        for number, parameter in enumerate(_parameters(self.optimizer)):
            moments = self.optimizer.state[parameter]
            # AdamW makes its moments at the first step; a new state is given them here, to be loaded into.
            for key in ("exp_avg", "exp_avg_sq"):
                named[f"adamw.{number}.{key}"] = moments.setdefault(key, torch.zeros_like(parameter))
            named[f"adamw.{number}.step"] = moments.setdefault("step", torch.tensor(0.0))
        return named

    def save(self, file: Path) -> None:
        """Whole or not at all: written beside the file, then moved over it."""
        metadata = {"history": json.dumps(self.history), "identity": self.identity}
        partial = file.with_suffix(".partial")
        save_file({k: v.detach().cpu().contiguous() for k, v in self.tensors().items()}, partial, metadata)
        os.replace(partial, file)

    def load(self, file: Path) -> None:
        """Raises ValueError where the file is of another run's shapes."""
        with safe_open(file, framework="pt") as stored:
            expected = self.tensors()
            same = stored.metadata().get("identity") == self.identity
            stored_names = {upgrade_key(name): name for name in stored.keys()}  # noqa: SIM118  # not a dict
            if not same or stored_names.keys() != expected.keys():
                raise ValueError(f"{file}: a checkpoint of another configuration; start anew in another folder")
            for name, tensor in expected.items():
                saved = stored.get_tensor(stored_names[name])
                if saved.shape != tensor.shape:
                    raise ValueError(f"{file}: {name} has shape {tuple(saved.shape)}, not {tuple(tensor.shape)}")
                with torch.no_grad():
                    tensor.copy_(saved)
            self.history = json.loads(stored.metadata()["history"])


def new_state(head: SummaryHead, objectives: Sequence[Objective], config: TrainConfig) -> TrainingState:
    """Freezes what config.trainable leaves out, and gives the rest to AdamW (arXiv 1711.05101)."""
    head.requires_grad_(config.trainable == "all")
    trained = [head.offsets, head.bias]
    if config.trainable == "query_key":
        trained += head.pool.query_key_parameters()
    for parameter in trained:
        parameter.requires_grad_(True)
    stage = {id(p) for p in head.pool.stage_parameters()}
    groups: list[dict[str, Any]] = []
    for share, own in ((1.0, False), (config.stage_learning_rate, True)):
        part = [p for p in head.parameters() if p.requires_grad and (id(p) in stage) is own]
        decayed = [p for p in part if p.ndim >= 2 and p is not head.bias]
        kept = [p for p in part if p.ndim < 2 or p is head.bias]
        if not own:
            kept += [p for o in cast(Sequence[nn.Module], objectives) for p in o.parameters()]
        groups.append({"params": decayed, "weight_decay": config.weight_decay, "share": share})
        groups.append({"params": kept, "weight_decay": 0.0, "share": share})
    average = copy.deepcopy(head).requires_grad_(False).eval() if config.ema_decay > 0 else None
    groups = [group for group in groups if group["params"]]
    return TrainingState(head, objectives, torch.optim.AdamW(groups, lr=config.learning_rate), average)


def train(
    state: TrainingState, data: TrainingSet, config: TrainConfig, checkpoint: Path | None, on_step: OnStep
) -> None:
    """Trains until config.epochs are done, from wherever the state is. Saves to checkpoint every so many steps.

    Stopped anywhere and started again from the checkpoint, it does what it would have done, to the last bit on a CPU.
    """
    steps_an_epoch, total = _steps_an_epoch(len(data), config), total_steps(len(data), config)
    state.head.train()
    while state.step < total:
        epoch, done = divmod(state.step, steps_an_epoch)
        train_one_epoch(state, data, config, _batches(data, config, epoch, done), total, checkpoint, on_step)
    state.head.eval()
    if checkpoint is not None:
        state.save(checkpoint)


def train_one_epoch(
    state: TrainingState,
    data: TrainingSet,
    config: TrainConfig,
    batches: Iterator[tuple[Tensor, Tensor]],
    total_steps: int,
    checkpoint: Path | None,
    on_step: OnStep,
) -> None:
    """One step for each batch: a view and a row for each image. total_steps: of the whole run, for the cosine."""
    device = state.head.offsets.device
    parameters = _parameters(state.optimizer)
    for views, rows in batches:
        batch = data.batch(rows, device)
        for group in state.optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(state.step, total_steps, config)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            vectors = state.head(data.tokens[views, rows].to(device, torch.float32)).float()
        # Out of autocast: a score in bfloat16 is too coarse for losses that magnify differences of a thousandth.
        terms = {o.name: o(vectors, batch) for o in state.objectives}
        loss = torch.stack([o.weight * terms[o.name] for o in state.objectives]).sum()
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()} at step {state.step}; a lower learning_rate may help")
        state.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, _MAX_GRADIENT_NORM)
        state.optimizer.step()
        _follow(state, config.ema_decay)
        state.history.append({name: term.item() for name, term in terms.items()})
        if checkpoint is not None and state.step % config.checkpoint_every == 0:
            state.save(checkpoint)
        on_step(state.step, state.history[-1])


def total_steps(num_images: int, config: TrainConfig) -> int:
    """Of a whole run."""
    return config.epochs * _steps_an_epoch(num_images, config)


def _steps_an_epoch(num_images: int, config: TrainConfig) -> int:
    return math.ceil(num_images / config.batch_size)


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """Linear warm-up over config.warmup_share of the steps, then a cosine to zero (arXiv 1608.03983)."""
    warmup = max(1, round(config.warmup_share * total_steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _batches(data: TrainingSet, config: TrainConfig, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Views and rows of each batch of an epoch after the first `skip`. They depend on seed and epoch alone.

    Where fewer than half the images are labelled, half of each batch is drawn from those: with one labelled image in a
    batch of 64, the base labels' gradient would be noise.
    """
    random = np.random.default_rng([config.seed, epoch])
    parts = np.split(random.permutation(len(data)), range(config.batch_size, len(data), config.batch_size))
    labelled = data.verified.any(1).nonzero()[:, 0].numpy()
    if 0 < len(labelled) < len(data) / 2:
        parts = [np.concatenate([part[::2], random.choice(labelled, len(part) // 2)]) for part in parts]
    views = [random.integers(len(data.tokens), size=len(part)) for part in parts]
    return iter([(torch.from_numpy(v), torch.from_numpy(p)) for v, p in zip(views, parts, strict=True)][skip:])


def _follow(state: TrainingState, decay: float) -> None:
    """The average moves towards the head; early on faster, or it would remember the start (as in timm's ModelEma)."""
    if state.average is None:
        return
    share = 1 - min(decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        for kept, now in zip(state.average.parameters(), state.head.parameters(), strict=True):
            kept.lerp_(now, share)


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
