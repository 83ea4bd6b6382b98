"""The stages of a training and about how long they take, before it starts."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from forclip.config import TrainConfig
from forclip.progress import Planned
from forclip.training.candidates import AUTOMATIC, FIRST_GUESSES, Candidate, TeacherName, candidates_of
from forclip.training.class_holdout import (
    SHORT_SHARE,
    SHORT_STEPS,
    compares_candidates,
    full_folds,
    labels_alone,
    leaves_out_images,
    short_folds,
)
from forclip.training.teachers import TRIAL_IMAGES
from forclip.training.trainer import epochs_and_images, total_steps

# Times relative to the encoding of one view, measured with the mini CLIP. A step is measured as soon as there is one.
_STEP_OF_AN_IMAGE = 0.08
_TEACHERS: dict[TeacherName, float] = {"none": 0.0, "start": 0.1, "cluster": 1.0, "zoom": 9.0}


def expected_stages(
    config: TrainConfig,
    images: int,
    labelled: int,
    classes: int,
    num_parts: int = 1,
    candidates: Sequence[Candidate] = (),
    finalists: Sequence[Candidate] = (),
) -> list[Planned]:
    """Return the stages of `finetune` that are still to come.

    images, labelled, classes: numbers of training images, of those with a base label, and of base classes; num_parts:
    that the model embeds of an image; candidates: those to try, after the trial of the zoom teacher; finalists: those
    left after the short trials.
    """
    stages: list[Planned] = []
    if not candidates and not finalists:
        some_unlabelled = num_parts == 1 and 0 < labelled < images
        if config.teacher == "auto" and some_unlabelled:
            stages.append(Planned("trying the zoom teacher", min(TRIAL_IMAGES, labelled), _TEACHERS["zoom"]))
        candidates = candidates_of(config, AUTOMATIC, some_unlabelled, tiles=num_parts > 1)
    short_trials = not finalists and compares_candidates(candidates, config)
    if not finalists:
        finalists = candidates[:1]
        if short_trials and leaves_out_images(labelled, num_parts):
            finalists = [*finalists, *labels_alone(candidates)[:1]]  # often, but not always
    seen = set[tuple[TeacherName, int]]()

    def add(name: str, candidate: Candidate, share: float = 1.0, max_steps: int | None = None) -> None:
        rows = images if candidate.sees_all else labelled
        if not rows:
            return
        epochs, used = epochs_and_images(config, rows, num_parts, share, max_steps)
        if candidate.teacher != "none" and (candidate.teacher, used) not in seen:
            seen.add((candidate.teacher, used))
            stages.append(Planned(f"running teacher {candidate.teacher}", used, _TEACHERS[candidate.teacher]))
        steps = total_steps(used, replace(config, epochs=epochs))
        stages.append(Planned(name, steps, _STEP_OF_AN_IMAGE * config.batch_size, "step"))

    if short_trials:
        folds = len(short_folds(classes, config))
        for number, candidate in enumerate(candidates, 1):
            for k in range(1, folds + 1):
                name = f"candidate {number} of {len(candidates)}, trial {k} of {folds}"
                add(name, candidate, SHORT_SHARE, SHORT_STEPS)
    if config.interpolation is None and config.base_weight > 0:
        folds = len(full_folds(classes, np.arange(labelled), num_parts, config))
        for k in range(folds * len(finalists)):
            add(f"trial {k + 1} of {folds * len(finalists)}", finalists[k // folds])
    if config.interpolation != 0:
        if finalists[0].self_training:
            add(FIRST_GUESSES, finalists[0])
        add("finetuning", finalists[0])
    return stages
