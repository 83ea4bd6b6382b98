"""The objectives' arithmetic: pure functions of tensors, no model and no dataset in sight."""

import torch
from torch import Tensor
from torch.nn import functional as F


def max_sim(vectors: Tensor, texts: Tensor) -> Tensor:
    """An image's score for a text is its best vector's cosine. vectors: [B, N, D]; texts: [C, D]. Returns [B, C]."""
    return (vectors @ texts.T).amax(1)


def binary_loss(logits: Tensor, targets: Tensor, verified: Tensor) -> Tensor:
    """Binary cross-entropy over verified pairs. logits, targets, verified: [B, C]. Returns a scalar, 0 if none is."""
    each = F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="none")
    return _mean_over(each, verified)


def asymmetric_loss(
    logits: Tensor,
    targets: Tensor,
    verified: Tensor,
    gamma_pos: float = 0.0,
    gamma_neg: float = 4.0,
    clip: float = 0.05,
) -> Tensor:
    """Asymmetric loss (arXiv 2009.14119, equation 7): easy negatives are down-weighted, those below clip ignored.

    logits, targets, verified: [B, C]. Returns a scalar.
    """
    probability = torch.sigmoid(logits)
    shifted = (probability - clip).clamp(min=0)
    positive = -((1 - probability) ** gamma_pos) * F.logsigmoid(logits)
    negative = -(shifted**gamma_neg) * torch.log1p(-shifted.clamp(max=1 - 1e-6))
    return _mean_over(torch.where(targets.bool(), positive, negative), verified)


def set_distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Every teacher vector should have a close student vector. student: [B, N, D]; teacher: [B, K, D]; both unit.

    Returns the mean cosine distance from a teacher vector to the student vector closest to it.
    """
    closest = (teacher @ student.transpose(1, 2)).amax(2)
    return (1 - closest).mean()


def score_distillation(student: Tensor, teacher: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """The student's max-sim scores over texts should follow the teacher's, up to what a softmax ignores.

    student: [B, N, D]; teacher: [B, K, D]; texts: [V, D]; all unit. Cross-entropy between the softmaxes over texts of
    both scores divided by temperature (arXiv 1503.02531), less the teacher's own entropy, so that 0 is a perfect copy.
    """
    target = torch.log_softmax(max_sim(teacher, texts) / temperature, -1)
    predicted = torch.log_softmax(max_sim(student, texts) / temperature, -1)
    return F.kl_div(predicted, target, log_target=True, reduction="batchmean")


def _mean_over(values: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)
