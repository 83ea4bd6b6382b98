"""Class text embeddings: a learned shift of each base class's text vector, and of no other text."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAME_WORD = 0.999  # cosine of a text with itself: rounding takes it below 1, synonyms stay below this


class ClassVectors(nn.Module):
    """Shifts the text vectors of labelled classes and leaves all others unchanged.

    The class's own text gets the whole shift. For other texts the shift falls linearly with their cosine to it; it is 0
    from half the distance to the nearest other word on. So a novel class keeps its vector, however similar its name.
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
        classes, shifts = self.texts.to(texts.device), self.shifts.to(texts.device)
        half_way = (1 + self.nearest.to(texts.device)) / 2
        strength = ((texts @ classes.T - half_way) / (1 - half_way).clamp(min=1e-6)).clamp(0, 1)
        return F.normalize(texts + strength @ shifts, dim=-1)


def no_class_vectors(dim: int) -> ClassVectors:
    """Return class vectors without a class, which leave every text unchanged. dim: D."""
    return ClassVectors(torch.zeros(0, dim), torch.zeros(0, dim), torch.zeros(0))
