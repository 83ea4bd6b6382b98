"""FOR's objectives. The loss of a training step is the sum of weight x objective.

BaseLabels is always on. PseudoLabels and TeacherSet follow a teacher; trial trainings choose it and the weights
(forclip.training.candidates). Off by default, with weight 0: RandomTexts, NeighbourWords and QueryDiversity.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.retrieval_model import SAME_WORD
from forclip.training import losses
from forclip.training.losses import max_sim

BaseLoss = Literal["binary", "asymmetric", "softmax"]
_WORDS_PER_STEP = 512


@dataclass(frozen=True)
class Batch:
    """What an objective sees besides the student's vectors.

    targets: [B, C] base labels; verified: [B, C], pairs with a known label (none in an unlabelled image); teacher:
    [B, K, D] unit vectors of the teacher; untuned: [B, N, D] unit vectors of the head before training.
    """

    targets: Tensor
    verified: Tensor
    teacher: Tensor
    untuned: Tensor

    def part(self, part: slice) -> "Batch":
        """Return some images of the batch."""
        return Batch(self.targets[part], self.verified[part], self.teacher[part], self.untuned[part])


class Objective(nn.Module):
    """A named, weighted term of the loss. `forward` takes the student's unit vectors [B, N, D] and a Batch.

    It is a mean, so that the term of a batch is the sum of its parts' terms, each weighted by `divisor`.
    """

    name: str

    def __init__(self, weight: float, **buffers: Tensor) -> None:
        """buffers: constant tensors of the objective, each an attribute and a part of its state."""
        super().__init__()
        self.weight = weight
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)

    def divisor(self, batch: Batch) -> int:
        """Return what the mean of a batch divides by, up to a constant factor: the number of images."""
        return len(batch.targets)


class BaseLabels(Objective):
    """Multi-label classification of the base classes by max-sim scores.

    binary, asymmetric: each class on its own. Logits are scores with a learned scale and a learned bias per class: AP
    ranks within a class, so scores need not be comparable across classes.
    softmax: classes compete within an image, with a learned temperature and no biases, since a later text query has no
    bias either. Other words do not compete: nobody has checked that an image does not show them.
    """

    name = "base_labels"
    texts: Tensor

    def __init__(self, texts: Tensor, loss: BaseLoss, weight: float) -> None:
        """texts: [C, D], unit, of the base classes."""
        super().__init__(weight, texts=texts)
        self.loss = loss
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(len(texts)))

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        scores = max_sim(vectors, self.texts)
        match self.loss:
            case "binary":
                return losses.binary_loss(self.logits(scores), batch.targets, batch.verified)
            case "asymmetric":
                return losses.asymmetric_loss(self.logits(scores), batch.targets, batch.verified)
            case "softmax":
                return losses.softmax_loss(scores, batch.targets, batch.verified, torch.exp(-self.log_scale))

    def divisor(self, batch: Batch) -> int:
        """Return the number of pairs that the loss is the mean of."""
        pairs = batch.verified & batch.targets if self.loss == "softmax" else batch.verified
        return int(pairs.sum())

    def logits(self, scores: Tensor) -> Tensor:
        """[B, C] -> [B, C]."""
        return self.log_scale.exp() * scores + self.bias

    def fit(self, scores: Tensor, targets: Tensor, verified: Tensor) -> None:
        """Fit scale and biases to the untrained head's scores; unfitted ones would make the first steps destructive.

        scores: max-sim [I, C]; targets, verified: [I, C]. A ridge pulls the biases of classes with few labels to a
        common one, and the scale to 2 / (standard deviation of the scores), which it keeps if scores carry no
        information about the labels. For softmax only the scale is fitted.
        """
        # A single score has no standard deviation; 0.02 gives CLIP's own scale of 100.
        spread = scores.std().clamp(min=1e-4) if scores.numel() > 1 else torch.tensor(0.02, device=scores.device)
        start = (2 / spread).log()
        with torch.no_grad():
            self.log_scale.copy_(start)
            self.bias.copy_(-self.log_scale.exp() * (scores.mean(0) + 2 * spread))
        optimizer = torch.optim.LBFGS([self.log_scale, self.bias], max_iter=100, line_search_fn="strong_wolfe")

        def closure() -> float:
            optimizer.zero_grad()
            ridge = ((self.bias - self.bias.mean()) / 2).square().mean() + (self.log_scale - start).square()
            if self.loss == "softmax":
                loss = losses.softmax_loss(scores, targets, verified, torch.exp(-self.log_scale))
            else:
                loss = losses.binary_loss(self.logits(scores), targets, verified)
            loss = loss + 1e-3 * ridge
            loss.backward()
            return loss.item()

        optimizer.step(closure)


class PseudoLabels(Objective):
    """Distillation of the teacher's scores over a vocabulary without novel names.

    Of a large vocabulary, each call uses other words, drawn at random: scores of thousands of words take longer than
    the head itself.
    """

    name = "pseudo_labels"
    texts: Tensor
    calls: Tensor

    def __init__(self, texts: Tensor, temperature: float, weight: float, seed: int) -> None:
        """texts: [W, D], unit, of the vocabulary; seed: at least 0, for the words drawn."""
        # The number of calls is part of the checkpoint, so that a resumed run draws the next words.
        super().__init__(weight, texts=texts, calls=torch.zeros((), dtype=torch.int64))
        self.temperature, self.seed = temperature, seed

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        texts = self.texts
        if len(texts) > _WORDS_PER_STEP:
            drawn = torch.randperm(len(texts), generator=_generator(self.seed, int(self.calls)))[:_WORDS_PER_STEP]
            texts = texts[drawn.to(texts.device)]
        self.calls += 1
        return losses.score_distillation(vectors, batch.teacher.to(vectors), texts, self.temperature)


class TeacherSet(Objective):
    """Distillation of the teacher's set of vectors: each should have a close student vector. Needs no words."""

    name = "teacher_set"

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        return losses.set_distillation(vectors, batch.teacher.to(vectors))


class NeighbourWords(Objective):
    """Keeps the untuned head's scores of the words closest to the base classes.

    A change that raises "sweatshirt" also raises the similar "sweater". Holding the neighbours' scores makes training
    find the direction that separates the two.
    """

    name = "neighbour_words"
    texts: Tensor
    spread: Tensor

    def __init__(self, texts: Tensor, spread: Tensor, weight: float) -> None:
        """texts: [V, D], unit, at least one, from `nearest_words`.

        spread: [V], above 0: the standard deviation over images of the untuned head's scores of each word.
        """
        assert len(texts) == len(spread) > 0, (texts.shape, spread.shape)
        assert bool((spread > 0).all()), spread.min()
        super().__init__(weight, texts=texts, spread=spread)

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        return losses.preservation_loss(max_sim(vectors, self.texts), max_sim(batch.untuned, self.texts), self.spread)


class QueryDiversity(Objective):
    """Penalises similar vectors within an image, so that query tokens do not collapse into one."""

    name = "query_diversity"

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        return losses.query_diversity(vectors)


class RandomTexts(Objective):
    """Distillation of the teacher's scores over random mixtures of two words of the vocabulary.

    Mixtures stay in the region of text vectors; directions drawn from the whole space score near 0 in every image.
    """

    name = "random_texts"
    texts: Tensor
    calls: Tensor

    def __init__(self, texts: Tensor, count: int, temperature: float, weight: float, seed: int) -> None:
        """texts: [V, D], unit, of the vocabulary; count: mixtures drawn at each call; seed: at least 0."""
        # The number of calls is part of the checkpoint, so that a resumed run draws the next mixtures.
        super().__init__(weight, texts=texts, calls=torch.zeros((), dtype=torch.int64))
        self.count, self.temperature, self.seed = count, temperature, seed

    def forward(self, vectors: Tensor, batch: Batch) -> Tensor:
        texts = self.draw(int(self.calls))
        self.calls += 1
        return losses.score_distillation(vectors, batch.teacher.to(vectors), texts, self.temperature)

    def draw(self, call: int) -> Tensor:
        """Draw the mixtures of a call, counted from 0. Returns unit vectors [count, D]."""
        generator = _generator(self.seed, call)
        size = len(self.texts)
        first = torch.randint(size, (self.count,), generator=generator)
        second = (first + torch.randint(1, max(2, size), (self.count,), generator=generator)) % size
        ratio = torch.rand(self.count, 1, generator=generator).to(self.texts)
        return F.normalize(torch.lerp(self.texts[first], self.texts[second], ratio), dim=-1)


def _generator(seed: int, call: int) -> torch.Generator:
    # Hashed, because seed + call would repeat one seed's draws under the next. 32 bits are all that torch's CPU
    # generator reads; it draws on the CPU so that every device gets the same.
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, call)).generate_state(1)[0]))


def nearest_words(base: Tensor, vocabulary: Tensor, count: int) -> Tensor:
    """Return the rows of up to `count` vocabulary words closest to any base class, closest first.

    base: [C, D]; vocabulary: [V, D]; both unit. The base classes themselves are left out.
    """
    cosines = (vocabulary @ base.T).amax(1)
    num_words = int((cosines <= SAME_WORD).sum())
    ranked = cosines.masked_fill(cosines > SAME_WORD, -2).argsort(descending=True, stable=True)
    return ranked[: min(count, num_words)]
