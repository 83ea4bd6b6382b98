"""The means of the compactness benchmark."""

import pytest

from benchmarks.compactness import summarise


def test_costs_are_paired_by_seed() -> None:
    by_seed = [
        {"fp16": {"base": 30.0, "novel": 20.0}, "int8": {"base": 29.0, "novel": 20.5}},
        {"fp16": {"base": 40.0, "novel": 10.0}, "int8": {"base": 36.0, "novel": 10.5}},
    ]
    summed = summarise(by_seed)
    assert summed["int8"]["base"] == 32.5
    assert (summed["int8"]["base_cost"], summed["int8"]["novel_cost"]) == (-2.5, 0.5)
    assert summed["int8"]["base_cost_std"] == pytest.approx(4.5**0.5)
    assert summed["fp16"]["base_cost"] == summed["int8"]["novel_cost_std"] == 0
