"""FOR, put together: from a backbone and base labels to a finetuned summary head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from forclip.config import HeadConfig, TrainConfig
from forclip.embedding import BATCH_SIZE
from forclip.evaluation.protocol import ClassSplit
from forclip.losses import max_sim
from forclip.models.backbone import Backbone
from forclip.models.summary_head import SummaryHead, noise_seeded_head, window_seeded_head
from forclip.objectives import BaseLabels, Objective, PseudoLabels, TeacherSet
from forclip.progress import Track, untracked
from forclip.prompts import encode_classes
from forclip.pseudo_labels import teacher_vectors
from forclip.training import TrainingSet, new_state, total_steps, train
from forclip.types import Annotations, Bools


@dataclass(frozen=True)
class Supervision:
    """What the owner of the data knows.

    labels, verified: [I, C] of base classes; texts: [C, D] unit, theirs; vocabulary: [V, D] unit, for pseudo-labels.
    """

    labels: Bools
    verified: Bools
    texts: Tensor
    vocabulary: Tensor


def supervise(
    backbone: Backbone,
    train: Annotations,
    split: ClassSplit,
    templates: Sequence[str],
    vocabulary: Sequence[str],
    allow_unlabelled_base: bool = False,
) -> Supervision:
    """Base labels of the training images: nothing of a novel class gets past this function.

    vocabulary: names for pseudo-labels; base classes join it and novel ones are taken out. Raises ValueError for a
    base class that no training image shows, unless allow_unlabelled_base: then nothing is learned of it.
    """
    base = train.with_classes(split.base)
    shown = np.atleast_1d(base.labels.any(0))
    if not allow_unlabelled_base and not shown.all():
        name = split.base[int(shown.argmin())]
        raise ValueError(f"base class {name!r} is in no training image: leave it out or make it novel")
    known = base.with_classes([name for name, there in zip(split.base, shown, strict=True) if there])
    novel = {name.lower() for name in split.novel}
    words = list(dict.fromkeys([*split.base, *(w for w in vocabulary if w.lower() not in novel)]))
    texts = encode_classes(backbone, known.class_names, templates)
    return Supervision(known.labels, np.ones_like(known.labels), texts, encode_classes(backbone, words, templates))


@dataclass(frozen=True)
class Finetuned:
    """A trained head and each objective's value at every step."""

    head: SummaryHead
    history: list[dict[str, float]]


def untuned_head(backbone: Backbone, config: HeadConfig, seed: int) -> SummaryHead:
    """The summary head before any training, on the backbone's device."""
    pool = backbone.new_pool()
    match config.seeding:
        case "windows":
            head = window_seeded_head(pool, config.num_query_tokens)
        case "noise":
            head = noise_seeded_head(pool, config.num_query_tokens, config.noise_scale, seed)
    return head.to(backbone.device).eval()


def finetune(
    backbone: Backbone,
    tokens: Tensor,
    supervision: Supervision,
    head_config: HeadConfig,
    config: TrainConfig,
    checkpoint: Path | None = None,
    track: Track = untracked,
) -> Finetuned:
    """tokens: [I, T, W], the training images through the backbone. Goes on from the checkpoint where there is one.

    Raises ValueError where a base class has no training image, or the checkpoint is of another configuration.
    """
    head = untuned_head(backbone, head_config, config.seed)
    data = TrainingSet(
        tokens,
        torch.from_numpy(supervision.labels),
        torch.from_numpy(supervision.verified),
        teacher_vectors(
            backbone.new_pool(), tokens, config.teacher_clusters, backbone.device, track("clustering", len(tokens))
        ),
    )
    objectives = build_objectives(head, data, supervision, config)
    state = new_state(head, objectives, config)
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint)
    advance = track("finetuning", total_steps(len(data), config))
    advance(state.step)
    train(state, data, config, checkpoint, lambda step, terms: advance(1))
    return Finetuned(head, state.history)


def build_objectives(
    head: SummaryHead, data: TrainingSet, supervision: Supervision, config: TrainConfig
) -> Sequence[Objective]:
    """The terms whose weight is above 0, the base labels' logits fitted to the untrained head."""
    device = head.offsets.device
    objectives: list[nn.Module] = []
    if config.base_weight > 0:
        base = BaseLabels(supervision.texts, config.base_loss, config.base_weight)
        base.fit(_untuned_scores(head, data.tokens, supervision.texts), data.targets, data.verified)
        objectives.append(base)
    if config.pseudo_weight > 0:
        objectives.append(PseudoLabels(supervision.vocabulary, config.pseudo_temperature, config.pseudo_weight))
    if config.set_weight > 0:
        objectives.append(TeacherSet(config.set_weight))
    if not objectives:
        raise ValueError("every objective's weight is 0: there is nothing to train on")
    return [o.to(device) for o in objectives]  # type: ignore[misc]  # a Module's type doesn't show that it is an Objective


@torch.no_grad()  # not inference_mode: training saves the result for its backward pass
def _untuned_scores(head: SummaryHead, tokens: Tensor, texts: Tensor) -> Tensor:
    device = head.offsets.device
    parts = [
        max_sim(head(batch.to(device, torch.float32)), texts.to(device)).cpu() for batch in tokens.split(BATCH_SIZE)
    ]
    return torch.cat(parts)
