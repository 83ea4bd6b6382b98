"""Pictures into batches of pixels, decoded beside the model's work; unreadable ones are set aside."""

import multiprocessing
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from forclip.data.images.decode import UnreadableImage, read_image


@dataclass(frozen=True)
class PixelBatch:
    """pixels: [B, 3, H, W], or as prepared; rows: which of the given paths they are; sizes: width and height of each
    as stored; unreadable: row and reason of those left out."""

    pixels: Tensor
    rows: list[int]
    sizes: list[tuple[int, int]]
    unreadable: list[tuple[int, str]]


def stream_pixels(
    paths: Sequence[Path], preprocess: Callable[[Image.Image], Tensor], batch_size: int, threads: int = 2
) -> Iterator[PixelBatch]:
    """Batches in the order of paths. A batch may be short of the pictures that could not be read, down to none."""
    return stream_prepared(paths, lambda row, image: preprocess(image), batch_size, threads)


def stream_prepared(
    paths: Sequence[Path],
    prepare: Callable[[int, Image.Image], Tensor],
    batch_size: int,
    threads: int = 2,
    processes: int = 0,
) -> Iterator[PixelBatch]:
    """As stream_pixels, for what depends on the row too. prepare: row and picture to a tensor, always of one shape.

    processes: decode in so many of them instead of threads, where the system can fork. They pay where a GPU waits:
    Python lets one thread at a time prepare a tensor.
    """
    forks = processes > 0 and "fork" in multiprocessing.get_all_start_methods()
    pool: Executor = _processes(processes, prepare) if forks else ThreadPoolExecutor(threads)
    decode = _decode_in_process if forks else _decoder(prepare)
    with pool:
        for start, decoded in _ahead(pool, decode, paths, batch_size):
            read = [(start + k, d) for k, d in enumerate(decoded) if not isinstance(d, UnreadableImage)]
            bad = [(start + k, str(d)) for k, d in enumerate(decoded) if isinstance(d, UnreadableImage)]
            pixels = torch.from_numpy(np.stack([d.pixels for _, d in read])) if read else torch.empty(0)
            yield PixelBatch(pixels, [row for row, _ in read], [d.size for _, d in read], bad)


@dataclass(frozen=True)
class _Decoded:
    """pixels: as prepared, an array, since tensors cross processes through shared memory that containers lack."""

    pixels: np.ndarray
    size: tuple[int, int]


_Decode = Callable[[int, Path], _Decoded | UnreadableImage]


def _decoder(prepare: Callable[[int, Image.Image], Tensor]) -> _Decode:
    def decode(row: int, path: Path) -> _Decoded | UnreadableImage:
        try:
            image = read_image(path)
            return _Decoded(prepare(row, image).numpy(), image.size)
        except UnreadableImage as error:
            return error

    return decode


_of_this_process: list[_Decode] = []  # a decoder can't be sent, but a fork inherits it


def _processes(count: int, prepare: Callable[[int, Image.Image], Tensor]) -> ProcessPoolExecutor:
    # Lance warns of forks, whoever forks; these processes read pictures and never touch a store.
    warnings.filterwarnings("ignore", "lance is not fork-safe")
    context = multiprocessing.get_context("fork")
    return ProcessPoolExecutor(count, context, initializer=_start_process, initargs=(prepare,))


def _start_process(prepare: Callable[[int, Image.Image], Tensor]) -> None:
    torch.set_num_threads(1)
    _of_this_process[:] = [_decoder(prepare)]


def _decode_in_process(row: int, path: Path) -> _Decoded | UnreadableImage:
    return _of_this_process[0](row, path)


def _ahead(
    pool: Executor, decode: _Decode, paths: Sequence[Path], batch_size: int
) -> Iterator[tuple[int, list[_Decoded | UnreadableImage]]]:
    """Decodes one batch ahead of the one being used, and no more: memory stays at two batches."""
    waiting: deque[Future[_Decoded | UnreadableImage]] = deque()
    coming = enumerate(paths)
    waiting.extend(pool.submit(decode, row, p) for row, p in islice(coming, 2 * batch_size))
    for start in range(0, len(paths), batch_size):
        size = min(batch_size, len(paths) - start)
        decoded = [waiting.popleft().result() for _ in range(size)]
        waiting.extend(pool.submit(decode, row, p) for row, p in islice(coming, batch_size))
        yield start, decoded
