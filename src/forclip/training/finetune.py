"""Finetune a summary head with FOR: from a backbone and base labels to a head and its class vectors.

The steps: build the head; choose what to train it with, and how far to follow the training, on held-out base classes;
train; learn class vectors. Every choice is made on base labels alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from forclip.calibration.model import Calibration
from forclip.config import HeadConfig, TrainConfig
from forclip.distributed import broadcast, synchronise
from forclip.embedding.row_shards import Rows, first_views
from forclip.location import Location, as_location
from forclip.models.backbone import Backbone
from forclip.models.retrieval_model import ClassVectors
from forclip.models.summary_head import SummaryHead
from forclip.progress import Track, expect, notify, untracked
from forclip.training.candidates import AUTOMATIC, TeacherName, candidates_of
from forclip.training.choices import Choices
from forclip.training.class_holdout import HeldOut, calibrate, choose_finalists, choose_setting, short_folds
from forclip.training.class_vectors import choose_strength, fit_class_vectors
from forclip.training.expected_stages import expected_stages
from forclip.training.initialisation import choose_initial_head
from forclip.training.score_images import plain_clip
from forclip.training.supervision import Supervision
from forclip.training.teachers import TRIAL_IMAGES, ZoomTeacher, measure_teacher
from forclip.training.train_heads import HeadTrainer, History
from forclip.training.watch import NoRecorder, Recorder, Watch
from forclip.training.weight_interpolation import interpolate


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
    classes = len(supervision.texts)
    supervision = supervision.keep_labelled_fraction(config.labelled_fraction, config.seed)
    if config.labelled_fraction < 1 and len(supervision.texts) < classes:
        notify(
            f"train.labelled_fraction {config.labelled_fraction:g}: the images that keep their labels "
            f"({len(supervision.labelled)}) show {len(supervision.texts)} of {classes} base classes; the others are "
            "not trained on"
        )
    wants_trials = config.interpolation is None and (config.held_back_folds or 0) >= 2
    if wants_trials and not short_folds(len(supervision.texts), config):
        notify(
            f"train.held_back_folds {config.held_back_folds} is more than half of {len(supervision.texts)} base "
            "classes: there are no trials, and alpha is 0.5"
        )
    if not len(supervision.texts) and config.base_weight > 0:
        raise ValueError("no training image has a base label: there is nothing to learn from")
    parts, seed = first_views(tokens, num_parts), config.seed
    untuned, start_gains = choose_initial_head(backbone, parts, supervision, head_config, seed)
    synchronise(untuned.state_dict().values())
    if float(untuned.pooled_share) == 1:
        config = replace(config, interpolation=0.0)  # all vectors are plain CLIP's, which training can't move
    numbers = tokens.shape[1], len(supervision.labelled), len(supervision.texts), num_parts
    expect(*expected_stages(config, *numbers))
    # Of a tile it is not known which of the image's labels it shows.
    some_unlabelled = num_parts == 1 and 0 < len(supervision.labelled) < tokens.shape[1]
    zoom, zoom_gain = None, None
    locations = None if paths is None else [as_location(path) for path in paths]
    if locations is not None and num_parts == 1:
        zoom = ZoomTeacher(backbone, plain_clip(untuned).pool, locations)
        # Labels teach more than this teacher does. Short trials don't show it: scores are learned faster than labels.
        if config.teacher == "auto" and some_unlabelled and supervision.compares_images:
            advance = track("trying the zoom teacher", min(TRIAL_IMAGES, len(supervision.labelled)))
            zoom_gain = measure_teacher(zoom, untuned, parts, supervision, seed, advance)
    pictures = None if isinstance(recorder, NoRecorder) else locations
    watch = None if recorder is None else Watch(recorder, parts, supervision, pictures, seed)
    teachers = AUTOMATIC if zoom_gain is None or zoom_gain.shrunk <= 0 else (*AUTOMATIC, "zoom")
    guess_by: TeacherName = "zoom" if "zoom" in (*teachers, config.teacher) and zoom is not None else "start"
    trainer = HeadTrainer(untuned, tokens, num_parts, zoom, guess_by, config, checkpoint, track, watch)
    candidates = candidates_of(config, teachers, some_unlabelled, tiles=num_parts > 1)
    images = HeldOut(untuned, parts, supervision, seed, choose_share=head_config.pooled_share is None)
    expect(*expected_stages(config, *numbers, candidates))
    finalists, measured = choose_finalists(trainer.trial, candidates, images, supervision, config)
    expect(*expected_stages(config, *numbers, finalists=finalists))
    candidate, setting, evidence, trials = choose_setting(trainer.trial, finalists, images, supervision, config)
    calibration = calibrate(untuned, trials, setting, parts, supervision, seed)
    # With alpha 0 the trained head would not be used.
    tuned, history = untuned, History()
    if setting.alpha > 0:
        tuned, history = trainer.finetune(candidate, supervision)
    shared = untuned.with_share(setting.share)
    head = interpolate(shared, tuned, setting.alpha).eval().requires_grad_(False)
    if setting.alpha > 0:
        trial_heads = [(fold.classes, interpolate(shared, trial, setting.alpha).eval()) for fold, trial in trials]
    else:  # a head that is not trained has seen no class
        trial_heads = [(np.arange(len(supervision.texts)), head)]
    guess = trainer.with_guesses if candidate.self_training else None
    strength, strength_gains = broadcast(choose_strength(trial_heads, parts, supervision, config, guess))
    choices = Choices(
        labelled_images=len(supervision.labelled),
        aligned=untuned.pool.output is not None,
        pooled_share=float(untuned.pooled_share),
        start_gains=start_gains,
        zoom_gain=zoom_gain,
        candidate=candidate,
        candidates=measured,
        finalists=evidence,
        alpha=setting.alpha,
        share=setting.share,
        class_vectors=strength,
        class_vector_gains=strength_gains,
        guessed_by=guess_by if candidate.self_training else None,
    )
    if recorder is not None:
        recorder.text("choices", json.dumps(choices.to_json(), indent=1))
    labels = supervision
    if candidate.self_training:
        labels = trainer.with_guesses(supervision, student=tuned if setting.alpha > 0 else None)
    class_vectors = fit_class_vectors(head, tokens, num_parts, labels, config, strength)
    synchronise(class_vectors.state_dict().values())
    return Finetuned(head, class_vectors, untuned, tuned, history, choices, calibration)
