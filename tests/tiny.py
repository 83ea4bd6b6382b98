"""The smallest head that is still a real one, for tests that don't care which."""

import torch
from torch import nn

from forclip.models.pools import MeanTokenPool


def tiny_pool(grid: tuple[int, int]) -> MeanTokenPool:
    """Width 8, two heads, six dimensions; the same random weights each time."""
    torch.manual_seed(0)
    embedding = torch.randn(1 + grid[0] * grid[1], 8)
    q, k, v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
    return MeanTokenPool(q, k, v, nn.Linear(8, 6), embedding, num_heads=2, grid=grid, dim=6)
