"""Learn class vectors: fit the text vectors of base classes to their labels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.models.class_vectors import SAME_WORD, ClassVectors
from forclip.training.losses import binary_loss, max_sim
from forclip.training.objectives import BaseLabels

_STEPS, _BATCH_SIZE, _LEARNING_RATE = 200, 64, 1e-2
_HALF_TRUST = 5.0  # positive images with which a class gets half of its shift


def learn_class_vectors(
    vectors: Tensor, targets: Tensor, verified: Tensor, texts: Tensor, vocabulary: Tensor, strength: float, seed: int
) -> ClassVectors:
    """Fit a shift of each class's text vector, with the images' vectors fixed, and keep `strength` of it.

    vectors: [I, N, D] unit; targets, verified: [I, C]; texts: [C, D]; vocabulary: [V, D], words that keep their
    vectors. Keeping a part of the shift is weight interpolation (WiSE-FT, arXiv 2109.01903) of the text side; classes
    with few positive images keep less.
    """
    shifts = torch.zeros_like(texts, requires_grad=True)
    classifier = BaseLabels(texts, "binary", 1.0)
    classifier.fit(torch.cat([max_sim(part.float(), texts) for part in vectors.split(_BATCH_SIZE)]), targets, verified)
    groups = [{"params": [shifts], "lr": _LEARNING_RATE}, {"params": list(classifier.parameters()), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(_STEPS):
        rows = torch.randperm(len(vectors), generator=generator)[:_BATCH_SIZE]
        scores = max_sim(vectors[rows].float(), F.normalize(texts + shifts, dim=-1))
        loss = binary_loss(classifier.logits(scores), targets[rows], verified[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    positives = (targets & verified).sum(0)
    trust = strength * positives / (positives + _HALF_TRUST)
    cosines = texts @ torch.cat([texts, vocabulary]).T
    # Of words that are no class itself; 0 if there is none.
    nearest = cosines.masked_fill(cosines > SAME_WORD, -1).amax(1).clamp(min=0)
    return ClassVectors(texts, shifts.detach() * trust[:, None], nearest)
