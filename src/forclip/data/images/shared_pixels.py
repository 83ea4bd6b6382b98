"""Memory for the pixels of a few batches that decoding processes write into."""

import math
import mmap

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BATCHES = 4  # one in use, one that was read ahead of it, and two that are being decoded


class SharedPixels:
    """The pixels of the last four batches, in memory that this process and those that it forks afterwards share.

    No copy is made between processes. The memory is anonymous: containers limit only that under /dev/shm.
    """

    def __init__(self, shape: tuple[int, ...], batch_size: int) -> None:
        """shape: of the pixels of one image, float32."""
        count = BATCHES * batch_size * math.prod(shape)
        memory = mmap.mmap(-1, max(1, 4 * count))
        self._pixels: NDArray[np.float32] = np.frombuffer(memory, np.float32, count).reshape(
            BATCHES, batch_size, *shape
        )

    def write(self, row: int, pixels: NDArray[np.float32]) -> None:
        """Write the pixels of an image. row: its number, from 0."""
        batch, place = self._place(row)
        self._pixels[batch, place] = pixels

    def batch(self, rows: list[int]) -> Tensor:
        """Return the pixels of some images of one batch, in ascending order: [B, ...].

        They are overwritten when the batch that is four later is decoded.
        """
        batch, first = self._place(rows[0])
        pixels = self._pixels[batch]
        if rows[-1] - rows[0] == len(rows) - 1:
            return torch.from_numpy(pixels[first : first + len(rows)])
        return torch.from_numpy(pixels[[self._place(row)[1] for row in rows]])

    def _place(self, row: int) -> tuple[int, int]:
        batch_size = self._pixels.shape[1]
        return row // batch_size % BATCHES, row % batch_size
