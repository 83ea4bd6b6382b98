"""Class vectors: fit the text vectors of the base classes to the labels, with the images' vectors fixed."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.config import TrainConfig
from forclip.embedding.row_shards import Rows, first_views
from forclip.models.retrieval_model import SAME_WORD, ClassVectors, no_class_vectors
from forclip.models.summary_head import SummaryHead
from forclip.training import losses, objectives
from forclip.training.gains import Gain, resample
from forclip.training.losses import max_sim
from forclip.training.score_images import MOST_MEASURED, run_in_batches
from forclip.training.supervision import Supervision
from forclip.types import Ints

_TEXT_IMAGES = 20_000  # at most: their vectors are held in memory
_TEXT_STEPS, _TEXT_BATCH, _TEXT_RATE = 200, 64, 1e-2
_HALF_TRUST = 5.0  # positive images with which a class gets half of its shift
_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_USUAL_STRENGTH = 0.75  # without trials to choose it by


def choose_strength(
    heads: Sequence[tuple[Ints, SummaryHead]],
    tokens: Rows,
    supervision: Supervision,
    config: TrainConfig,
    guess: Callable[[Supervision], Supervision] | None = None,
) -> tuple[float, dict[float, Gain]]:
    """Choose how much of the shift to keep, by classes that heads were trained without.

    A head knows the images that it was trained on too well to tell what the text side adds. So the shift of a class is
    fitted with a head that never saw the class, on half of the images, and measured on the other half. heads: columns
    of base classes, and a head trained without them; tokens: [P, I, T, W], the parts of each image; guess: adds guessed
    labels of unlabelled images, to be fitted, too. Returns also the gain of each strength over none; without heads,
    with a single labelled image or with a configured strength, nothing is measured.
    """
    if config.class_vectors is not None:
        return config.class_vectors, {}
    if not heads or len(supervision.labelled) < 2:
        return _USUAL_STRENGTH, {}
    rows = supervision.sample_labelled(MOST_MEASURED // len(tokens), config.seed)
    order = np.random.default_rng([config.seed, 19]).permutation(len(rows))
    halves = order[::2], order[1::2]
    labels, verified = supervision.labels[rows], supervision.verified[rows]
    taught = [_taught_by(rows[half], rows, supervision, len(tokens), config.seed, guess) for half in halves]
    everything = np.unique(np.concatenate([rows, *(fitted for fitted, _ in taught)]))
    scores = {strength: np.zeros(labels.shape, np.float32) for strength in _STRENGTHS}
    for columns, head in heads:
        device, indices = head.offsets.device, torch.from_numpy(everything)
        vectors = torch.cat([run_in_batches(head, part, indices, device).half() for part in tokens], 1)
        texts, words = supervision.texts[torch.from_numpy(columns)].cpu(), supervision.vocabulary.cpu()
        for (fitted, given), measured in zip(taught, halves[::-1], strict=True):
            targets, known = (torch.from_numpy(x[np.ix_(fitted, columns)]) for x in (given.labels, given.verified))
            examples, others = (vectors[np.searchsorted(everything, of)] for of in (fitted, rows[measured]))
            shifts = learn_class_vectors(examples, targets, known, texts, words, 1.0, config.seed).shifts
            for strength, of_strength in scores.items():
                moved = F.normalize(texts + strength * shifts, dim=-1)
                parts = [max_sim(part.float(), moved) for part in others.split(_TEXT_BATCH)]
                of_strength[np.ix_(measured, columns)] = torch.cat(parts).numpy()
    resampled = {s: [resample(v[h], labels[h], verified[h], config.seed) for h in halves] for s, v in scores.items()}
    gains = {}
    for strength, of_halves in resampled.items():
        pairs = [one.gain_over(none) for one, none in zip(of_halves, resampled[0.0], strict=True)]
        gains[strength] = Gain(float(np.mean([g.mean for g in pairs])), float(np.mean([g.deviation for g in pairs])))
    return max(gains, key=lambda strength: gains[strength].shrunk), gains


def _taught_by(
    half: Ints,
    measured: Ints,
    supervision: Supervision,
    num_parts: int,
    seed: int,
    guess: Callable[[Supervision], Supervision] | None,
) -> tuple[Ints, Supervision]:
    """Return rows to fit a head's class vectors on, and their labels: those of a half, and what is guessed from them.

    half, measured: rows of images; the labels of the measured ones that are not in the half are not used.
    """
    if guess is None:
        return half, supervision
    is_known = np.zeros((len(supervision.labels), 1), bool)
    is_known[half] = True
    guessed = guess(replace(supervision, verified=supervision.verified & is_known))
    others = np.setdiff1d(guessed.sample_labelled(_TEXT_IMAGES // num_parts, seed), measured)
    return np.concatenate([half, others]), guessed


def fit_class_vectors(
    head: SummaryHead, tokens: Rows, num_parts: int, supervision: Supervision, config: TrainConfig, strength: float
) -> ClassVectors:
    """Learn the class vectors on the vectors of each labelled image, and of its other views as images of their own.

    tokens: [V, I, T, W]; the first num_parts views are the parts of an image. A model with tiles has enough examples in
    its parts, and other views have fewer vectors than an image, so there they are left out.
    """
    if strength == 0 or config.base_weight == 0:
        return no_class_vectors(head.pool.dim)
    rows = supervision.sample_labelled(_TEXT_IMAGES // len(tokens), config.seed)
    device, indices = head.offsets.device, torch.from_numpy(rows)
    images = range(len(tokens) if num_parts == 1 else 1)  # the views that count as images
    outputs = [
        run_in_batches(head, view, indices, device).half() for view in first_views(tokens, max(num_parts, len(images)))
    ]
    vectors = torch.cat(outputs) if num_parts == 1 else torch.cat(outputs, 1)
    labels, verified = (
        torch.from_numpy(np.concatenate([x[v, rows] for v in images])) for x in supervision.of_views(len(tokens))
    )
    texts, words = supervision.texts.cpu(), supervision.vocabulary.cpu()
    return learn_class_vectors(vectors, labels, verified, texts, words, strength, config.seed, len(images))


def learn_class_vectors(
    vectors: Tensor,
    targets: Tensor,
    verified: Tensor,
    texts: Tensor,
    vocabulary: Tensor,
    strength: float,
    seed: int,
    views: int = 1,
) -> ClassVectors:
    """Fit a shift of each class's text vector, with the images' vectors fixed, and keep `strength` of it.

    vectors: [I, N, D] unit; targets, verified: [I, C]; texts: [C, D]; vocabulary: [V, D], words that keep their
    vectors. Keeping a part of the shift is weight interpolation (WiSE-FT, arXiv 2109.01903) of the text side; classes
    with few positive images keep less. views: how many of the I are views of one image.
    """
    shifts = torch.zeros_like(texts, requires_grad=True)
    classifier = objectives.BaseLabels(texts, "binary", 1.0)
    classifier.fit(torch.cat([max_sim(part.float(), texts) for part in vectors.split(_TEXT_BATCH)]), targets, verified)
    groups = [{"params": [shifts], "lr": _TEXT_RATE}, {"params": list(classifier.parameters()), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _TEXT_STEPS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(_TEXT_STEPS):
        rows = torch.randperm(len(vectors), generator=generator)[:_TEXT_BATCH]
        scores = max_sim(vectors[rows].float(), F.normalize(texts + shifts, dim=-1))
        loss = losses.binary_loss(classifier.logits(scores), targets[rows], verified[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    positives = (targets & verified).sum(0) / views
    trust = strength * positives / (positives + _HALF_TRUST)
    cosines = texts @ torch.cat([texts, vocabulary]).T
    # Of words that are no class itself; 0 if there is none.
    nearest = cosines.masked_fill(cosines > SAME_WORD, -1).amax(1).clamp(min=0)
    return ClassVectors(texts, shifts.detach() * trust[:, None], nearest)
