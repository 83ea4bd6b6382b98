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


def softmax_loss(scores: Tensor, targets: Tensor, verified: Tensor, temperature: float | Tensor) -> Tensor:
    """InfoNCE (arXiv 1807.03748) of each verified positive against its image's verified negatives: words compete.

    scores, targets, verified: [B, V]; temperature: above 0, in units of scores, a scalar tensor where it is learned.
    An image's positives are all true, so none is in another's denominator. Returns the mean over positive pairs of
    -log(exp(s/T) / (exp(s/T) + sum over negatives n of exp(s_n/T))), 0 if there is no positive.
    """
    logits, positive = scores / temperature, targets.bool() & verified.bool()
    negative = verified.bool() & ~targets.bool()
    # The lowest finite number, not -inf: without negatives, every number on the way and back stays finite.
    others = logits.masked_fill(~negative, torch.finfo(logits.dtype).min).logsumexp(1, keepdim=True)
    return _mean_over(-F.logsigmoid(logits - others), positive)


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


def preservation_loss(scores: Tensor, reference: Tensor, spread: Tensor) -> Tensor:
    """Scores should stay what they were. scores, reference: [B, V]; spread: [V], above 0, in units of scores.

    Returns the mean square of the change in spreads, so that a text whose scores hardly vary may hardly move.
    """
    return ((scores - reference) / spread).square().mean()


def query_diversity(vectors: Tensor) -> Tensor:
    """An image's vectors should not say the same thing. vectors: unit [B, N, D].

    Returns the mean over images and ordered pairs of different vectors of relu(cosine)^2, 0 where N = 1: right angles
    are apart enough, opposites no better.
    """
    count = vectors.shape[1]
    cosines = vectors @ vectors.transpose(1, 2)
    itself = torch.eye(count, dtype=torch.bool, device=vectors.device)
    overlap = cosines.masked_fill(itself, 0).relu().square()
    return overlap.sum() / (len(vectors) * max(1, count * (count - 1)))


def _mean_over(values: Tensor, mask: Tensor) -> Tensor:
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)
