"""Finetune a summary head with FOR: from a backbone and base labels to a head and its class vectors.

The steps: build the head; choose what to train it with, and how far to follow the training, on held-out base classes;
train; learn class vectors. Every choice is made on base labels alone.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forclip.calibration.model import Calibration
from forclip.config import HeadConfig, TrainConfig
from forclip.distributed import broadcast, is_first, synchronise
from forclip.embedding.embed import BATCH_SIZE
from forclip.embedding.row_shards import Rows, first_views, from_workers, one_view, own_part
from forclip.location import Location, as_location
from forclip.models.backbone import Backbone
from forclip.models.baselines import ClusterHead
from forclip.models.retrieval_model import ClassVectors
from forclip.models.summary_head import SummaryHead
from forclip.progress import Track, expect, record, untracked
from forclip.training import objectives
from forclip.training.candidates import AUTOMATIC, FIRST_GUESSES, Candidate, TeacherName, candidates_of
from forclip.training.class_holdout import Evidence, HeldOut, calibrate, choose_candidate, choose_setting
from forclip.training.class_vectors import choose_strength, fit_class_vectors
from forclip.training.expected_stages import expected_stages
from forclip.training.gains import Gain
from forclip.training.initialisation import choose_initial_head
from forclip.training.losses import max_sim
from forclip.training.score_images import plain_clip, run_in_batches, score_images
from forclip.training.self_training import guess_labels
from forclip.training.step_size import learning_rate_for, scale_for_labels
from forclip.training.supervision import Supervision
from forclip.training.teachers import TRIAL_IMAGES, HeadTeacher, Teacher, ZoomTeacher, measure_teacher
from forclip.training.trainer import TrainingSet, epochs_and_images, new_state, total_steps, train, trained_parameters
from forclip.training.watch import NoRecorder, Recorder, Watch, mean_terms
from forclip.training.weight_interpolation import interpolate
from forclip.types import Ints

History = list[dict[str, float]]  # each objective's value at every step
_LEARNING_RATE_WIDTH = 128


@dataclass(frozen=True)
class Choices:
    """What was chosen on base labels, and the evidence.

    aligned, pooled_share: of the head before training; start_gains: of each choice of both, in mean AP of base classes
    over a head with neither. zoom_gain: of the zoom teacher over the start, None if it was not tried. candidate: what
    the head was trained with; candidates: of each one, what short trials measured. alpha: how far the head is from the
    start (0) to the trained head (1); share: of plain CLIP in the final head; evidence: of the full trials.
    class_vectors: the kept part of the shifts; class_vector_gains: of each part over none. guessed_by: the teacher
    whose scores labelled unlabelled images, if the head trained on guesses.
    """

    labelled_images: int
    aligned: bool
    pooled_share: float
    start_gains: dict[str, Gain]
    zoom_gain: Gain | None
    candidate: Candidate
    candidates: dict[Candidate, Evidence]
    alpha: float
    share: float
    evidence: Evidence
    class_vectors: float
    class_vector_gains: dict[float, Gain]
    guessed_by: TeacherName | None = None

    @property
    def teacher(self) -> str | None:
        """The name of the teacher that the head followed."""
        return None if self.candidate.teacher == "none" else self.candidate.teacher

    def to_json(self) -> dict[str, Any]:
        """Return plain values. `share` is the file format's name of alpha."""
        return {
            "labelled_images": self.labelled_images,
            "aligned": self.aligned,
            "start_pooled_share": self.pooled_share,
            "start_gains": {name: _gain_to_json(gain) for name, gain in self.start_gains.items()},
            "zoom_gain": None if self.zoom_gain is None else _gain_to_json(self.zoom_gain),
            "teacher": self.teacher,
            "candidate": asdict(self.candidate),
            "guessed_by": self.guessed_by,
            "candidates": [
                {**asdict(candidate), "settings": _evidence_to_json(evidence)}
                for candidate, evidence in self.candidates.items()
            ],
            "share": self.alpha,
            "share_gains": {
                str(setting.alpha): [round(measured.unseen.mean, 3), round(measured.unseen.shrunk, 3)]
                for setting, measured in self.evidence.items()
                if setting.share == self.share
            },
            "pooled_share": self.share,
            "settings": _evidence_to_json(self.evidence),
            "class_vectors": self.class_vectors,
            "class_vector_gains": {str(s): _gain_to_json(gain) for s, gain in self.class_vector_gains.items()},
        }


def _gain_to_json(gain: Gain) -> dict[str, float]:
    return {key: round(value, 3) for key, value in {**asdict(gain), "shrunk": gain.shrunk}.items()}


def _evidence_to_json(evidence: Evidence) -> list[dict[str, Any]]:
    return [
        {
            "share": setting.alpha,
            "pooled_share": setting.share,
            "unseen": _gain_to_json(measured.unseen),
            "seen": round(measured.seen, 3),
        }
        for setting, measured in evidence.items()
    ]


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
    tokens: Rows,
    paths: Sequence[Location | str] | None,
    supervision: Supervision,
    head_config: HeadConfig,
    config: TrainConfig,
    checkpoint: str | Path | None = None,
    track: Track = untracked,
    num_parts: int = 1,
    recorder: Recorder | None = None,
) -> Finetuned:
    """Finetune FOR, from the checkpoint if there is one. Trial trainings have checkpoints next to it.

    tokens: [V, I, T, W] float16, V views of each training image, the plain one first. num_parts: the first so many
    views are what the model embeds of an image: the whole, then its tiles. paths: [I], for the zoom teacher. recorder:
    for curves and rankings of the full trials and the finetuning; it changes no result.
    Raises ValueError if there is nothing to learn from, or if a checkpoint is of another configuration. *Collective*:
    all workers get the same result.
    """
    checkpoint = None if checkpoint is None else Path(checkpoint)
    supervision = supervision.keep_labelled_fraction(config.labelled_fraction, config.seed)
    if not len(supervision.texts) and config.base_weight > 0:
        raise ValueError("no training image has a base label: there is nothing to learn from")
    parts, seed = first_views(tokens, num_parts), config.seed
    untuned, start_gains = choose_initial_head(backbone, parts, supervision, head_config, seed)
    synchronise(untuned.state_dict().values())
    if float(untuned.pooled_share) == 1:
        config = replace(config, interpolation=0.0)  # all vectors are plain CLIP's, which training can't move
    numbers = tokens.shape[1], len(supervision.labelled), len(supervision.texts), num_parts
    expect(*expected_stages(config, *numbers))
    zoom, zoom_gain = None, None
    places = None if paths is None else [as_location(path) for path in paths]
    if places is not None and num_parts == 1:
        zoom = ZoomTeacher(backbone, plain_clip(untuned).pool, places)
        if config.teacher == "auto" and supervision.compares_images:
            advance = track("trying the zoom teacher", min(TRIAL_IMAGES, len(supervision.labelled)))
            zoom_gain = measure_teacher(zoom, untuned, parts, supervision, seed, advance)
    shown = None if isinstance(recorder, NoRecorder) else places
    watch = None if recorder is None else Watch(recorder, parts, supervision, shown, seed)
    names = AUTOMATIC if zoom_gain is None or zoom_gain.shrunk <= 0 else (*AUTOMATIC, "zoom")
    guess_by: TeacherName = "zoom" if "zoom" in (*names, config.teacher) and zoom is not None else "start"
    training = _Training(untuned, tokens, num_parts, zoom, guess_by, config, checkpoint, track, watch)
    # Of a tile it is not known which of the image's labels it shows.
    some_unlabelled = num_parts == 1 and 0 < len(supervision.labelled) < tokens.shape[1]
    candidates = candidates_of(config, names, some_unlabelled)
    measuring = HeldOut(untuned, parts, supervision, config.seed)
    expect(*expected_stages(config, *numbers, candidates))
    candidate, measured = choose_candidate(training.trial, candidates, measuring, supervision, config)
    expect(*expected_stages(config, *numbers, [candidate]))
    setting, evidence, trials = choose_setting(training.trial, candidate, measuring, supervision, config)
    calibration = calibrate(untuned, trials, setting, parts, supervision, seed)
    # With alpha 0 the trained head would not be used.
    tuned, history = untuned, History()
    if setting.alpha > 0:
        tuned, history = training.finetune(candidate, supervision)
    shared = untuned.with_share(setting.share)
    head = interpolate(shared, tuned, setting.alpha).eval().requires_grad_(False)
    if setting.alpha > 0:
        unseeing = [(held_out, interpolate(shared, trial, setting.alpha).eval()) for held_out, trial in trials]
    else:
        unseeing = [(np.arange(len(supervision.texts)), head)]
    guess = training.with_guesses if candidate.self_training else None
    strength, strength_gains = broadcast(choose_strength(unseeing, parts, supervision, config, guess))
    choices = Choices(
        labelled_images=len(supervision.labelled),
        aligned=untuned.pool.output is not None,
        pooled_share=float(untuned.pooled_share),
        start_gains=start_gains,
        zoom_gain=zoom_gain,
        candidate=candidate,
        candidates=measured,
        alpha=setting.alpha,
        share=setting.share,
        evidence=evidence,
        class_vectors=strength,
        class_vector_gains=strength_gains,
        guessed_by=guess_by if candidate.self_training else None,
    )
    if recorder is not None:
        recorder.text("choices", json.dumps(choices.to_json(), indent=1))
    taught = supervision
    if candidate.self_training:
        taught = training.with_guesses(supervision, student=tuned if setting.alpha > 0 else None)
    class_vectors = fit_class_vectors(head, tokens, num_parts, taught, config, strength)
    synchronise(class_vectors.state_dict().values())
    return Finetuned(head, class_vectors, untuned, tuned, history, choices, calibration)


@dataclass
class _Training:
    """Trains copies of the untuned head.

    zoom: None without the images' files, or with tiles; guess_by: the teacher whose scores label unlabelled images.
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
    rates: dict[str, float] = field(default_factory=dict)

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
        rate = self._learning_rate(candidate.trainable) * scale_for_labels(labelled, len(rows))
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
        # Settings and supervision: continuing a run with another split would mix novel and base labels.
        settings = [asdict(replace(config, checkpoint_every=1)), asdict(candidate), rows.tolist()]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for tensor in (labels, verified, supervision.texts.cpu(), supervision.vocabulary.cpu()):
            digest.update(f"{tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
        state.identity = digest.hexdigest()
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

    def _learning_rate(self, trainable: str) -> float:
        if self.config.learning_rate is not None:
            return self.config.learning_rate * _LEARNING_RATE_WIDTH / self.untuned.pool.width
        if trainable not in self.rates:
            # The tower's last stage has a rate of its own, relative to this one.
            stage = {id(p) for p in self.untuned.pool.stage_parameters()}
            trained = [p for p in trained_parameters(self.untuned, trainable) if id(p) not in stage]
            step, seed = self.config.step_size, self.config.seed
            self.rates[trainable] = broadcast(
                learning_rate_for(self.untuned, trained, one_view(self.tokens, 0), step, seed)
            )
        return self.rates[trainable]

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


def build_objectives(
    head: SummaryHead, data: TrainingSet, supervision: Supervision, config: TrainConfig, candidate: Candidate
) -> list[objectives.Objective]:
    """Build the objectives with a weight above 0, without those that lack a teacher; fit the base labels to the head.

    Raises ValueError if no objective is left.
    """
    terms: list[objectives.Objective] = []
    words, texts = supervision.vocabulary.cpu(), supervision.texts.cpu()
    if config.base_weight > 0:
        base_labels = objectives.BaseLabels(texts, candidate.base_loss, config.base_weight)
        positions = data.verified[0].any(1).nonzero()[:, 0]
        if len(positions):
            scores = score_images(head, one_view(data.tokens, 0), data.rows[positions], supervision.texts)
            base_labels.fit(scores, data.targets[0, positions], data.verified[0, positions])
        terms.append(base_labels)
    if data.teacher.shape[2]:
        if candidate.pseudo_weight > 0:
            settings = (config.pseudo_temperature, candidate.pseudo_weight, config.seed)
            terms.append(objectives.PseudoLabels(words, *settings))
        if candidate.set_weight > 0:
            terms.append(objectives.TeacherSet(candidate.set_weight))
        if config.random_text_weight > 0:
            terms.append(
                objectives.RandomTexts(
                    words, len(words), config.pseudo_temperature, config.random_text_weight, config.seed
                )
            )
    if config.neighbour_weight > 0 and len(texts):
        near = words[objectives.nearest_words(texts, words, config.neighbour_words)]
        if len(near):
            scores = torch.cat([max_sim(part, near) for part in data.untuned[0].split(BATCH_SIZE)])
            spread = scores.std(0).clamp(min=1e-4) if len(scores) > 1 else torch.ones(len(near))
            terms.append(objectives.NeighbourWords(near, spread, config.neighbour_weight))
    if config.diversity_weight > 0:
        terms.append(objectives.QueryDiversity(config.diversity_weight))
    if not terms:
        raise ValueError("no objective has a weight (or a teacher to follow): there is nothing to train on")
    return [term.to(head.offsets.device) for term in terms]
