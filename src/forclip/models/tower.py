"""What a tower of any family is cut into, and the two operations on weights that the cutting takes."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.pools import Pool


@dataclass(frozen=True)
class Tower:
    """An image tower cut where its pool begins.

    tokens: [B, 3, H, W] -> [B, T, W]; pool: reads these tokens, and may share modules with the tower.
    """

    tokens: Callable[[Tensor], Tensor]
    pool: Pool


def split_linear(weight: Tensor, bias: Tensor | None, parts: int) -> list[nn.Linear]:
    """A fused projection, weight [parts * out, in] and bias [parts * out], as layers that own copies of their rows."""
    biases = [None] * parts if bias is None else bias.detach().chunk(parts)
    return [_linear(rows, row_bias) for rows, row_bias in zip(weight.detach().chunk(parts), biases, strict=True)]


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, weight.device, weight.dtype)
    layer.weight.data.copy_(weight)
    if bias is not None:
        layer.bias.data.copy_(bias)
    return layer


def resize_positions(embedding: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int) -> Tensor:
    """Positional embeddings for another grid, (rows, columns), as open_clip interpolates them; the prefix stays.

    embedding: [prefix + old positions, W]. Returns [prefix + new positions, W].
    """
    assert len(embedding) == prefix + old[0] * old[1], f"{len(embedding)} embeddings for a grid of {old} and {prefix}"
    if old == new:
        return embedding
    image = embedding[prefix:].T.reshape(1, -1, *old).float()
    resized = F.interpolate(image, new, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([embedding[:prefix], resized[0].flatten(1).T.to(embedding.dtype)])
