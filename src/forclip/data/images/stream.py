"""Decode images in the background, in batches of pixels; unreadable images are reported with each batch."""

import gc
import multiprocessing
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from forclip.data.images.decode import UnreadableImage, read_image
from forclip.data.images.frame_location import split_frame

Prepare = Callable[[int, Image.Image], Tensor]  # a row and its image to a tensor, always of the same shape


@dataclass(frozen=True)
class PixelBatch:
    """One batch of images.

    pixels: [B, ...], as prepared. rows: [B], the positions in the list of paths. sizes: [B], width and height in
    pixels of the upright images. unreadable: the row and the reason of each image that is left out.
    """

    pixels: Tensor
    rows: list[int]
    sizes: list[tuple[int, int]]
    unreadable: list[tuple[int, str]]


def stream_pixels(
    paths: Sequence[Path], prepare: Prepare, batch_size: int, threads: int = 2, processes: int = 0
) -> Iterator[PixelBatch]:
    """Decode images in the order of paths. Unreadable images make a batch smaller, down to none.

    processes: decode in this many processes instead of threads, if the system can fork. They help if a GPU waits for
    images, because Python prepares one tensor at a time in threads.
    """
    if processes > 0 and "fork" in multiprocessing.get_all_start_methods():
        # Lance warns of any fork; these processes read images and never touch a store.
        warnings.filterwarnings("ignore", "lance is not fork-safe")
        context = multiprocessing.get_context("fork")
        gc.collect()  # a decoder of videos that a process inherits waits for ever for its threads when it is freed
        new_pool: Callable[[int], Executor] = partial(
            ProcessPoolExecutor, mp_context=context, initializer=_start_process, initargs=(prepare,)
        )
        decode: Callable[[int, Path], _Decoded] = _decode_in_process
        workers = processes
    else:
        new_pool, decode, workers = ThreadPoolExecutor, partial(_decode, prepare), threads
    with ExitStack() as stack:
        # Workers with a queue each: a video's frames go to one of them, in order, so that it is decoded in one pass.
        pools = [stack.enter_context(new_pool(1)) for _ in range(workers)]
        for pool in pools:
            pool.submit(int)  # forks now, before other threads hold locks
        number_of: dict[Path, int] = {}

        def submit(row: int, path: Path) -> Future[_Decoded]:
            frame = split_frame(path)
            number = row if frame is None else number_of.setdefault(frame[0], len(number_of))
            return pools[number % len(pools)].submit(decode, row, path)

        # One batch ahead of the one in use and no more, so that memory stays at two batches.
        jobs = enumerate(paths)
        pending = deque(submit(*job) for job in islice(jobs, 2 * batch_size))
        for start in range(0, len(paths), batch_size):
            decoded = [pending.popleft().result() for _ in range(min(batch_size, len(paths) - start))]
            pending.extend(submit(*job) for job in islice(jobs, batch_size))
            read = [(start + k, d) for k, d in enumerate(decoded) if not isinstance(d, UnreadableImage)]
            unreadable = [(start + k, str(d)) for k, d in enumerate(decoded) if isinstance(d, UnreadableImage)]
            pixels = torch.from_numpy(np.stack([d[0] for _, d in read])) if read else torch.empty(0)
            yield PixelBatch(pixels, [row for row, _ in read], [d[1] for _, d in read], unreadable)


# Pixels and size. An array, because tensors cross processes through shared memory, which containers often lack.
_Decoded = tuple[np.ndarray, tuple[int, int]] | UnreadableImage


def _decode(prepare: Prepare, row: int, path: Path) -> _Decoded:
    try:
        image = _read(path)
        return prepare(row, image).numpy(), image.size
    except UnreadableImage as error:
        return error


_open_video = threading.local()  # `reader`: of the video that a worker decodes


def _read(path: Path) -> Image.Image:
    """Like `read_image`, but keep a video open for its next frame."""
    if (frame := split_frame(path)) is None:
        return read_image(path)
    from forclip.data.images.video import VideoReader  # loads FFmpeg, for videos alone

    video, seconds = frame
    reader: VideoReader | None = getattr(_open_video, "reader", None)
    if reader is None or reader.file != video:
        if reader is not None:
            reader.close()
        _open_video.reader = None
        _open_video.reader = reader = VideoReader(video, str(video))
    return reader.frame_at(seconds)


_process_prepare: list[Prepare] = []  # a function such as `prepare` can't be sent to a process, but a fork inherits it


def _start_process(prepare: Prepare) -> None:
    gc.freeze()  # what is inherited is not freed
    torch.set_num_threads(1)
    _process_prepare[:] = [prepare]


def _decode_in_process(row: int, path: Path) -> _Decoded:
    return _decode(_process_prepare[0], row, path)
