"""Class text embeddings: a shift of each base class's text vector, and of no other text."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAME_WORD = 0.999  # a cosine between two texts; rounding alone takes it below 1, synonyms stay below this


class ClassVectors(nn.Module):
    """Moves the text vectors of classes that were labelled, and leaves all others where they are.

    A text counts as a class's if it is nearer to it than half-way to the nearest other word; between there and the
    class's own text the shift sets in linearly. So a novel class, however close its name, is asked as it always was.
    """

    texts: Tensor
    shifts: Tensor
    nearest: Tensor

    def __init__(self, texts: Tensor, shifts: Tensor, nearest: Tensor) -> None:
        """texts: [C, D] unit, of the classes; shifts: [C, D]; nearest: [C], the cosine of the nearest other word."""
        super().__init__()
        self.register_buffer("texts", texts)
        self.register_buffer("shifts", shifts)
        self.register_buffer("nearest", nearest)

    def forward(self, texts: Tensor) -> Tensor:
        """[T, D] unit -> [T, D] unit, on the device of the texts."""
        known, shifts = self.texts.to(texts.device), self.shifts.to(texts.device)
        half_way = (1 + self.nearest.to(texts.device)) / 2
        share = ((texts @ known.T - half_way) / (1 - half_way).clamp(min=1e-6)).clamp(0, 1)
        return F.normalize(texts + share @ shifts, dim=-1)


def no_class_vectors(dim: int) -> ClassVectors:
    """Leaves every text as it is."""
    return ClassVectors(torch.zeros(0, dim), torch.zeros(0, dim), torch.zeros(0))
