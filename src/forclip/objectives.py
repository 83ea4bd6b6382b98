"""FOR's objectives as parts with a name, that a training step adds up: L = sum of weight x objective."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from forclip.losses import asymmetric_loss, binary_loss, max_sim, score_distillation, set_distillation


@dataclass(frozen=True)
class Batch:
    """What objectives may look at beside the student's vectors.

    targets: [B, C] base labels; verified: [B, C], pairs whose label is known (none in an unlabelled image);
    teacher: [B, K, D] unit vectors of Cluster-CLIP.
    """

    targets: Tensor
    verified: Tensor
    teacher: Tensor


class Objective(Protocol):
    """One named term of the loss, with a weight."""

    name: str
    weight: float

    def __call__(self, vectors: Tensor, batch: Batch) -> Tensor:
        """vectors: the student's, unit [B, N, D]. Returns a scalar."""


class BaseLabels(nn.Module):
    """Multi-label classification of the base classes: logits are max-sim scores with a learned scale and biases.

    There is a bias per class, because AP ranks within a class: no score has to be comparable across classes.
    """

    name = "base_labels"

    def __init__(self, texts: Tensor, loss: Literal["binary", "asymmetric"], weight: float) -> None:
        """texts: [C, D], unit, of the base classes."""
        super().__init__()
        self.weight, self.loss = weight, loss
        self.texts: Tensor
        self.register_buffer("texts", texts)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(len(texts)))

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        logits = self.logits(max_sim(vectors, self.texts))
        arithmetic = binary_loss if self.loss == "binary" else asymmetric_loss
        return arithmetic(logits, batch.targets, batch.verified)

    def logits(self, scores: Tensor) -> Tensor:
        """[B, C] -> [B, C]."""
        return self.log_scale.exp() * scores + self.bias

    def fit(self, scores: Tensor, targets: Tensor, verified: Tensor) -> None:
        """Fits scale and biases to the untrained head's scores, or the first steps would wreck the head.

        scores: max-sim [I, C]; targets, verified: [I, C]. The biases are held to a common one where labels are few, and
        the scale to two per spread of the scores where they say nothing of the labels, or say the opposite.
        """
        spread = scores.std().clamp(min=1e-4)
        start = (2 / spread).log()
        with torch.no_grad():
            self.log_scale.copy_(start)
            self.bias.copy_(-self.log_scale.exp() * (scores.mean(0) + 2 * spread))
        optimizer = torch.optim.LBFGS([self.log_scale, self.bias], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> float:
            optimizer.zero_grad()
            ridge = ((self.bias - self.bias.mean()) / 2).square().mean() + (self.log_scale - start).square()
            loss = binary_loss(self.logits(scores), targets, verified) + 1e-3 * ridge
            loss.backward()
            return loss.item()

        optimizer.step(closure)


class PseudoLabels(nn.Module):
    """Cluster-CLIP's scores over a vocabulary that excludes the novel names, as soft labels of the same image."""

    name = "pseudo_labels"

    def __init__(self, texts: Tensor, temperature: float, weight: float) -> None:
        """texts: [V, D], unit, of the vocabulary."""
        super().__init__()
        self.weight, self.temperature = weight, temperature
        self.texts: Tensor
        self.register_buffer("texts", texts)

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        return score_distillation(vectors, batch.teacher, self.texts, self.temperature)


class TeacherSet(nn.Module):
    """Each of Cluster-CLIP's vectors should have a student vector close by, whatever the words for it."""

    name = "teacher_set"

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        return set_distillation(vectors, batch.teacher)
