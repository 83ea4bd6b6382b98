"""Self-training: guess the base labels of unlabelled images, and train on the guesses that are likely to be right."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from forclip.embedding.row_shards import Rows, one_view, read_rows
from forclip.training.class_vectors import learn_class_vectors
from forclip.training.losses import max_sim
from forclip.training.score_images import run_in_batches
from forclip.types import Bools, Floats, Ints

_TEXT_STRENGTH = 0.5  # of the shift of each class's text vector that the labelled images teach
# Of the images that are expected to show a class, the share with the highest scores that counts as showing it; of the
# others, the share with the lowest scores that counts as not showing it. The rest stays unknown.
_SURE_POSITIVE, _SURE_NEGATIVE = 0.5, 0.7


def guess_labels(
    vectors: Sequence[Rows], labels: Bools, verified: Bools, texts: Tensor, vocabulary: Tensor, seed: int
) -> tuple[Bools, Bools]:
    """Label the images without any verified label, by scores of training-free vectors or of an earlier head.

    The text vectors are first fitted to the labelled images. A class is expected as often as in those; one that none of
    them shows is not guessed. So many images with the highest scores are labelled that most are right, because a wrong
    label costs more than a missing one (pseudo-labels by confidence: Sohn et al., FixMatch, arXiv 2001.07685).

    vectors: one or more of [V, I, K, D] unit, whose scores are averaged; the first view of each counts. labels,
    verified: [I, C]; texts: [C, D] unit; vocabulary: [W, D] unit. Returns labels and verified, [I, C] each, as given
    for labelled images. *Collective*.
    """
    is_labelled = verified.any(1)
    known, unknown = np.flatnonzero(is_labelled), np.flatnonzero(~is_labelled)
    labels, verified = labels & verified, verified.copy()
    if not len(known) or not len(unknown):
        return labels, verified
    scores = np.zeros((len(unknown), len(texts)), np.float32)
    for of_images in vectors:
        view = one_view(of_images, 0)
        moved = _fitted_texts(view, known, labels, verified, texts, vocabulary, seed)
        found = run_in_batches(lambda part, t=moved: max_sim(part, t), view, torch.from_numpy(unknown), moved.device)  # type: ignore[misc]
        scores += _standardised(found.numpy())
    expected = (labels[known].sum(0) + 0.5) / (verified[known].sum(0) + 1) * len(unknown)
    order = np.argsort(-scores, axis=0, kind="stable")
    for column in np.flatnonzero(labels[known].any(0)):
        count = expected[column]
        shown = order[: max(1, int(_SURE_POSITIVE * count)), column]
        absent = order[len(unknown) - int(_SURE_NEGATIVE * (len(unknown) - count)) :, column]
        labels[unknown[shown], column] = True
        verified[unknown[shown], column] = verified[unknown[absent], column] = True
    return labels, verified


def _fitted_texts(
    view: Rows, known: Ints, labels: Bools, verified: Bools, texts: Tensor, vocabulary: Tensor, seed: int
) -> Tensor:
    """Return the text vectors [C, D] after the labelled images moved them."""
    taught = read_rows(view, torch.from_numpy(known))
    targets, checked = torch.from_numpy(labels[known]), torch.from_numpy(verified[known])
    texts, vocabulary = texts.cpu(), vocabulary.cpu()
    vectors = learn_class_vectors(taught, targets, checked, texts, vocabulary, _TEXT_STRENGTH, seed)
    moved: Tensor = vectors(texts)
    return moved


def _standardised(scores: Floats) -> Floats:
    spread = scores.std(0)
    standardised: Floats = (scores - scores.mean(0)) / np.where(spread > 0, spread, 1).astype(np.float32)
    return standardised
