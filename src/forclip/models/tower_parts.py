"""What cut image towers are made of: the tower itself, stages that move into the pool, and positional embeddings."""

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


class MapStage(nn.Module):
    """A convolutional stage on flattened feature maps, for `Pool.tower_stage`. [B, P', C'] -> [B, P, C]."""

    def __init__(self, layer: nn.Module, grid: tuple[int, int]) -> None:
        """grid: (rows, columns) of the stage's input."""
        super().__init__()
        self.layer, self.grid = layer, grid

    def forward(self, tokens: Tensor) -> Tensor:
        return flatten_map(self.layer(tokens.transpose(1, 2).unflatten(2, self.grid)))


class BlockStage(nn.Module):
    """An open_clip transformer block on tokens [B, T, W], for `Pool.tower_stage`. batch_first: the block's layout."""

    def __init__(self, block: nn.Module, batch_first: bool) -> None:
        super().__init__()
        self.block, self.batch_first = block, batch_first

    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(tokens) if self.batch_first else self.block(tokens.transpose(0, 1)).transpose(0, 1)


class WithoutPrefix(nn.Module):
    """Drop the first tokens. [B, num_prefix + P, W] -> [B, P, W]."""

    def __init__(self, num_prefix: int) -> None:
        super().__init__()
        self.num_prefix = num_prefix

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, self.num_prefix :]


def flatten_map(feature_map: Tensor) -> Tensor:
    """[B, C, rows, columns] -> [B, P, C], positions row-major."""
    return feature_map.flatten(2).transpose(1, 2)


def resize_positions(embedding: Tensor, old: tuple[int, int], new: tuple[int, int], prefix: int) -> Tensor:
    """Interpolate positional embeddings to another grid, as open_clip does; the prefix stays unchanged.

    embedding: [prefix + old positions, W]; old, new: (rows, columns). Returns [prefix + new positions, W].
    """
    assert len(embedding) == prefix + old[0] * old[1], f"{len(embedding)} embeddings for a grid of {old} and {prefix}"
    if old == new:
        return embedding
    image = embedding[prefix:].T.reshape(1, -1, *old).float()
    resized = F.interpolate(image, new, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([embedding[:prefix], resized[0].flatten(1).T.to(embedding.dtype)])
