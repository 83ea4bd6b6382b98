"""Shared by the benchmarks that measure on the output of `forclip demo --seeds N`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class DemoRuns:
    """demo: output folder of the demo, with model-S and world-S for each seed S; out: JSON file to write."""

    demo: Path
    out: Path

    @property
    def seeds(self) -> list[int]:
        return demo_seeds(self.demo)


def demo_seeds(demo: Path) -> list[int]:
    """The seeds of a demo's output folder, ascending."""
    return sorted(int(folder.name.removeprefix("model-")) for folder in demo.glob("model-*"))


def demo_arguments(description: str | None) -> DemoRuns:
    """Parse the command line. description: text for --help."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="output folder of forclip demo")
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    args = parser.parse_args()
    return DemoRuns(args.demo, args.out)


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; the latter is 0 for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=min(1, len(values) - 1)))
