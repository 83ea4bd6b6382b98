"""The number of PyTorch's threads inside a block, and the choice of a number."""

import time

import pytest
import torch

from forclip.search.searcher import choose_thread_count, torch_threads


def test_the_number_is_set_inside_the_block_only() -> None:
    before = torch.get_num_threads()
    with torch_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with torch_threads(None):
        assert torch.get_num_threads() == before


@pytest.mark.parametrize(("seconds_of_two", "expected"), [(0.5, 2), (0.9, 1), (4.0, 1)])
def test_more_threads_must_be_clearly_faster(
    seconds_of_two: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def work() -> None:
        clock[0] += {1: 1.0, 2: seconds_of_two}[torch.get_num_threads()]

    with torch_threads(2):
        assert choose_thread_count(work) == expected
