"""Losses as pure functions of tensors, without a model or a dataset."""

import torch
from torch import Tensor
from torch.nn import functional as F


def max_sim(vectors: Tensor, texts: Tensor) -> Tensor:
    """Score each image by the highest cosine of its vectors. vectors: [B, N, D]; texts: [C, D]. Returns [B, C]."""
    return (vectors @ texts.T).amax(1)


def binary_loss(logits: Tensor, targets: Tensor, verified: Tensor) -> Tensor:
    """Mean binary cross-entropy over verified pairs, 0 without any. logits, targets, verified: [B, C]."""
    losses = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    return _masked_mean(losses, verified)


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    verified: Tensor,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
) -> Tensor:
    """Asymmetric loss (arXiv 2009.14119, equation 7): down-weights easy negatives, ignores those below `clip`.

    logits, targets, verified: [B, C]. Returns the mean over verified pairs.
    """
    probability = torch.sigmoid(logits)
    shifted = (probability - clip).clamp(min=0)
    positive = -((1 - probability) ** gamma_pos) * F.logsigmoid(logits)
    negative = -(shifted**gamma_neg) * torch.log1p(-shifted.clamp(max=1 - 1e-6))
    return _masked_mean(torch.where(targets.bool(), positive, negative), verified)


def softmax_loss(scores: Tensor, targets: Tensor, verified: Tensor, temperature: float | Tensor) -> Tensor:
    """InfoNCE (arXiv 1807.03748) of each verified positive against the verified negatives of its image.

    scores, targets, verified: [B, V]; temperature: above 0, in units of scores, or a learned scalar tensor. Positives
    of an image do not compete with each other. Returns the mean over positive pairs of
    -log(exp(s/T) / (exp(s/T) + sum over negatives n of exp(s_n/T))), 0 without any.
    """
    logits, positive = scores / temperature, targets.bool() & verified.bool()
    negative = verified.bool() & ~targets.bool()
    # The lowest finite number, not -inf: without negatives, the loss and its gradient stay finite.
    negatives = logits.masked_fill(~negative, torch.finfo(logits.dtype).min).logsumexp(1, keepdim=True)
    return _masked_mean(-F.logsigmoid(logits - negatives), positive)


def set_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine distance from each teacher vector to the closest student vector of the same image.

    student: [B, N, D]; teacher: [B, K, D]; both unit.
    """
    closest = (teacher @ student.transpose(1, 2)).amax(2)
    return (1 - closest).mean()


def score_distillation(student: Tensor, teacher: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """KL divergence between the softmaxes over texts of the teacher's and the student's max-sim scores.

    student: [B, N, D]; teacher: [B, K, D]; texts: [V, D]; all unit. Scores are divided by temperature before the
    softmax (arXiv 1503.02531). 0 means equal distributions.
    """
    target = torch.log_softmax(max_sim(teacher, texts) / temperature, -1)
    predicted = torch.log_softmax(max_sim(student, texts) / temperature, -1)
    return F.kl_div(predicted, target, log_target=True, reduction="batchmean")


def preservation_loss(scores: Tensor, reference: Tensor, spread: Tensor) -> Tensor:
    """Mean squared change of scores in units of each text's spread. scores, reference: [B, V]; spread: [V], above 0."""
    return ((scores - reference) / spread).square().mean()


def query_diversity(vectors: Tensor) -> Tensor:
    """Mean of relu(cosine)^2 over images and ordered pairs of different vectors, 0 for N = 1. vectors: unit [B, N, D].

    Orthogonal vectors are different enough; opposite ones gain nothing.
    """
    count = vectors.shape[1]
    cosines = vectors @ vectors.transpose(1, 2)
    diagonal = torch.eye(count, dtype=torch.bool, device=vectors.device)
    overlap = cosines.masked_fill(diagonal, 0).relu().square()
    return overlap.sum() / (len(vectors) * max(1, count * (count - 1)))


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)
