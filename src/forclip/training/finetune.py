"""FOR, put together: from a backbone and base labels to a finetuned head and the text side that goes with it.

In order: align the untuned head with the target domain; choose a teacher; choose how far to go, on base classes held
back; train; let the base classes' text vectors follow the labels. Every choice is made on base labels alone.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from forclip.calibration.model import Calibration
from forclip.config import HeadConfig, TrainConfig
from forclip.embedding.embed import BATCH_SIZE
from forclip.evaluation.bootstrap import gain_with_bound
from forclip.models.backbone import Backbone
from forclip.models.class_vectors import ClassVectors, no_class_vectors
from forclip.models.summary_head import SummaryHead
from forclip.progress import Track, untracked
from forclip.training.class_holdout import (
    Trial,
    best_share,
    calibrate,
    class_folds,
    head_vectors,
    judged_by,
    labelled_precisions,
    score_images,
)
from forclip.training.class_vectors import learn_class_vectors
from forclip.training.initialisation import Start, choose_start
from forclip.training.losses import max_sim
from forclip.training.objectives import (
    BaseLabels,
    NeighbourWords,
    Objective,
    PseudoLabels,
    QueryDiversity,
    RandomTexts,
    TeacherSet,
    nearest_words,
)
from forclip.training.supervision import Supervision
from forclip.training.teachers import ClusterTeacher, Teacher, ZoomTeacher, choose_teacher
from forclip.training.trainer import TrainingSet, new_state, total_steps, train
from forclip.training.weight_interpolation import interpolate
from forclip.types import Floats

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way from the untuned to the tuned head, that are tried
_LEARNING_RATE_WIDTH = 128
_MOST_IMAGES = 20_000  # that class vectors are learned from: they are held in memory
_SHARE_WITHOUT_CHOICE = 0.5


@dataclass(frozen=True)
class TrainingImages:
    """tokens: [V, I, T, W] float16, V views of each image, the plain one first; paths: [I], or no zoom teacher."""

    tokens: Tensor
    paths: Sequence[Path] | None = None

    @classmethod
    def encoded(cls, tokens: Tensor, paths: Sequence[Path] | None) -> "TrainingImages":
        """tokens: as EncodedImages has them, without the axis of views where there is one view."""
        return cls(tokens if tokens.ndim == 4 else tokens[None], paths)


@dataclass(frozen=True)
class Choices:
    """What was decided on base labels, and the evidence: gains are AP of base classes in percent points.

    alignment_gain: over none, or None where not asked; teacher_gains: by teacher over the untuned head, the mean and
    that less a standard error; share: of the way to the tuned head; share_gains: the same two of classes held back.
    """

    labelled_images: int
    aligned: bool
    alignment_gain: float | None
    teacher: str | None
    teacher_gains: dict[str, tuple[float, float]]
    share: float
    share_gains: dict[float, tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """Plain values for json.dump."""
        return asdict(self) | {"share_gains": {str(share): gain for share, gain in self.share_gains.items()}}


@dataclass(frozen=True)
class Finetuned:
    """head: the one to use; class_vectors: its text side; untuned, tuned: the ends that head lies between; history:
    each objective's value at every step of the training, empty where the choice was to stay at the untuned head;
    calibration: what its scores are worth, None where no base class was held back to learn it from."""

    head: SummaryHead
    class_vectors: ClassVectors
    untuned: SummaryHead
    tuned: SummaryHead
    history: list[dict[str, float]]
    choices: Choices
    calibration: Calibration | None = None


def finetune(
    backbone: Backbone,
    images: TrainingImages,
    supervision: Supervision,
    head_config: HeadConfig,
    config: TrainConfig,
    checkpoint: Path | None = None,
    track: Track = untracked,
) -> Finetuned:
    """Goes on from the checkpoint where there is one; trial trainings have theirs beside it.

    Raises ValueError where nothing is labelled or weighed, or the checkpoint is of another configuration.
    """
    known = supervision.labelled_fraction(config.labelled_fraction, config.seed)
    if not len(known.texts) and config.base_weight > 0:
        raise ValueError("no training image has a base label: there is nothing to learn from")
    start = choose_start(backbone, images.tokens[0], known, head_config, config.seed)
    width = start.head.pool.width
    config = replace(config, learning_rate=config.learning_rate * _LEARNING_RATE_WIDTH / width)
    teacher, teacher_gains = _choose_teacher(backbone, start, images, known, config, track)
    taught = _teach(teacher, images, track)
    trainer = _Trainer(start, images.tokens, taught, config, track)
    share, share_gains, trials = _choose_share(trainer, known, config, checkpoint)
    calibration = calibrate(start.head, trials, share, images.tokens[0], known, config.seed)
    # The way is worth walking only if some of it is kept.
    tuned, history = trainer.run(known, "finetuning", checkpoint) if share > 0 else (start.head, [])
    head = interpolate(start.head, tuned, share).eval()
    choices = Choices(
        len(known.labelled),
        start.aligned,
        start.gain,
        None if teacher is None else teacher.name,
        teacher_gains,
        share,
        share_gains,
    )
    words = _class_vectors(head, images.tokens[0], known, config)
    return Finetuned(head, words, start.head, tuned, history, choices, calibration)


@dataclass(frozen=True)
class _Trainer:
    """Trains heads from one start. taught: [I, K, D], K = 0 without a teacher."""

    start: Start
    tokens: Tensor
    taught: Tensor
    config: TrainConfig
    track: Track

    def run(self, known: Supervision, what: str, checkpoint: Path | None) -> tuple[SummaryHead, list[dict[str, float]]]:
        head = interpolate(self.start.head, self.start.head, 0.0)
        tokens, taught = self.tokens, self.taught
        if not taught.shape[1] and len(known.labelled) < tokens.shape[1]:
            # Without a teacher an unlabelled image has nothing to say.
            rows = torch.from_numpy(known.labelled)
            tokens, taught = tokens[:, rows], taught[rows]
            known = replace(known, labels=known.labels[known.labelled], verified=known.verified[known.labelled])
        untuned = (
            head_vectors(head, tokens[0], torch.arange(tokens.shape[1])) if self.config.neighbour_weight > 0 else None
        )
        data = TrainingSet(
            tokens,
            torch.from_numpy(known.labels),
            torch.from_numpy(known.verified),
            taught,
            taught[:, :0] if untuned is None else untuned,
        )
        state = new_state(head, build_objectives(head, data, known, self.config), self.config)
        state.identity = _identity(known, self.config)
        if checkpoint is not None and checkpoint.exists():
            state.load(checkpoint)
        advance = self.track(what, total_steps(len(data), self.config))
        advance(state.step)
        train(state, data, self.config, checkpoint, lambda step, terms: advance(1))
        return state.result.requires_grad_(False), state.history


def _identity(known: Supervision, config: TrainConfig) -> str:
    """Of what a training learns and how: going on with other labels would mix two splits, and novel ones with base."""
    digest = hashlib.sha256(json.dumps(asdict(replace(config, checkpoint_every=1)), sort_keys=True).encode())
    for part in (known.labels, known.verified, known.texts.cpu().numpy(), known.vocabulary.cpu().numpy()):
        digest.update(f"{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def build_objectives(
    head: SummaryHead, data: TrainingSet, supervision: Supervision, config: TrainConfig
) -> Sequence[Objective]:
    """The terms whose weight is above 0, those that follow a teacher only with one; base logits fitted to the head."""
    objectives: list[nn.Module] = []
    words, texts = supervision.vocabulary.cpu(), supervision.texts.cpu()
    if config.base_weight > 0:
        objectives.append(_base_labels(head, data, supervision, config))
    if data.teacher.shape[1]:
        if config.pseudo_weight > 0:
            objectives.append(PseudoLabels(words, config.pseudo_temperature, config.pseudo_weight))
        if config.set_weight > 0:
            objectives.append(TeacherSet(config.set_weight))
        if config.random_text_weight > 0:
            settings = (config.pseudo_temperature, config.random_text_weight, config.seed)
            objectives.append(RandomTexts(words, len(words), *settings))
    near = words[nearest_words(texts, words, config.neighbour_words)] if len(texts) else words[:0]
    if config.neighbour_weight > 0 and len(near):
        spread = torch.cat([max_sim(part, near) for part in data.untuned.split(BATCH_SIZE)]).std(0).clamp(min=1e-4)
        objectives.append(NeighbourWords(near, spread.nan_to_num(1.0), config.neighbour_weight))
    if config.diversity_weight > 0:
        objectives.append(QueryDiversity(config.diversity_weight))
    if not objectives:
        raise ValueError("no objective has a weight (or a teacher to follow): there is nothing to train on")
    return [o.to(head.offsets.device) for o in objectives]  # type: ignore[misc]  # a Module's type doesn't show that it is an Objective


def _base_labels(head: SummaryHead, data: TrainingSet, known: Supervision, config: TrainConfig) -> BaseLabels:
    base = BaseLabels(known.texts, config.base_loss, config.base_weight, known.vocabulary).cpu()
    rows = data.verified.any(1).nonzero()[:, 0]
    if len(rows):
        scores = score_images(head, data.tokens[0], rows, known.texts)
        base.fit(scores, data.targets[rows], data.verified[rows])
    return base


def _choose_teacher(
    backbone: Backbone, start: Start, images: TrainingImages, known: Supervision, config: TrainConfig, track: Track
) -> tuple[Teacher | None, dict[str, tuple[float, float]]]:
    """The one that the config names, or the base labels choose."""
    follows = config.pseudo_weight > 0 or config.set_weight > 0 or config.random_text_weight > 0
    if config.teacher == "none" or not follows:
        return None, {}
    candidates: list[Teacher] = [
        ClusterTeacher(start.new_pool(), images.tokens[0], config.teacher_clusters, backbone.device)
    ]
    if images.paths is not None:
        candidates.append(ZoomTeacher(backbone, start.new_pool(), images.paths))
    if config.teacher == "auto":
        return choose_teacher(candidates, start.head, images.tokens[0], known, track)
    named = {teacher.name: teacher for teacher in candidates}
    if config.teacher not in named:
        raise ValueError(f"teacher {config.teacher!r} needs the training pictures themselves")
    return named[config.teacher], {}


def _teach(teacher: Teacher | None, images: TrainingImages, track: Track) -> Tensor:
    """The teacher's vectors of every training image, once."""
    count = images.tokens.shape[1]
    if teacher is None:
        return torch.zeros(count, 0, 1)
    return teacher(range(count), track(f"asking teacher {teacher.name}", count))


def _choose_share(
    trainer: _Trainer, known: Supervision, config: TrainConfig, checkpoint: Path | None
) -> tuple[float, dict[float, tuple[float, float]], list[Trial]]:
    """How far to go, from trial trainings that each miss some base classes and are judged on those."""
    folds = class_folds(len(known.texts), config.held_back_folds, config.seed)
    if config.interpolation is not None or config.base_weight == 0 or not folds:
        return (_SHARE_WITHOUT_CHOICE if config.interpolation is None else config.interpolation), {}, []
    curves = np.full((len(SHARES), len(known.texts)), np.nan, np.float32)
    trials = []
    for number, held in enumerate(folds):
        kept = known.keep_classes(np.setdiff1d(np.arange(len(known.texts)), held))
        file = checkpoint and checkpoint.with_name(f"{checkpoint.stem}_held_back_{number}{checkpoint.suffix}")
        tuned, _ = trainer.run(kept, f"trial {number + 1} of {len(folds)}", file)
        curves[:, held] = _precisions_along(trainer, tuned, judged_by(known, held))
        trials.append(Trial(held, tuned))
    gains = {share: gain_with_bound(curve, curves[0]) for share, curve in zip(SHARES, curves, strict=True)}
    return best_share(list(curves), SHARES), gains, trials


def _precisions_along(trainer: _Trainer, tuned: SummaryHead, judged: Supervision) -> Floats:
    """AP of the judged classes on the labelled photos, for each of SHARES. [shares, C]."""
    untuned = trainer.start.head
    heads = [interpolate(untuned, tuned, share).eval() for share in SHARES]
    return np.stack([labelled_precisions(head, trainer.tokens[0], judged) for head in heads])


def _class_vectors(head: SummaryHead, tokens: Tensor, known: Supervision, config: TrainConfig) -> ClassVectors:
    if config.class_vectors == 0 or config.base_weight == 0:
        return no_class_vectors(head.pool.dim)
    rows = known.labelled
    if len(rows) > _MOST_IMAGES:
        rows = np.sort(np.random.default_rng([config.seed, 5]).choice(rows, _MOST_IMAGES, replace=False))
    vectors = head_vectors(head, tokens, torch.from_numpy(rows)).half()
    targets, verified = torch.from_numpy(known.labels[rows]), torch.from_numpy(known.verified[rows])
    texts, words = known.texts.cpu(), known.vocabulary.cpu()
    return learn_class_vectors(vectors, targets, verified, texts, words, config.class_vectors, config.seed)
