"""The benchmark for GPUs runs on a CPU, and its ratios are shares of the other side's speed."""

import pytest
import torch
from rich.console import Console

from benchmarks.gpu_speed import arguments, in_turns, measure, ratio


def test_sides_take_turns_and_the_first_turn_is_not_counted() -> None:
    calls: list[str] = []
    seconds = in_turns([lambda: calls.append("a"), lambda: calls.append("b")], 2, torch.device("cpu"))
    assert "".join(calls) == "ababab"
    assert [len(times) for times in seconds] == [2, 2]


def test_a_ratio_is_our_speed_as_a_share_of_theirs() -> None:
    assert ratio([2.0, 4.0, 3.0], [1.0, 2.0, 9.0]) == pytest.approx(0.5)


def test_everything_is_measured_on_a_cpu_in_bf16() -> None:
    words = ["--device", "cpu", "--models", "forclip-mini", "--compute", "bf16", "--seconds", "0", "--rounds", "1"]
    console = Console(quiet=True)
    (row,) = measure(arguments([*words, "--pictures", "2"]), console)["models"]
    assert row["compute"] == "bf16"
    assert row["ratio_to_autocast"] > 0
    assert row["ratio_to_half_weights"] > 0
    assert row["training"]["step_over_bare"] > 0
    assert row["decoding"]["decoded_images_per_second"] > 0
