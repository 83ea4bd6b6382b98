"""Train a summary head on cached tokens: one step, the whole run, and a state that survives interruption."""

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from forclip import distributed
from forclip.atomic_write import write_atomically
from forclip.config import TrainConfig
from forclip.embedding.row_shards import Rows, read_rows
from forclip.models.compute import resolve_compute
from forclip.models.pools import upgrade_key
from forclip.models.summary_head import SummaryHead
from forclip.training.objectives import Batch, Objective

_MAX_GRADIENT_NORM = 1.0
_TEXTS = "texts."  # before the names of a checkpoint's text vectors
_ROUNDING = 0.005  # of unit vectors by float16, or by another machine's half precision
_FEWEST_EPOCHS, _MOST_EPOCHS, _USUAL_STEPS = 3, 30, 600
OnStep = Callable[[int, dict[str, float]], None]  # called with the number of steps done and each objective's value


@dataclass(frozen=True)
class TrainingSet:
    """All data that training sees. Novel classes have no column.

    tokens: [V, all images, T, W] float16 of the frozen backbone, V views of each image. rows: [I], the images that
    training sees, to which all other tensors belong. targets, verified: [V, I, C] base labels and which of them are
    known. teacher: [V, I, K, D] unit vectors, or [1, I, K, D] for a teacher that shows all views the same; K = 0
    without a teacher. untuned: [1, I, N, D], of the head before training, if an objective needs it.

    Of the tokens and the teacher's vectors, each worker may have only a part.
    """

    tokens: Rows
    rows: Tensor
    targets: Tensor
    verified: Tensor
    teacher: Rows
    untuned: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, views: Tensor, positions: Tensor, device: torch.device) -> Batch:
        """Return what objectives see of a batch's images. views, positions in `rows`: [B] each. *Collective*."""
        parts = (self.targets, self.verified, self.teacher, self.untuned)
        same = torch.zeros_like(views)
        return Batch(*(read_rows(x, positions, views if len(x) > 1 else same).to(device) for x in parts))


@dataclass
class TrainingState:
    """Everything that a checkpoint keeps.

    average: the head with weights averaged over steps, or None; history: each objective's value at every step done;
    identity: a text that names labels and settings; texts: vectors that training depends on, by name. A checkpoint
    with another identity or other texts is refused. Texts may differ by rounding, as on another machine.
    """

    head: SummaryHead
    objectives: Sequence[Objective]
    optimizer: torch.optim.AdamW
    average: SummaryHead | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    identity: str = ""
    texts: dict[str, Tensor] = field(default_factory=dict)

    @property
    def result(self) -> SummaryHead:
        """The trained head."""
        return self.average or self.head

    @property
    def step(self) -> int:
        """The number of steps done."""
        return len(self.history)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor of the state by name, not copied, so that loading can write into them."""
        modules: dict[str, nn.Module] = {"head": self.head, **{o.name: o for o in self.objectives}}
        if self.average is not None:
            modules["average"] = self.average
        tensors = {f"{name}.{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}
        for k, parameter in enumerate(_parameters(self.optimizer)):
            moments = self.optimizer.state[parameter]
            # AdamW creates its moments at the first step; a new state needs them before, to load into.
            for key in ("exp_avg", "exp_avg_sq"):
                tensors[f"adamw.{k}.{key}"] = moments.setdefault(key, torch.zeros_like(parameter))
            tensors[f"adamw.{k}.step"] = moments.setdefault("step", torch.tensor(0.0))
        return tensors

    def synchronise(self) -> None:
        """Take over the first worker's state. *Collective*."""
        distributed.synchronise(self.tensors().values())
        self.history = distributed.broadcast(self.history)

    def save(self, file: Path) -> None:
        """Write a checkpoint; an interruption leaves the previous one."""
        metadata = {"history": json.dumps(self.history), "identity": self.identity}
        # Copied, because objectives may share a tensor, which safetensors refuses.
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in self.tensors().items()}
        tensors |= {f"{_TEXTS}{name}": vectors.detach().cpu().half() for name, vectors in self.texts.items()}
        write_atomically(file, lambda temporary: save_file(tensors, temporary, metadata))

    def load(self, file: Path) -> None:
        """Read a checkpoint.

        Raises ValueError if it has another identity, other texts, other tensors or other shapes.
        """
        with safe_open(file, framework="pt") as stored:
            tensors = self.tensors()
            keys = set(stored.keys())
            texts = {key for key in keys if key.startswith(_TEXTS)}
            names = {upgrade_key(name): name for name in keys - texts}
            same_texts = texts == {f"{_TEXTS}{name}" for name in self.texts} and all(
                _are_close(vectors, stored.get_tensor(f"{_TEXTS}{name}")) for name, vectors in self.texts.items()
            )
            same = stored.metadata().get("identity") == self.identity and same_texts
            if not same or names.keys() != tensors.keys():
                raise ValueError(f"{file}: a checkpoint of another configuration; start again in another folder")
            for name, tensor in tensors.items():
                saved = stored.get_tensor(names[name])
                if saved.shape != tensor.shape:
                    raise ValueError(f"{file}: {name} has shape {tuple(saved.shape)}, not {tuple(tensor.shape)}")
                with torch.no_grad():
                    tensor.copy_(saved)
            self.history = json.loads(stored.metadata()["history"])


def _are_close(vectors: Tensor, saved: Tensor) -> bool:
    """Whether unit vectors are the same up to rounding."""
    same_shape = vectors.shape == saved.shape
    return same_shape and torch.allclose(vectors.detach().cpu().float(), saved.float(), rtol=0, atol=_ROUNDING)


def new_state(
    head: SummaryHead, objectives: Sequence[Objective], config: TrainConfig, trainable: str = "all"
) -> TrainingState:
    """Freeze what `trainable` excludes, and give the rest to AdamW (arXiv 1711.05101).

    trainable: as `TrainConfig.trainable` names it.
    """
    assert config.learning_rate is not None
    head.requires_grad_(False)
    for parameter in trained_parameters(head, trainable):
        parameter.requires_grad_(True)
    stage = {id(p) for p in head.pool.stage_parameters()}
    groups: list[dict[str, Any]] = []
    for lr_scale, in_stage in ((1.0, False), (config.stage_learning_rate, True)):
        parameters = [p for p in head.parameters() if p.requires_grad and (id(p) in stage) is in_stage]
        decayed = [p for p in parameters if p.ndim >= 2 and p is not head.bias]
        others = [p for p in parameters if p.ndim < 2 or p is head.bias]
        if not in_stage:
            others += [p for objective in objectives for p in objective.parameters()]
        groups.append({"params": decayed, "weight_decay": config.weight_decay, "lr_scale": lr_scale})
        groups.append({"params": others, "weight_decay": 0.0, "lr_scale": lr_scale})
    average = copy.deepcopy(head).requires_grad_(False).eval() if config.ema_decay > 0 else None
    groups = [group for group in groups if group["params"]]
    return TrainingState(head, objectives, torch.optim.AdamW(groups, lr=config.learning_rate), average)


def trained_parameters(head: SummaryHead, trainable: str) -> list[nn.Parameter]:
    """Return the parameters of the head that are trained, as `TrainConfig.trainable` names them.

    Positional embeddings stay: each query token learns where to look by its bias, and a gradient of all positions takes
    a third of a step's time.
    """
    trained = [head.offsets, head.bias]
    match trainable:
        case "query_key":
            trained += head.pool.query_key_parameters()
        case "all":
            trained += [p for name, p in head.pool.named_parameters() if name != "positional_embedding"]
    return trained


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 faster than float32: GPUs from A100's on, CPUs with instructions for it."""
    if device.type == "cuda":
        return resolve_compute("auto", device) == "bf16"
    has_instructions = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and bool(has_instructions())


def train(
    state: TrainingState, data: TrainingSet, config: TrainConfig, checkpoint: Path | None, on_step: OnStep
) -> None:
    """Train until config.epochs are done, and save to checkpoint every config.checkpoint_every steps and at the end.

    A run that continues from a checkpoint gives the same result as an uninterrupted one, bit-identical on a CPU.
    Several workers compute each batch together, and the first one saves. *Collective*.
    """
    total, saves = total_steps(len(data), config), checkpoint is not None and distributed.is_first()
    state.synchronise()
    state.head.train()
    while state.step < total:
        epoch, done = divmod(state.step, total // number_of_epochs(len(data), config))
        for views, positions in _batches(data, config, epoch, done):
            train_step(state, data, views, positions, learning_rate(state.step, total, config), config.ema_decay)
            if saves and checkpoint is not None and state.step % config.checkpoint_every == 0:
                state.save(checkpoint)
            on_step(state.step, state.history[-1])
    state.head.eval()
    state.synchronise()
    if saves and checkpoint is not None:
        state.save(checkpoint)


def train_step(
    state: TrainingState, data: TrainingSet, views: Tensor, positions: Tensor, learning_rate: float, ema_decay: float
) -> None:
    """Take one step. views, positions: of each image of the batch, [B] each. *Collective*.

    Each worker computes a part of the batch: the sum of their gradients is that of one process. Raises ValueError if
    the loss is not finite.
    """
    device = state.head.offsets.device
    whole, part = data.batch(views, positions, device), distributed.part(len(positions))
    has_images = part.start < part.stop
    if not has_images:
        part = slice(0, 1)  # an image that counts for nothing, so that all workers do the same
    batch = whole.part(part)
    for group in state.optimizer.param_groups:
        group["lr"] = group["lr_scale"] * learning_rate
    with torch.autocast(device.type, torch.bfloat16, enabled=multiplies_bfloat16(device)):
        tokens = read_rows(data.tokens, data.rows[positions], views, part, device)
        vectors = state.head(tokens.to(torch.float32)).float()
    # Losses run in float32: they magnify differences of a thousandth, which bfloat16 cannot represent.
    terms = torch.stack([o(vectors, batch) * _share(o, batch, whole) * has_images for o in state.objectives])
    loss_weights = torch.tensor([o.weight for o in state.objectives], device=device)
    state.optimizer.zero_grad()
    (loss_weights * terms).sum().backward()
    terms = _add_up(terms.detach(), _parameters(state.optimizer))
    loss = (loss_weights * terms).sum()
    if not torch.isfinite(loss):
        raise ValueError(f"the loss is {loss.item()} at step {state.step}; a lower learning_rate may help")
    nn.utils.clip_grad_norm_(_parameters(state.optimizer), _MAX_GRADIENT_NORM)
    state.optimizer.step()
    if state.average is not None:
        # It moves faster at first, so that it forgets the start (as timm's ModelEma).
        weight = 1 - min(ema_decay, (1 + state.step) / (10 + state.step))
        with torch.no_grad():
            for average, current in zip(state.average.parameters(), state.head.parameters(), strict=True):
                average.lerp_(current, weight)
    state.history.append({o.name: term for o, term in zip(state.objectives, terms.tolist(), strict=True)})


def _share(objective: Objective, batch: Batch, whole: Batch) -> float:
    """Return the share that a part of a batch has in the objective's mean over the whole batch."""
    return max(1, objective.divisor(batch)) / max(1, objective.divisor(whole))


def _add_up(terms: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Sum terms and gradients over the workers, the gradients in place. Returns the terms. *Collective*."""
    if distributed.world_size() == 1:
        return terms
    gradients = [p.grad for p in parameters if p.grad is not None]
    tensors = [terms, *gradients]
    sums = distributed.add_up(torch.cat([t.flatten() for t in tensors])).split_with_sizes([t.numel() for t in tensors])
    for gradient, total in zip(gradients, sums[1:], strict=True):
        gradient.copy_(total.view_as(gradient))
    summed: Tensor = sums[0]
    return summed


def total_steps(num_images: int, config: TrainConfig) -> int:
    """Return the number of steps of a whole run."""
    return number_of_epochs(num_images, config) * math.ceil(num_images / config.batch_size)


def number_of_epochs(num_images: int, config: TrainConfig, num_parts: int = 1) -> int:
    """Return the configured number of epochs, or if None one for about 600 steps: at least 3, at most 30 for each part.

    num_parts: of an image, of which an epoch sees one.
    """
    steps_of_epoch = math.ceil(num_images / config.batch_size)
    most = _MOST_EPOCHS * num_parts
    return config.epochs or max(_FEWEST_EPOCHS, min(most, round(_USUAL_STEPS / steps_of_epoch)))


def epochs_and_images(
    config: TrainConfig, num_images: int, num_parts: int, share_of_epochs: float, max_steps: int | None
) -> tuple[int, int]:
    """Return the epochs and the number of images of a training that may be short.

    share_of_epochs: of those of a whole training; max_steps: beyond which images are left out.
    """
    epochs = max(1, round(share_of_epochs * number_of_epochs(num_images, config, num_parts)))
    most = num_images if max_steps is None else max(1, max_steps // epochs) * config.batch_size
    return epochs, min(num_images, most)


def learning_rate(step: int, total_steps: int, config: TrainConfig) -> float:
    """Linear warm-up over config.warmup_share of the steps, then a cosine to zero (arXiv 1608.03983)."""
    assert config.learning_rate is not None
    warmup = max(1, round(config.warmup_share * total_steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def _batches(data: TrainingSet, config: TrainConfig, epoch: int, skip: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Return views and positions of each batch of an epoch after the first `skip`, drawn from the seed and the epoch.

    If fewer than half of the images are labelled, half of each batch is drawn from those: the gradient of the base
    labels from one labelled image in 64 would be noise.
    """
    random = np.random.default_rng([config.seed, epoch])
    batches = np.split(random.permutation(len(data)), range(config.batch_size, len(data), config.batch_size))
    labelled = data.verified.any(2).any(0).nonzero()[:, 0].numpy()
    if 0 < len(labelled) < len(data) / 2:
        batches = [np.concatenate([rows[::2], random.choice(labelled, len(rows) // 2)]) for rows in batches]
    views = [random.integers(len(data.tokens), size=len(rows)) for rows in batches]
    return iter([(torch.from_numpy(v), torch.from_numpy(r)) for v, r in zip(views, batches, strict=True)][skip:])


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
