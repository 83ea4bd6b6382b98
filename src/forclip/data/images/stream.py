"""Decode images in the background, in batches of pixels; unreadable images are reported with each batch.

Pictures at URLs and in shards are fetched by threads that are further ahead: many files at a time, and each shard in
order by one thread.
"""

import gc
import io
import itertools
import multiprocessing
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from forclip.data.images.content import bytes_digest
from forclip.data.images.decode import UnreachableImage, UnreadableImage, decode_picture, fetch, read_picture
from forclip.data.images.frame_location import split_frame
from forclip.data.images.picture import ChooseReduction, Picture
from forclip.data.images.shared_pixels import SharedPixels
from forclip.data.images.views import Size
from forclip.interrupts import ignore_interrupts
from forclip.location import Location, Uri

_FETCHING = 16  # files or shards that are fetched at the same time
_FETCHED_BATCHES = 3  # that are ahead of the decoding

Prepare = Callable[[int, Picture], Tensor]  # a row and its image to a tensor, always of the same shape
# A row and the size of its image, as in `decode_picture`, to how far it may be reduced.
Reduce = Callable[[int, Size], int]


def never_reduce(row: int, size: Size) -> int:
    """Decode every image in full."""
    return 1


@dataclass(frozen=True)
class PixelBatch:
    """One batch of images.

    pixels: [B, ...], as prepared. rows: [B], the positions in the list of paths. sizes: [B], width and height in
    pixels of the upright images. unreadable: the row and the reason of each image that is left out. digests: by row, of
    the content of images that were fetched from a URL or a shard. unreachable: rows of unreadable images that could not
    be fetched, because the network failed.
    """

    pixels: Tensor
    rows: list[int]
    sizes: list[tuple[int, int]]
    unreadable: list[tuple[int, str]]
    digests: dict[int, str] = field(default_factory=dict)
    unreachable: frozenset[int] = frozenset()


def stream_pixels(
    paths: Sequence[Location],
    prepare: Prepare,
    batch_size: int,
    threads: int = 2,
    processes: int = 0,
    reduce: Reduce = never_reduce,
    shape: tuple[int, ...] | None = None,
) -> Iterator[PixelBatch]:
    """Decode images in the order of paths. Unreadable images make a batch smaller, down to none.

    processes: decode in this many processes instead of threads, if the system can fork. They help if a GPU waits for
    images, because Python prepares one tensor at a time in threads. reduce: how far JPEGs may be reduced. shape: of a
    prepared image, which processes then write into memory that they share; a batch of theirs is valid until the third
    batch after it is requested.
    """
    work, shared = _Work(prepare, reduce), None
    if processes > 0 and "fork" in multiprocessing.get_all_start_methods():
        # Lance warns of any fork; these processes read images and never touch a store.
        warnings.filterwarnings("ignore", "lance is not fork-safe")
        context = multiprocessing.get_context("fork")
        gc.collect()  # a decoder of videos that a process inherits waits for ever for its threads when it is freed
        if shape is not None:
            shared = SharedPixels(shape, batch_size)
            work = replace(work, shared=shared)
        new_pool: Callable[[int], Executor] = partial(
            ProcessPoolExecutor, mp_context=context, initializer=_start_process, initargs=(work,)
        )
        decode: Callable[[int, _Source], _Decoded] = _decode_in_process
        workers = processes
    else:
        new_pool, decode, workers = ThreadPoolExecutor, work, threads
    with ExitStack() as stack:
        # Workers with a queue each: a video's frames go to one of them, in order, so that it is decoded in one pass.
        pools = [stack.enter_context(new_pool(1)) for _ in range(workers)]
        for pool in pools:
            pool.submit(int)  # forks now, before other threads hold locks
        # Not in processes: the clients of file systems do not survive a fork.
        remote_videos = stack.enter_context(ThreadPoolExecutor(1))
        number_of: dict[Location, int] = {}
        digests: dict[int, str] = {}

        def submit(row: int, source: _Source) -> Future[_Decoded]:
            if isinstance(source, _Fetched):
                digests[row] = source.digest
                return pools[row % len(pools)].submit(decode, row, source)
            if isinstance(source, UnreadableImage):
                failed: Future[_Decoded] = Future()
                failed.set_result(source)
                return failed
            if isinstance(source, Uri):
                return remote_videos.submit(work, row, source)
            frame = split_frame(source)
            number = row if frame is None else number_of.setdefault(frame[0], len(number_of))
            return pools[number % len(pools)].submit(decode, row, source)

        # One batch ahead of the one in use and no more, so that memory stays at two batches.
        jobs = enumerate(_fetch_ahead(paths, _FETCHED_BATCHES * batch_size, stack))
        pending = deque(submit(*job) for job in islice(jobs, 2 * batch_size))
        for start in range(0, len(paths), batch_size):
            decoded = [pending.popleft().result() for _ in range(min(batch_size, len(paths) - start))]
            pending.extend(submit(*job) for job in islice(jobs, batch_size))
            read = [(start + k, d) for k, d in enumerate(decoded) if not isinstance(d, UnreadableImage)]
            errors = [(start + k, d) for k, d in enumerate(decoded) if isinstance(d, UnreadableImage)]
            if shared is not None and read:
                pixels = shared.batch([row for row, _ in read])
            else:
                pixels = torch.from_numpy(np.stack([d[0] for _, d in read])) if read else torch.empty(0)
            yield PixelBatch(
                pixels,
                [row for row, _ in read],
                [d[1] for _, d in read],
                [(row, str(error)) for row, error in errors],
                {row: digest for row, _ in read if (digest := digests.get(row))},
                frozenset(row for row, error in errors if isinstance(error, UnreachableImage)),
            )
            for k in range(len(decoded)):
                digests.pop(start + k, None)


@dataclass(frozen=True)
class _Fetched:
    """The bytes of a picture, its name, and the digest of the bytes."""

    content: bytes
    name: str
    digest: str


_Source = Location | _Fetched | UnreadableImage
# Pixels and size; no pixels if they are in `SharedPixels`. An array, because tensors cross processes through a kind of
# shared memory that containers often lack.
_Decoded = tuple[np.ndarray, tuple[int, int]] | UnreadableImage


def _fetch_ahead(paths: Sequence[Location], count: int, stack: ExitStack) -> Iterator[_Source]:
    """Yield each path, or what it holds where it must be fetched: up to `count` pictures ahead."""
    fetchers: list[ThreadPoolExecutor] = []
    number_of: dict[str, int] = {}  # of shards
    numbers = itertools.count()  # of other files
    waiting: deque[_Source | Future[_Source]] = deque()

    def start(path: Location) -> _Source | Future[_Source]:
        if not isinstance(path, Uri) or split_frame(path):
            return path
        if not fetchers:
            fetchers.extend(stack.enter_context(ThreadPoolExecutor(1)) for _ in range(_FETCHING))
        # A shard is read by one thread, from its start to its end.
        number = number_of.setdefault(path.container, len(number_of)) if path.member else next(numbers)
        return fetchers[number % _FETCHING].submit(_fetch, path)

    remaining, is_last = iter(paths), False
    while not is_last or waiting:
        # Beyond a file of this machine there is no need to look ahead.
        while not is_last and len(waiting) < count and (not waiting or isinstance(waiting[-1], Future)):
            following = list(islice(remaining, 1))
            waiting.extend(map(start, following))
            is_last = not following
        if waiting:
            first = waiting.popleft()
            yield first.result() if isinstance(first, Future) else first


def _fetch(uri: Uri) -> _Source:
    try:
        content = fetch(uri)
    except UnreadableImage as error:
        return error
    return _Fetched(content, str(uri), bytes_digest(content))


@dataclass(frozen=True)
class _Work:
    """Decode and prepare an image. shared: where its pixels are written to, None to return them."""

    prepare: Prepare
    reduce: Reduce
    shared: SharedPixels | None = None

    def __call__(self, row: int, source: _Source) -> _Decoded:
        try:
            picture = _read(source, partial(self.reduce, row))
            pixels, size = self.prepare(row, picture).numpy(), picture.size
        except UnreadableImage as error:
            return error
        if self.shared is None:
            return pixels, size
        self.shared.write(row, pixels)
        return np.empty(0, np.float32), size


_open_video = threading.local()  # `reader`: of the video that a worker decodes


def _read(source: _Source, choose_reduction: ChooseReduction) -> Picture:
    """Like `read_picture`, but keep a video open for its next frame."""
    if isinstance(source, UnreadableImage):
        raise source
    if isinstance(source, _Fetched):
        return decode_picture(io.BytesIO(source.content), source.name, choose_reduction)
    if (frame := split_frame(source)) is None:
        return read_picture(source, choose_reduction)
    from forclip.data.images.video import VideoReader  # loads FFmpeg, for videos alone

    video, seconds = frame
    reader: VideoReader | None = getattr(_open_video, "reader", None)
    if reader is None or reader.file != video:
        if reader is not None:
            reader.close()
        _open_video.reader = None
        _open_video.reader = reader = VideoReader(video, str(video))
    return Picture.whole(reader.frame_at(seconds))


_process_work: list[_Work] = []  # functions such as `prepare` can't be sent to a process, but a fork inherits them


def _start_process(work: _Work) -> None:
    ignore_interrupts()
    gc.freeze()  # what is inherited is not freed
    torch.set_num_threads(1)
    _process_work[:] = [work]


def _decode_in_process(row: int, source: _Source) -> _Decoded:
    return _process_work[0](row, source)
