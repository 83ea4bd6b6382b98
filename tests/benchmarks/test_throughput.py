"""The throughput benchmark: turns and ratios."""

import numpy as np
import pytest
import torch

from benchmarks.throughput import Comparison, as_json, take_turns


def test_sides_take_turns_and_the_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    ours, theirs = take_turns(lambda: calls.append("a"), lambda: calls.append("b"), 3, torch.device("cpu"))
    assert "".join(calls) == "ab" * 5
    assert ours.shape == theirs.shape == (3, 2)


def test_a_ratio_above_one_says_that_ours_is_faster_turn_by_turn() -> None:
    # In every turn, ours is twice as fast by wall-clock time and half as fast by CPU time.
    ours = np.array([[1.0, 4.0], [10.0, 40.0], [3.0, 8.0]])
    theirs = np.array([[2.0, 2.0], [20.0, 20.0], [6.0, 4.0]])
    row = as_json(Comparison("x", 1, 6, ours, theirs, 0.95))
    assert row["ratio"] == pytest.approx(2)
    assert row["cpu_time_ratio"] == pytest.approx(0.5)
    assert row["ours_images_per_second"] == pytest.approx(2)
    assert row["theirs_images_per_second"] == pytest.approx(1)
