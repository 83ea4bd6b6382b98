"""Finetune a summary head with FOR: from a backbone and base labels to a head and its class vectors.

The steps: align the untuned head with the target domain; choose a teacher; choose alpha on held-out base classes;
train; learn class vectors. Every choice is made on base labels alone.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.calibration.model import Calibration
from forclip.config import HeadConfig, TrainConfig
from forclip.embedding.embed import BATCH_SIZE
from forclip.models.backbone import Backbone
from forclip.models.retrieval_model import SAME_WORD, ClassVectors, no_class_vectors
from forclip.models.summary_head import SummaryHead
from forclip.progress import Track, untracked
from forclip.training import losses, objectives
from forclip.training.class_holdout import Gain, History, calibrate, choose_alpha, run_in_batches, score_images
from forclip.training.initialisation import choose_initial_head
from forclip.training.losses import max_sim
from forclip.training.supervision import Supervision
from forclip.training.teachers import ClusterTeacher, Teacher, ZoomTeacher, choose_teacher
from forclip.training.trainer import TrainingSet, new_state, total_steps, train
from forclip.training.weight_interpolation import interpolate

_LEARNING_RATE_WIDTH = 128
# Of class vectors.
_TEXT_IMAGES = 20_000  # at most: their vectors are held in memory
_TEXT_STEPS, _TEXT_BATCH, _TEXT_RATE = 200, 64, 1e-2
_HALF_TRUST = 5.0  # positive images with which a class gets half of its shift


@dataclass(frozen=True)
class Choices:
    """What was chosen on base labels, and the evidence: gains in mean AP of base classes, in percent points.

    alignment_gain: over no alignment, None if not measured; teacher_gains: of each teacher over the untuned head;
    alpha: how far the head is from the untuned (0) to the tuned head (1); alpha_gains: of held-out classes, by alpha.
    """

    labelled_images: int
    aligned: bool
    alignment_gain: float | None
    teacher: str | None
    teacher_gains: dict[str, Gain]
    alpha: float
    alpha_gains: dict[float, Gain]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `share` is the file format's name of alpha."""
        content = asdict(self)
        del content["alpha"], content["alpha_gains"]
        return content | {"share": self.alpha, "share_gains": {str(a): gain for a, gain in self.alpha_gains.items()}}


@dataclass(frozen=True)
class Finetuned:
    """The result of finetuning.

    head: the one to use, between untuned and tuned; class_vectors: its text side; history: each objective's value at
    every step, empty for alpha 0; calibration: of the head's scores, None if there was too little to fit it to.
    """

    head: SummaryHead
    class_vectors: ClassVectors
    untuned: SummaryHead
    tuned: SummaryHead
    history: History
    choices: Choices
    calibration: Calibration | None = None


def finetune(
    backbone: Backbone,
    tokens: Tensor,
    paths: Sequence[Path] | None,
    supervision: Supervision,
    head_config: HeadConfig,
    config: TrainConfig,
    checkpoint: Path | None = None,
    track: Track = untracked,
) -> Finetuned:
    """Finetune FOR, from the checkpoint if there is one. Trial trainings have checkpoints next to it.

    tokens: [V, I, T, W] float16, V views of each training image, the plain one first; paths: [I], for the zoom teacher.
    Raises ValueError if there is nothing to learn from, or if a checkpoint is of another configuration.
    """
    supervision = supervision.keep_labelled_fraction(config.labelled_fraction, config.seed)
    if not len(supervision.texts) and config.base_weight > 0:
        raise ValueError("no training image has a base label: there is nothing to learn from")
    plain = tokens[0]
    untuned, alignment_gain = choose_initial_head(backbone, plain, supervision, head_config, config.seed)
    config = replace(config, learning_rate=config.learning_rate * _LEARNING_RATE_WIDTH / untuned.pool.width)

    teacher: str | None = None
    teacher_gains: dict[str, Gain] = {}
    teacher_vectors = torch.zeros(len(plain), 0, 1)
    if config.teacher != "none" and (config.pseudo_weight or config.set_weight or config.random_text_weight):
        clusters = ClusterTeacher(untuned.pool, plain, config.teacher_clusters, backbone.device)
        teachers: dict[str, Teacher] = {"cluster": clusters}
        if paths is not None:
            teachers["zoom"] = ZoomTeacher(backbone, untuned.pool, paths)
        teacher = config.teacher
        if teacher == "auto":
            teacher, teacher_gains = choose_teacher(teachers, untuned, plain, supervision, track)
        elif teacher not in teachers:
            raise ValueError(f"teacher {teacher!r} needs the paths of the training images")
        if teacher is not None:
            advance = track(f"running teacher {teacher}", len(plain))
            teacher_vectors = teachers[teacher](range(len(plain)), advance)

    train_head = partial(_train_head, untuned, tokens, teacher_vectors, config, track)
    alpha, alpha_gains, trials = choose_alpha(train_head, untuned, plain, supervision, config, checkpoint)
    calibration = calibrate(untuned, trials, alpha, plain, supervision, config.seed)
    # With alpha 0 the trained head would not be used.
    tuned, history = train_head(supervision, "finetuning", checkpoint) if alpha > 0 else (untuned, [])
    head = interpolate(untuned, tuned, alpha).eval()
    evidence = (untuned.pool.output is not None, alignment_gain, teacher, teacher_gains, alpha, alpha_gains)
    choices = Choices(len(supervision.labelled), *evidence)
    class_vectors = _class_vectors(head, plain, supervision, config)
    return Finetuned(head, class_vectors, untuned, tuned, history, choices, calibration)


def _train_head(
    untuned: SummaryHead,
    tokens: Tensor,
    teacher_vectors: Tensor,
    config: TrainConfig,
    track: Track,
    supervision: Supervision,
    description: str,
    checkpoint: Path | None,
) -> tuple[SummaryHead, History]:
    """Train a copy of the untuned head. teacher_vectors: [I, K, D], K = 0 without a teacher."""
    head = interpolate(untuned, untuned, 0.0)
    labels, verified, labelled = supervision.labels, supervision.verified, supervision.labelled
    if not teacher_vectors.shape[1] and len(labelled) < tokens.shape[1]:
        # Without a teacher, unlabelled images add nothing to the loss.
        rows = torch.from_numpy(labelled)
        tokens, teacher_vectors = tokens[:, rows], teacher_vectors[rows]
        labels, verified = labels[labelled], verified[labelled]
    untuned_vectors = teacher_vectors[:, :0]
    if config.neighbour_weight > 0:
        untuned_vectors = run_in_batches(head, tokens[0], torch.arange(tokens.shape[1]), head.offsets.device)
    base_labels = (torch.from_numpy(labels), torch.from_numpy(verified))
    data = TrainingSet(*base_labels, teacher_vectors, untuned_vectors, tokens)
    state = new_state(head, build_objectives(head, data, supervision, config), config)
    # Settings and supervision: continuing a run with another split would mix novel and base labels.
    digest = hashlib.sha256(json.dumps(asdict(replace(config, checkpoint_every=1)), sort_keys=True).encode())
    for array in (labels, verified, supervision.texts.cpu().numpy(), supervision.vocabulary.cpu().numpy()):
        digest.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    state.identity = digest.hexdigest()
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint)
    advance = track(description, total_steps(len(data), config))
    advance(state.step)
    train(state, data, config, checkpoint, lambda step, terms: advance(1))
    return state.result.requires_grad_(False), state.history


def build_objectives(
    head: SummaryHead, data: TrainingSet, supervision: Supervision, config: TrainConfig
) -> list[objectives.Objective]:
    """Build the objectives with a weight above 0, without those that lack a teacher; fit the base labels to the head.

    Raises ValueError if no objective is left.
    """
    terms: list[objectives.Objective] = []
    words, texts = supervision.vocabulary.cpu(), supervision.texts.cpu()
    if config.base_weight > 0:
        base_labels = objectives.BaseLabels(texts, config.base_loss, config.base_weight, words)
        rows = data.verified.any(1).nonzero()[:, 0]
        if len(rows):
            scores = score_images(head, data.tokens[0], rows, supervision.texts)
            base_labels.fit(scores, data.targets[rows], data.verified[rows])
        terms.append(base_labels)
    if data.teacher.shape[1]:
        if config.pseudo_weight > 0:
            terms.append(objectives.PseudoLabels(words, config.pseudo_temperature, config.pseudo_weight))
        if config.set_weight > 0:
            terms.append(objectives.TeacherSet(config.set_weight))
        if config.random_text_weight > 0:
            settings = (config.pseudo_temperature, config.random_text_weight, config.seed)
            terms.append(objectives.RandomTexts(words, len(words), *settings))
    if config.neighbour_weight > 0 and len(texts):
        near = words[objectives.nearest_words(texts, words, config.neighbour_words)]
        if len(near):
            scores = torch.cat([max_sim(part, near) for part in data.untuned.split(BATCH_SIZE)])
            spread = scores.std(0).clamp(min=1e-4) if len(scores) > 1 else torch.ones(len(near))
            terms.append(objectives.NeighbourWords(near, spread, config.neighbour_weight))
    if config.diversity_weight > 0:
        terms.append(objectives.QueryDiversity(config.diversity_weight))
    if not terms:
        raise ValueError("no objective has a weight (or a teacher to follow): there is nothing to train on")
    return [term.to(head.offsets.device) for term in terms]


def _class_vectors(head: SummaryHead, tokens: Tensor, supervision: Supervision, config: TrainConfig) -> ClassVectors:
    if config.class_vectors == 0 or config.base_weight == 0:
        return no_class_vectors(head.pool.dim)
    rows = supervision.labelled
    if len(rows) > _TEXT_IMAGES:
        rows = np.sort(np.random.default_rng([config.seed, 5]).choice(rows, _TEXT_IMAGES, replace=False))
    vectors = run_in_batches(head, tokens, torch.from_numpy(rows), head.offsets.device).half()
    targets, verified = torch.from_numpy(supervision.labels[rows]), torch.from_numpy(supervision.verified[rows])
    texts, words = supervision.texts.cpu(), supervision.vocabulary.cpu()
    return learn_class_vectors(vectors, targets, verified, texts, words, config.class_vectors, config.seed)


def learn_class_vectors(
    vectors: Tensor, targets: Tensor, verified: Tensor, texts: Tensor, vocabulary: Tensor, strength: float, seed: int
) -> ClassVectors:
    """Fit a shift of each class's text vector, with the images' vectors fixed, and keep `strength` of it.

    vectors: [I, N, D] unit; targets, verified: [I, C]; texts: [C, D]; vocabulary: [V, D], words that keep their
    vectors. Keeping a part of the shift is weight interpolation (WiSE-FT, arXiv 2109.01903) of the text side; classes
    with few positive images keep less.
    """
    shifts = torch.zeros_like(texts, requires_grad=True)
    classifier = objectives.BaseLabels(texts, "binary", 1.0)
    classifier.fit(torch.cat([max_sim(part.float(), texts) for part in vectors.split(_TEXT_BATCH)]), targets, verified)
    groups = [{"params": [shifts], "lr": _TEXT_RATE}, {"params": list(classifier.parameters()), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _TEXT_STEPS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(_TEXT_STEPS):
        rows = torch.randperm(len(vectors), generator=generator)[:_TEXT_BATCH]
        scores = max_sim(vectors[rows].float(), F.normalize(texts + shifts, dim=-1))
        loss = losses.binary_loss(classifier.logits(scores), targets[rows], verified[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    positives = (targets & verified).sum(0)
    trust = strength * positives / (positives + _HALF_TRUST)
    cosines = texts @ torch.cat([texts, vocabulary]).T
    # Of words that are no class itself; 0 if there is none.
    nearest = cosines.masked_fill(cosines > SAME_WORD, -1).amax(1).clamp(min=0)
    return ClassVectors(texts, shifts.detach() * trust[:, None], nearest)
