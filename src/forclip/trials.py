"""Trial trainings: each misses some base classes, which then stand in for novel ones.

They say how far to go, and what a score is worth for a class that was not trained with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from forclip.confidence import Calibration
from forclip.confidence_fit import fit_calibration
from forclip.head_start import score_images
from forclip.interpolation import interpolate
from forclip.models.summary_head import SummaryHead
from forclip.supervision import Supervision
from forclip.types import Floats, Ints

_MOST_PAIRS = 1_000_000  # of an image and a class, that a calibration is learned from
_FEWEST_IMAGES, _MOST_IMAGES = 1000, 5000  # whatever the number of classes


@dataclass(frozen=True)
class Trial:
    """held: columns of the base classes that the training of `tuned` missed."""

    held: Ints
    tuned: SummaryHead


def judged_by(known: Supervision, held: Ints) -> Supervision:
    """What a trial is judged on: the classes that it missed."""
    return replace(known, labels=known.labels[:, held], verified=known.verified[:, held], texts=known.texts[held])


def calibrate(
    untuned: SummaryHead, trials: Sequence[Trial], share: float, tokens: Tensor, known: Supervision, seed: int
) -> Calibration | None:
    """From scores of the labelled training photos for base classes that the head was not trained with: those of each
    trial's head, as far from the untuned one as the real head is; where that is no way at all, the untuned head's own.

    tokens: [I, T, W] of the training images. The texts are asked for plainly, without class vectors, as a novel class
    is. Returns None where nothing was held back, or there is too little to learn from.
    """
    classes = len(known.texts)
    if share == 0:
        trials = [Trial(np.arange(classes), untuned)]
    if not trials or not classes:
        return None
    rows = _sample(known.labelled, min(max(_FEWEST_IMAGES, _MOST_PAIRS // classes), _MOST_IMAGES), seed)
    scores: Floats = np.zeros((len(rows), classes), np.float32)
    for trial in trials:
        head = interpolate(untuned, trial.tuned, share).eval()
        scores[:, trial.held] = score_images(head, tokens, torch.from_numpy(rows), known.texts[trial.held]).numpy()
    return fit_calibration(scores, known.labels[rows], known.verified[rows], seed)


def _sample(rows: Ints, most: int, seed: int) -> Ints:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng([seed, 13]).choice(rows, most, replace=False))
