"""The smallest head and backbone that are still real ones, for tests that don't care which."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from forclip.models.pools import MeanTokenPool, Pool


def tiny_pool(grid: tuple[int, int]) -> MeanTokenPool:
    """Width 8, two heads, six dimensions; the same random weights each time."""
    torch.manual_seed(0)
    embedding = torch.randn(1 + grid[0] * grid[1], 8)
    q, k, v = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
    return MeanTokenPool(q, k, v, nn.Linear(8, 6), embedding, num_heads=2, grid=grid, dim=6)


class TinyEyes:
    """A backbone without text: 6 x 6 pixels, and as tokens the 3 x 3 patches, colours -1..1, through a fixed matrix."""

    device = torch.device("cpu")

    def __init__(self, name: str = "tiny", fingerprint: str = "0" * 64) -> None:
        self.name, self.fingerprint = name, fingerprint

    def preprocess(self, image: Image.Image) -> Tensor:
        small = np.asarray(image.convert("RGB").resize((6, 6)), np.float32)
        return torch.from_numpy(small / 127.5 - 1).permute(2, 0, 1)

    def frame(self, width: int, height: int) -> tuple[float, float, float, float]:
        return 0.0, 0.0, 1.0, 1.0

    def encode_tokens(self, pixels: Tensor) -> Tensor:
        cut: Tensor = pixels.unflatten(2, (3, 2)).unflatten(4, (3, 2))
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, 9, 12)
        return patches @ torch.randn(12, 8, generator=torch.Generator().manual_seed(0))

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        raise NotImplementedError

    def new_pool(self) -> Pool:
        return tiny_pool((3, 3))


class TinyBackbone(TinyEyes):
    """With a text tower that looks a random vector up."""

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        numbers = [sum(text.encode()) for text in texts]
        rows = [torch.randn(6, generator=torch.Generator().manual_seed(n)) for n in numbers]
        return F.normalize(torch.stack(rows), dim=-1)


def aligned(pool: Pool, output: nn.Linear) -> Pool:
    """The pool with an output map. The pool itself is changed."""
    pool.output = output
    return pool
