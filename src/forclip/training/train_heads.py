"""Train copies of an untuned head on cached tokens: short trials, full trials, and the head to use."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from forclip.config import TrainConfig
from forclip.distributed import broadcast, is_first
from forclip.embedding.row_shards import Rows, first_views, from_workers, one_view, own_part
from forclip.models.baselines import ClusterHead
from forclip.models.summary_head import SummaryHead
from forclip.progress import Track, record
from forclip.training.build_objectives import build_objectives
from forclip.training.candidates import FIRST_GUESSES, Candidate, TeacherName
from forclip.training.score_images import plain_clip, run_in_batches
from forclip.training.self_training import guess_labels
from forclip.training.step_size import learning_rate_for, scale_for_labels
from forclip.training.supervision import Supervision
from forclip.training.teachers import HeadTeacher, Teacher
from forclip.training.trainer import TrainingSet, epochs_and_images, new_state, total_steps, train, trained_parameters
from forclip.training.watch import Watch, mean_terms
from forclip.types import Ints

History = list[dict[str, float]]  # each objective's value at every step
_LEARNING_RATE_WIDTH = 128


@dataclass
class HeadTrainer:
    """Trains copies of the untuned head.

    tokens: [V, I, T, W]; the first num_parts views are the parts that the model embeds. zoom: None without the images'
    files, or with tiles; guess_by: the teacher whose scores label unlabelled images. checkpoint: of the head to use;
    others lie next to it. vectors, rates: the teachers' vectors and the measured learning rates, kept for later trials.
    """

    untuned: SummaryHead
    tokens: Rows
    num_parts: int
    zoom: Teacher | None
    guess_by: TeacherName
    config: TrainConfig
    checkpoint: Path | None
    track: Track
    watch: Watch | None = None
    vectors: dict[tuple[TeacherName, int], Rows] = field(default_factory=dict)
    rates: dict[tuple[str, float], float] = field(default_factory=dict)

    def trial(
        self,
        candidate: Candidate,
        supervision: Supervision,
        description: str,
        number: int | None = None,
        share_of_epochs: float = 1.0,
        max_steps: int | None = None,
    ) -> SummaryHead:
        """Train a head for a trial, as `TrainHead` describes it."""
        file = self.checkpoint
        if file is not None:
            file = None if number is None else file.with_name(f"{file.stem}_held_back_{number}{file.suffix}")
        return self.train(candidate, supervision, description, file, share_of_epochs, max_steps)[0]

    def finetune(self, candidate: Candidate, supervision: Supervision) -> tuple[SummaryHead, History]:
        """Train the head to use. Self-training guesses twice: the second time with the first head's scores, too."""
        file, student = self.checkpoint, None
        if candidate.self_training:
            first = None if file is None else file.with_name(f"{file.stem}_first_guesses{file.suffix}")
            student, _ = self.train(candidate, supervision, FIRST_GUESSES, first)
        return self.train(candidate, supervision, "finetuning", file, student=student)

    def train(
        self,
        candidate: Candidate,
        supervision: Supervision,
        description: str,
        checkpoint: Path | None,
        share_of_epochs: float = 1.0,
        max_steps: int | None = None,
        student: SummaryHead | None = None,
    ) -> tuple[SummaryHead, History]:
        """Train a copy of the untuned head, as `TrainHead` describes it. student: a head that guesses labels."""
        # Without a teacher and guesses, unlabelled images add nothing to the loss.
        rows = np.arange(self.tokens.shape[1]) if candidate.sees_all else supervision.labelled
        if not len(rows):
            raise ValueError("no objective has a weight (or a teacher to follow): there is nothing to train on")
        epochs, count = epochs_and_images(self.config, len(rows), self.num_parts, share_of_epochs, max_steps)
        labelled = len(rows) if candidate.self_training else len(supervision.labelled)
        rate = self._learning_rate(candidate) * scale_for_labels(labelled, len(rows))
        config = replace(self.config, epochs=epochs, learning_rate=rate)
        if count < len(rows):
            rows = np.sort(np.random.default_rng([config.seed, 17]).choice(rows, count, replace=False))
        taught = self.with_guesses(supervision, rows, student) if candidate.self_training else supervision
        labels, verified = (torch.from_numpy(x[:, rows]) for x in taught.of_views(len(self.tokens)))
        untuned_vectors = torch.zeros(1, len(rows), 0, 1)
        if config.neighbour_weight > 0:
            device = self.untuned.offsets.device
            untuned_vectors = run_in_batches(self.untuned, one_view(self.tokens, 0), torch.from_numpy(rows), device)[
                None
            ]
        teacher = self._teacher_vectors(candidate.teacher, rows)
        data = TrainingSet(self.tokens, torch.from_numpy(rows), labels, verified, teacher, untuned_vectors)
        share = float(self.untuned.pooled_share) if candidate.with_share else 0.0
        head = self.untuned.with_share(share)
        terms = build_objectives(head, data, supervision, config, candidate)
        state = new_state(head, terms, config, candidate.trainable)
        # Not with the measured rate, which differs by rounding on another machine.
        state.identity = _identity(replace(self.config, epochs=epochs), candidate, data, supervision)
        state.texts = {"base": supervision.texts, "vocabulary": supervision.vocabulary}
        if checkpoint is not None and is_first() and checkpoint.exists():
            state.load(checkpoint)
        state.synchronise()
        total = total_steps(len(data), config)
        advance = self.track(description, total)
        advance(state.step)
        # Short trials are many, and say little.
        watch = None if self.watch is None or max_steps is not None else self.watch.begin(description, supervision)

        def on_step(step: int, terms: dict[str, float]) -> None:
            advance(1)
            if watch is not None:
                watch.step(state, total, config)
            if step % (total // epochs) == 0:
                epoch = step // (total // epochs)
                means = mean_terms(state.history[-(total // epochs) :])
                measured = {} if watch is None else watch.epoch(state, epoch)
                record("epoch", stage=description, epoch=epoch, step=step, losses=means, **measured)

        train(state, data, config, checkpoint, on_step)
        return state.result.requires_grad_(False), state.history

    def with_guesses(
        self, supervision: Supervision, rows: Ints | None = None, student: SummaryHead | None = None
    ) -> Supervision:
        """Return the supervision with guessed labels for the unlabelled images among these rows, all by default.

        student: a head whose scores are averaged with those of the training-free vectors.
        """
        rows = np.arange(self.tokens.shape[1]) if rows is None else rows
        vectors = [self._teacher_vectors(self.guess_by, rows)]
        if student is not None:
            device = student.offsets.device
            vectors.append(run_in_batches(student, one_view(self.tokens, 0), torch.from_numpy(rows), device)[None])
        given = supervision.labels[rows], supervision.verified[rows]
        guesses = guess_labels(vectors, *given, supervision.texts, supervision.vocabulary, self.config.seed)
        is_new = ~supervision.verified[rows].any(1)
        of_images = supervision.labels.copy(), supervision.verified.copy()
        of_views = [values.copy() for values in supervision.of_views(len(self.tokens))]
        for image, views, guess in zip(of_images, of_views, guesses, strict=True):
            image[rows[is_new]] = views[:, rows[is_new]] = guess[is_new]
        labels, verified = of_images
        return replace(
            supervision, labels=labels, verified=verified, view_labels=of_views[0], view_verified=of_views[1]
        )

    def _learning_rate(self, candidate: Candidate) -> float:
        if self.config.learning_rate is not None:
            return self.config.learning_rate * _LEARNING_RATE_WIDTH / self.untuned.pool.width
        key = candidate.trainable, candidate.step_size
        if key not in self.rates:
            # The tower's last stage has a rate of its own, relative to this one.
            stage = {id(p) for p in self.untuned.pool.stage_parameters()}
            trained = [p for p in trained_parameters(self.untuned, candidate.trainable) if id(p) not in stage]
            images, seed = one_view(self.tokens, 0), self.config.seed
            self.rates[key] = broadcast(learning_rate_for(self.untuned, trained, images, candidate.step_size, seed))
        return self.rates[key]

    def _teacher_vectors(self, name: TeacherName, rows: Ints) -> Rows:
        """Return the vectors of a teacher for rows of images, [V or 1, rows, K, D]; K = 0 for none. *Collective*."""
        if name == "none":
            return torch.zeros(1, len(rows), 0, 1)
        key = (name, len(rows))  # trials of one size see the same images
        if key not in self.vectors:
            device = self.untuned.offsets.device
            teacher: Teacher
            match name:
                case "start":
                    teacher = HeadTeacher(self.untuned, self.tokens, device)
                case "cluster":
                    pool = plain_clip(self.untuned).pool
                    head = ClusterHead(pool, min(self.config.teacher_clusters, pool.num_positions))
                    # Clustering takes long. Crops show about what the whole image shows; tiles do not.
                    views = self.tokens if self.num_parts > 1 else first_views(self.tokens, 1)
                    teacher = HeadTeacher(head, views, device)
                case "zoom":
                    if self.zoom is None:
                        raise ValueError(
                            "teacher 'zoom' needs the paths of the training images, and a model without tiles"
                        )
                    teacher = self.zoom
            own = own_part(self.tokens, torch.from_numpy(rows))
            advance = self.track(f"running teacher {name}", len(own))
            vectors = teacher(rows[own.numpy()].tolist(), advance).half() if len(own) else None
            self.vectors[key] = from_workers(vectors, own, len(rows))
        return self.vectors[key]


def _identity(config: TrainConfig, candidate: Candidate, data: TrainingSet, supervision: Supervision) -> str:
    """Return a text that differs if settings or labels differ, so that no other checkpoint is used.

    Continuing a run with another split would mix novel and base labels. It names nothing that is computed, because
    another machine rounds otherwise.
    """
    settings = [asdict(replace(config, checkpoint_every=1)), asdict(candidate), data.rows.tolist()]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(json.dumps([supervision.names, len(supervision.texts), len(supervision.vocabulary)]).encode())
    for tensor in (data.targets, data.verified):
        digest.update(f"{tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
