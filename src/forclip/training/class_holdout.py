"""Hold out base classes as stand-ins for novel ones: choose alpha and fit the calibration on them.

Each trial trains a head without some of the base classes, which then measure how a head ranks unseen classes.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forclip.calibration.fit import fit_calibration
from forclip.calibration.model import Calibration
from forclip.config import TrainConfig
from forclip.embedding.embed import BATCH_SIZE
from forclip.evaluation.metrics import AP_DEPTH, average_precision_at, gain_with_bound
from forclip.models.baselines import Head
from forclip.models.summary_head import SummaryHead
from forclip.progress import Advance, silent
from forclip.training.losses import max_sim
from forclip.training.supervision import Supervision
from forclip.training.weight_interpolation import interpolate
from forclip.types import Bools, Floats, Ints

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
_DEFAULT_ALPHA = 0.5  # without classes to choose it on
_CALIBRATION_PAIRS = 1_000_000  # of an image and a class
_CALIBRATION_IMAGES = (1000, 5000)  # at least and at most, for any number of classes

Gain = tuple[float, float]  # mean AP in percent points, and that less one standard error over classes
Trial = tuple[Ints, SummaryHead]  # columns of the base classes held out, and a head trained without them
History = list[dict[str, float]]  # each objective's value at every step
# Takes a description and a checkpoint file too.
TrainHead = Callable[[Supervision, str, Path | None], tuple[SummaryHead, History]]


def choose_alpha(
    train_head: TrainHead,
    untuned: SummaryHead,
    tokens: Tensor,
    supervision: Supervision,
    config: TrainConfig,
    checkpoint: Path | None = None,
) -> tuple[float, dict[float, Gain], list[Trial]]:
    """Choose how far to move from the untuned to the tuned head, on the held-out classes of trial trainings.

    tokens: [I, T, W] of the training images; checkpoint: of the real training, trials have theirs next to it. Returns
    alpha, the gain of each of ALPHAS over the untuned head, and the trials. Without trials, alpha is the configured
    one or 0.5.
    """
    num_classes = len(supervision.texts)
    folds = class_folds(num_classes, config.held_back_folds, config.seed)
    if config.interpolation is not None or config.base_weight == 0 or not folds:
        return (_DEFAULT_ALPHA if config.interpolation is None else config.interpolation), {}, []
    precisions = {alpha: np.full(num_classes, np.nan, np.float32) for alpha in ALPHAS}
    trials = []
    for k, held_out in enumerate(folds):
        kept = supervision.keep_classes(np.setdiff1d(np.arange(num_classes), held_out))
        file = checkpoint and checkpoint.with_name(f"{checkpoint.stem}_held_back_{k}{checkpoint.suffix}")
        tuned, _ = train_head(kept, f"trial {k + 1} of {len(folds)}", file)
        for alpha in ALPHAS:
            head = interpolate(untuned, tuned, alpha).eval()
            precisions[alpha][held_out] = labelled_precisions(head, tokens, supervision.keep_classes(held_out))
        trials.append((held_out, tuned))
    alpha, gains = best_alpha(precisions)
    return alpha, gains, trials


def class_folds(num_classes: int, num_folds: int, seed: int) -> list[Ints]:
    """Divide class columns into folds at random. Returns no folds for fewer than two classes a fold, or one fold."""
    if num_folds < 2 or num_classes < 2 * num_folds:
        return []
    order = np.random.default_rng([seed, 7]).permutation(num_classes)
    return [np.sort(order[k::num_folds]) for k in range(num_folds)]


def best_alpha(precisions: Mapping[float, Floats]) -> tuple[float, dict[float, Gain]]:
    """Return the alpha with the largest gain less its standard error, and all gains.

    precisions: AP of the held-out classes [C] by alpha. The first is the untuned head, which is kept if none gains.
    """
    untuned = next(iter(precisions.values()))
    gains = {alpha: gain_with_bound(values, untuned) for alpha, values in precisions.items()}
    return max(gains, key=lambda alpha: gains[alpha][1]), gains


def calibrate(
    untuned: SummaryHead, trials: Sequence[Trial], alpha: float, tokens: Tensor, supervision: Supervision, seed: int
) -> Calibration | None:
    """Fit a calibration to scores of base classes on labelled training images, from heads trained without the class.

    These are the trials' heads at the chosen alpha; for alpha 0 the untuned head, which is trained on no class. Texts
    are scored without class vectors, as novel classes are. tokens: [I, T, W] of the training images. Returns None
    without trials, or as `fit_calibration` does.
    """
    num_classes = len(supervision.texts)
    if alpha == 0:
        trials = [(np.arange(num_classes), untuned)]
    if not trials or not num_classes:
        return None
    rows, (fewest, most) = supervision.labelled, _CALIBRATION_IMAGES
    count = min(max(fewest, _CALIBRATION_PAIRS // num_classes), most)
    if len(rows) > count:
        rows = np.sort(np.random.default_rng([seed, 13]).choice(rows, count, replace=False))
    scores: Floats = np.zeros((len(rows), num_classes), np.float32)
    for held_out, tuned in trials:
        head, texts = interpolate(untuned, tuned, alpha).eval(), supervision.texts[held_out]
        scores[:, held_out] = score_images(head, tokens, torch.from_numpy(rows), texts).numpy()
    return fit_calibration(scores, supervision.labels[rows], supervision.verified[rows], seed)


def labelled_precisions(head: Head, tokens: Tensor, supervision: Supervision) -> Floats:
    """Return AP@50 of each base class over the labelled training images, in percent. [C]."""
    rows = supervision.labelled
    scores = score_images(head, tokens, torch.from_numpy(rows), supervision.texts)
    return class_precisions(scores.numpy(), supervision.labels[rows], supervision.verified[rows])


def class_precisions(scores: NDArray[np.floating], labels: Bools, verified: Bools) -> Floats:
    """Return AP@50 of each class over its verified images, in percent. [I, C] each; returns [C].

    NaN for a class that is in none or all of its images.
    """
    precisions = np.full(scores.shape[1], np.nan, np.float32)
    for c in range(scores.shape[1]):
        rows = verified[:, c]
        if labels[rows, c].any() and not labels[rows, c].all():
            precisions[c] = 100 * average_precision_at(scores[rows, c], labels[rows, c], AP_DEPTH)
    return precisions


def score_images(head: Head, tokens: Tensor, rows: Tensor, texts: Tensor) -> Tensor:
    """Return max-sim scores [rows, C], on the CPU, of these rows of tokens [I, T, W] with texts [C, D]."""
    return run_in_batches(lambda batch: max_sim(head(batch), texts), tokens, rows, texts.device)


@torch.no_grad()  # not inference_mode: training saves the result for its backward pass
def run_in_batches(
    head: Callable[[Tensor], Tensor], tokens: Tensor, rows: Tensor, device: torch.device, advance: Advance = silent
) -> Tensor:
    """Return a head's outputs [rows, ...], on the CPU, of these rows of tokens [I, T, W]. device: the head's."""
    parts = []
    for batch in rows.split(BATCH_SIZE):
        parts.append(head(tokens[batch].to(device, torch.float32)).cpu())
        advance(len(batch))
    return torch.cat(parts)
