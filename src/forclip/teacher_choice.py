"""Which teacher to follow, or none: the labelled photos say."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from forclip.head_start import score_images
from forclip.held_back import class_precisions, sure_gain
from forclip.losses import max_sim
from forclip.models.baselines import Head
from forclip.progress import Track
from forclip.supervision import Supervision
from forclip.teachers import Teacher

_TRIAL_IMAGES = 96  # that a teacher is judged on
_FIRST_PART = 3  # of the trial that a hopeless teacher is dropped after: a third


def choose_teacher(
    candidates: Sequence[Teacher], untuned: Head, tokens: Tensor, known: Supervision, track: Track
) -> tuple[Teacher | None, dict[str, tuple[float, float]]]:
    """The one that ranks a sample of the labelled photos best, if it surely beats the head that is to learn from it.

    tokens: [I, T, W] of the training images, plain. Returns with it each candidate's gain in mean AP of base classes,
    in percent points, and that less a standard error. One that is surely worse on a third of the sample is asked no
    more, since a teacher may cost as much as encoding the sample many times over.
    """
    if not len(known.labelled):
        return None, {}
    rows = known.labelled[np.linspace(0, len(known.labelled) - 1, min(_TRIAL_IMAGES, len(known.labelled))).astype(int)]
    rows = np.concatenate([rows[::_FIRST_PART], np.delete(rows, np.s_[::_FIRST_PART])])  # spread, the first part too
    parts = [part for part in np.split(rows, [-(-len(rows) // _FIRST_PART)]) if len(part)]
    own = score_images(untuned, tokens, torch.from_numpy(rows), known.texts)
    gains: dict[str, tuple[float, float]] = {}
    for teacher in candidates:
        advance = track(f"trying teacher {teacher.name}", len(rows))
        asked: list[Tensor] = []
        for part in parts:
            asked.append(teacher(part.tolist(), advance))
            taught = torch.cat(asked)
            gains[teacher.name] = _gain(taught, own, rows[: len(taught)], known)
            mean, sure = gains[teacher.name]
            if mean + (mean - sure) < 0:
                break
    best = max(candidates, key=lambda teacher: gains[teacher.name][1])
    return (best if gains[best.name][1] > 0 else None), gains


def _gain(taught: Tensor, own: Tensor, rows: np.ndarray, known: Supervision) -> tuple[float, float]:
    """taught: [R, K, D]; own: the untuned head's scores [R or more, C] of the same rows."""
    labels, verified = known.labels[rows], known.verified[rows]
    scores = max_sim(taught, known.texts.cpu())
    reference = class_precisions(own[: len(rows)].numpy(), labels, verified)
    return sure_gain(class_precisions(scores.numpy(), labels, verified), reference)
