"""Pictures into batches of pixels, decoded by threads while the model works; unreadable ones are set aside."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from forclip.data.decode import UnreadableImage, read_image


@dataclass(frozen=True)
class PixelBatch:
    """pixels: [B, 3, H, W], or as prepared; rows: which of the given paths they are; unreadable: row and reason of
    those left out."""

    pixels: Tensor
    rows: list[int]
    unreadable: list[tuple[int, str]]


def stream_pixels(
    paths: Sequence[Path], preprocess: Callable[[Image.Image], Tensor], batch_size: int, threads: int = 2
) -> Iterator[PixelBatch]:
    """Batches in the order of paths. A batch may be short of the pictures that could not be read, down to none."""
    return stream_prepared(paths, lambda row, image: preprocess(image), batch_size, threads)


def stream_prepared(
    paths: Sequence[Path], prepare: Callable[[int, Image.Image], Tensor], batch_size: int, threads: int = 2
) -> Iterator[PixelBatch]:
    """As stream_pixels, for what depends on the row too. prepare: row and picture to a tensor, always of one shape."""

    def decode(row: int, path: Path) -> Tensor | UnreadableImage:
        try:
            return prepare(row, read_image(path))
        except UnreadableImage as error:
            return error

    with ThreadPoolExecutor(threads) as pool:
        for start, decoded in _ahead(pool, decode, paths, batch_size):
            read = [(start + k, d) for k, d in enumerate(decoded) if isinstance(d, Tensor)]
            bad = [(start + k, str(d)) for k, d in enumerate(decoded) if isinstance(d, UnreadableImage)]
            pixels = torch.stack([p for _, p in read]) if read else torch.empty(0)
            yield PixelBatch(pixels, [row for row, _ in read], bad)


def _ahead(
    pool: ThreadPoolExecutor,
    decode: Callable[[int, Path], Tensor | UnreadableImage],
    paths: Sequence[Path],
    batch_size: int,
) -> Iterator[tuple[int, list[Tensor | UnreadableImage]]]:
    """Decodes one batch ahead of the one being used, and no more: memory stays at two batches."""
    waiting: deque[Future[Tensor | UnreadableImage]] = deque()
    coming = enumerate(paths)
    waiting.extend(pool.submit(decode, row, p) for row, p in islice(coming, 2 * batch_size))
    for start in range(0, len(paths), batch_size):
        size = min(batch_size, len(paths) - start)
        decoded = [waiting.popleft().result() for _ in range(size)]
        waiting.extend(pool.submit(decode, row, p) for row, p in islice(coming, batch_size))
        yield start, decoded
