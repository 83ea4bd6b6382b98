"""Trial trainings: each misses some base classes, which then stand in for novel ones.

They say how far to go, and what a score is worth for a class that was not trained with.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forclip.calibration.fit import fit_calibration
from forclip.calibration.model import Calibration
from forclip.embedding.embed import BATCH_SIZE
from forclip.evaluation.bootstrap import gain_with_bound
from forclip.evaluation.metrics import average_precision_at
from forclip.models.baselines import Head
from forclip.models.summary_head import SummaryHead
from forclip.training.losses import max_sim
from forclip.training.supervision import Supervision
from forclip.training.weight_interpolation import interpolate
from forclip.types import Bools, Floats, Ints

_K = 50


def class_folds(num_classes: int, num_folds: int, seed: int) -> list[Ints]:
    """Classes held back in each trial, by number: every class in exactly one. Returns no fold for too few classes."""
    if num_folds < 2 or num_classes < 2 * num_folds:
        return []
    order = np.random.default_rng([seed, 7]).permutation(num_classes)
    return [np.sort(order[k::num_folds]) for k in range(num_folds)]


def class_precisions(scores: NDArray[np.floating], labels: Bools, verified: Bools) -> Floats:
    """AP@50 of each class over the images verified for it, in percent. [I, C] each; returns [C].

    NaN for a class that no image shows, or all.
    """
    found = np.full(scores.shape[1], np.nan, np.float32)
    for c in range(scores.shape[1]):
        rows = verified[:, c]
        if labels[rows, c].any() and not labels[rows, c].all():
            found[c] = 100 * average_precision_at(scores[rows, c], labels[rows, c], _K)
    return found


def best_share(curves: Sequence[Floats], shares: Sequence[float]) -> float:
    """The share with the largest sure gain over the first, which is the start; the first where none gains.

    curves: for each share, the held-back classes' AP [C].
    """
    sure = [gain_with_bound(curve, curves[0])[1] for curve in curves]
    return shares[int(np.argmax(sure))]


_MOST_PAIRS = 1_000_000  # of an image and a class, that a calibration is learned from
_FEWEST_IMAGES, _MOST_IMAGES = 1000, 5000  # whatever the number of classes


def labelled_precisions(head: Head, tokens: Tensor, supervision: Supervision) -> Floats:
    """AP@50 of each base class over the labelled training photos, in percent. [C]."""
    rows = supervision.labelled
    scores = score_images(head, tokens, torch.from_numpy(rows), supervision.texts)
    return class_precisions(scores.numpy(), supervision.labels[rows], supervision.verified[rows])


@torch.no_grad()  # not inference_mode: training saves the result for its backward pass
def score_images(head: Head, tokens: Tensor, rows: Tensor, texts: Tensor) -> Tensor:
    """Max-sim of these rows of tokens [I, T, W] with texts [C, D]. Returns [rows, C] on the CPU."""
    device = texts.device
    parts = [max_sim(head(tokens[part].to(device, torch.float32)), texts).cpu() for part in rows.split(BATCH_SIZE)]
    return torch.cat(parts)


@torch.no_grad()
def head_vectors(head: SummaryHead, tokens: Tensor, rows: Tensor) -> Tensor:
    """The head's unit vectors of these rows of tokens [I, T, W], [rows, N, D] on the CPU."""
    device = head.offsets.device
    return torch.cat([head(tokens[part].to(device, torch.float32)).cpu() for part in rows.split(BATCH_SIZE)])


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
