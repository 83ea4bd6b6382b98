"""Read batches of pixels ahead, in a thread that also copies them to a GPU."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch

from forclip.data.images.stream import PixelBatch

AHEAD = 1  # batches, besides the one in use and those that are being decoded


class Prefetch:
    """Iterates over batches in a context, of which the next one is read, and copied to the device, meanwhile.

    The memory for pixels is bounded: one batch is in use and `AHEAD` are ready.
    """

    def __init__(self, batches: Generator[PixelBatch, None, None] | Iterator[PixelBatch], device: torch.device) -> None:
        """device: that pixels are copied to if it is a GPU; for others they stay where they are."""
        self._batches, self._device = batches, device
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> Iterator[PixelBatch]:
        return self._read()

    def __exit__(self, *error: object) -> None:
        """Stop to read, also if not all batches were used."""
        self._thread.shutdown(cancel_futures=True)
        if isinstance(self._batches, Generator):
            self._batches.close()

    def _read(self) -> Iterator[PixelBatch]:
        ahead: deque[Future[PixelBatch | None]] = deque(self._thread.submit(self._next) for _ in range(AHEAD))
        while (batch := ahead.popleft().result()) is not None:
            ahead.append(self._thread.submit(self._next))
            if self._copies is not None and batch.pixels.is_cuda:
                # Its memory belongs to the stream that copied it, and must not be used again before this one is done.
                batch.pixels.record_stream(torch.cuda.current_stream(self._device))
            yield batch

    def _next(self) -> PixelBatch | None:
        batch = next(self._batches, None)
        if batch is None or self._copies is None or not batch.rows:
            return batch
        try:
            with torch.cuda.stream(self._copies):
                pixels = batch.pixels if batch.pixels.is_pinned() else batch.pixels.pin_memory()
                copied = pixels.to(self._device, non_blocking=True)
        except torch.OutOfMemoryError:
            return batch  # the encoder takes it in parts
        self._copies.synchronize()  # in this thread: the memory of the pixels may be used again now
        return replace(batch, pixels=copied)
