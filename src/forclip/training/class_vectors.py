"""What the base labels teach the text side: a shift of each base class's text vector, and of no other text."""

import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.models.class_vectors import SAME_WORD, ClassVectors
from forclip.training.losses import binary_loss, max_sim
from forclip.training.objectives import BaseLabels

_STEPS, _BATCH_SIZE, _LEARNING_RATE = 200, 64, 1e-2
_HALF_TRUST = 5.0  # with so many positive images a class's shift counts half


def learn_class_vectors(
    vectors: Tensor, targets: Tensor, verified: Tensor, texts: Tensor, vocabulary: Tensor, strength: float, seed: int
) -> ClassVectors:
    """Fits each class's text vector to the labels, the images' vectors held still, and goes `strength` of the way.

    vectors: [I, N, D] unit; targets, verified: [I, C]; texts: [C, D]; vocabulary: [V, D], the words that a class must
    be told from. Stopping half-way is weight interpolation (WiSE-FT, arXiv 2109.01903) on the text side; a class with
    few positive images stays closer to its name.
    """
    shifts = torch.zeros_like(texts, requires_grad=True)
    logits = BaseLabels(texts, "binary", 1.0)
    logits.fit(torch.cat([max_sim(part.float(), texts) for part in vectors.split(_BATCH_SIZE)]), targets, verified)
    groups = [{"params": [shifts], "lr": _LEARNING_RATE}, {"params": list(logits.parameters()), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(_STEPS):
        rows = torch.randperm(len(vectors), generator=generator)[:_BATCH_SIZE]
        scores = max_sim(vectors[rows].float(), F.normalize(texts + shifts, dim=-1))
        loss = binary_loss(logits.logits(scores), targets[rows], verified[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    count = (targets & verified).sum(0)
    trust = strength * count / (count + _HALF_TRUST)
    return ClassVectors(texts, shifts.detach() * trust[:, None], _nearest_other(texts, vocabulary))


def _nearest_other(texts: Tensor, vocabulary: Tensor) -> Tensor:
    cosines = texts @ torch.cat([texts, vocabulary]).T
    # With no other word at all, a class keeps to the texts that are nearly its own.
    return cosines.masked_fill(cosines > SAME_WORD, -1).amax(1).clamp(min=0)
