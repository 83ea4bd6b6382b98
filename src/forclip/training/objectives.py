"""FOR's objectives as parts with a name, that a training step adds up: L = sum of weight x objective."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.class_vectors import SAME_WORD
from forclip.training.losses import (
    asymmetric_loss,
    binary_loss,
    max_sim,
    preservation_loss,
    query_diversity,
    score_distillation,
    set_distillation,
    softmax_loss,
)


@dataclass(frozen=True)
class Batch:
    """What objectives may look at beside the student's vectors.

    targets: [B, C] base labels; verified: [B, C], pairs whose label is known (none in an unlabelled image);
    teacher: [B, K, D] unit vectors of Cluster-CLIP; untuned: [B, N, D] unit vectors of the head before training.
    """

    targets: Tensor
    verified: Tensor
    teacher: Tensor
    untuned: Tensor


class Objective(Protocol):
    """One named term of the loss, with a weight."""

    name: str
    weight: float

    def __call__(self, vectors: Tensor, batch: Batch) -> Tensor:
        """vectors: the student's, unit [B, N, D]. Returns a scalar."""


class BaseLabels(nn.Module):
    """Multi-label classification of the base classes by max-sim scores.

    binary, asymmetric: each class by itself; logits are scores with a learned scale and biases. There is a bias per
    class, because AP ranks within a class: no score has to be comparable across classes.
    softmax: classes and negatives compete for an image, by scores over a learned temperature and without biases, as
    the text of a later search will have none.
    """

    name = "base_labels"

    def __init__(
        self,
        texts: Tensor,
        loss: Literal["binary", "asymmetric", "softmax"],
        weight: float,
        negatives: Tensor | None = None,
    ) -> None:
        """texts: [C, D], unit, of the base classes.

        negatives: [V, D], unit, of other words; those that equal a base class are left out here. Only softmax reads
        them: it takes them for absent from the images with a verified positive, those that someone has labelled.
        """
        super().__init__()
        self.weight, self.loss = weight, loss
        self.texts: Tensor
        self.negatives: Tensor
        self.register_buffer("texts", texts)
        words = texts[:0] if negatives is None or loss != "softmax" else negatives
        self.register_buffer("negatives", words[_closeness(texts, words) <= SAME_WORD])
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(len(texts)))

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        scores = max_sim(vectors, torch.cat([self.texts, self.negatives]))
        match self.loss:
            case "binary":
                return binary_loss(self.logits(scores), batch.targets, batch.verified)
            case "asymmetric":
                return asymmetric_loss(self.logits(scores), batch.targets, batch.verified)
            case "softmax":
                return softmax_loss(scores, *self._with_negatives(batch), torch.exp(-self.log_scale))

    def _with_negatives(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns targets and verified, [B, C + V]."""
        labelled = (batch.targets & batch.verified).any(1, keepdim=True)
        absent = labelled.expand(-1, len(self.negatives))
        return torch.cat([batch.targets, torch.zeros_like(absent)], 1), torch.cat([batch.verified, absent], 1)

    def logits(self, scores: Tensor) -> Tensor:
        """[B, C] -> [B, C]."""
        return self.log_scale.exp() * scores + self.bias

    def fit(self, scores: Tensor, targets: Tensor, verified: Tensor) -> None:
        """Fits scale and biases to the untrained head's scores, or the first steps would wreck the head.

        scores: max-sim [I, C]; targets, verified: [I, C]. The biases are held to a common one where labels are few, and
        the scale to two per spread of the scores where they say nothing of the labels, or say the opposite. For softmax
        the scale alone matters, fitted to the base classes without the negatives; it is small where classes lie at
        different heights.
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
            if self.loss == "softmax":
                loss = softmax_loss(scores, targets, verified, torch.exp(-self.log_scale))
            else:
                loss = binary_loss(self.logits(scores), targets, verified)
            loss = loss + 1e-3 * ridge
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


class NeighbourWords(nn.Module):
    """Words next to the base classes keep the scores that the untuned head gave them.

    An image is scored by one text vector's dot product with its own, so whatever raises "sweatshirt" raises its
    neighbour "sweater" too. With the neighbours held, training has to find the direction that tells the two apart.
    """

    name = "neighbour_words"

    def __init__(self, texts: Tensor, spread: Tensor, weight: float) -> None:
        """texts: [V, D], unit, of words from `nearest_words`, at least one.

        spread: [V], above 0: how far the untuned head's scores of a word differ between images, as a deviation.
        """
        assert len(texts) == len(spread) > 0, (texts.shape, spread.shape)
        assert bool((spread > 0).all()), spread.min()
        super().__init__()
        self.weight = weight
        self.texts: Tensor
        self.spread: Tensor
        self.register_buffer("texts", texts)
        self.register_buffer("spread", spread)

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        return preservation_loss(max_sim(vectors, self.texts), max_sim(batch.untuned, self.texts), self.spread)


class QueryDiversity(nn.Module):
    """An image's vectors should differ: query tokens that collapse into one are one query token."""

    name = "query_diversity"

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        return query_diversity(vectors)


class RandomTexts(nn.Module):
    """Cluster-CLIP's scores over texts that no vocabulary lists, as soft labels: random mixtures of two words.

    Mixtures stay where texts are; directions drawn from the whole space would score next to nothing in any image.
    """

    name = "random_texts"

    def __init__(self, texts: Tensor, count: int, temperature: float, weight: float, seed: int) -> None:
        """texts: [V, D], unit, of the vocabulary; count: texts to draw at each call; seed: 0 or above."""
        super().__init__()
        self.weight, self.count, self.temperature, self.seed = weight, count, temperature, seed
        self.texts: Tensor
        self.calls: Tensor
        self.register_buffer("texts", texts)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))  # in the checkpoint: a resumed run goes on

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        texts = self.drawn(int(self.calls))
        self.calls += 1
        return score_distillation(vectors, batch.teacher, texts, self.temperature)

    def drawn(self, call: int) -> Tensor:
        """The texts of a call, counted from 0. Returns unit vectors [count, D]."""
        # Hashed: seed + call would bring one seed's texts again under the next. 32 bits are all that torch's generator
        # reads on the CPU, where it draws so that every device gets the same texts.
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence((self.seed, call)).generate_state(1)[0]))
        size = len(self.texts)
        one = torch.randint(size, (self.count,), generator=generator)
        other = (one + torch.randint(1, max(2, size), (self.count,), generator=generator)) % size
        share = torch.rand(self.count, 1, generator=generator).to(self.texts)
        return F.normalize(torch.lerp(self.texts[one], self.texts[other], share), dim=-1)


def nearest_words(base: Tensor, vocabulary: Tensor, count: int) -> Tensor:
    """The vocabulary's words closest to any base class, base classes themselves left out.

    base: [C, D]; vocabulary: [V, D]; both unit. Returns rows of the vocabulary, closest first, [count] or as many as
    there are.
    """
    closeness = _closeness(base, vocabulary)
    others = int((closeness <= SAME_WORD).sum())
    ranked = closeness.masked_fill(closeness > SAME_WORD, -2).argsort(descending=True, stable=True)
    return ranked[: min(count, others)]


def _closeness(base: Tensor, words: Tensor) -> Tensor:
    """Each word's highest cosine to a base class. base: [C, D]; words: [V, D]; both unit. Returns [V]."""
    return (words @ base.T).amax(1)
