"""Batches read ahead: all of them, in order, a bounded number, and no thread is left behind."""

import threading
from collections.abc import Iterator

import pytest
import torch

from forclip.data.images.stream import PixelBatch
from forclip.embedding.prefetch import AHEAD, Prefetch

CPU = torch.device("cpu")


class Source:
    """Counts the batches that were drawn, and whether it was closed."""

    def __init__(self, count: int, error_at: int | None = None) -> None:
        self.drawn, self.closed = 0, False
        self._count, self._error_at = count, error_at

    def batches(self) -> Iterator[PixelBatch]:
        try:
            for number in range(self._count):
                if number == self._error_at:
                    raise RuntimeError("broken")
                self.drawn += 1
                yield PixelBatch(torch.full((1,), number), [number], [(1, 1)], [])
        finally:
            self.closed = True


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_all_batches_come_in_order_and_a_bounded_number_ahead(count: int) -> None:
    source, seen = Source(count), list[int]()
    with Prefetch(source.batches(), CPU) as batches:
        for batch in batches:
            assert source.drawn <= len(seen) + 1 + AHEAD
            seen += batch.rows
    assert seen == list(range(count))
    assert source.closed


def test_whoever_stops_early_leaves_no_thread_and_no_open_source() -> None:
    before, source = threading.active_count(), Source(100)
    with Prefetch(source.batches(), CPU) as batches:
        next(batches)
    assert source.closed
    assert source.drawn <= 1 + AHEAD + 1
    assert threading.active_count() == before


def test_an_error_of_the_source_is_raised_where_its_batch_would_be() -> None:
    source, seen = Source(5, error_at=3), list[int]()
    with pytest.raises(RuntimeError, match="broken"), Prefetch(source.batches(), CPU) as batches:
        seen.extend(batch.rows[0] for batch in batches)
    assert seen == [0, 1, 2]
