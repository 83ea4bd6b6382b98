"""What `forclip demo --seeds N` left, for benchmarks that measure on it."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DemoRuns:
    """demo: the folder, with model-S and world-S of each seed; out: the JSON file to write."""

    demo: Path
    out: Path

    @property
    def seeds(self) -> list[int]:
        return demo_seeds(self.demo)


def demo_seeds(demo: Path) -> list[int]:
    """Ascending."""
    return sorted(int(folder.name.removeprefix("model-")) for folder in demo.glob("model-*"))


def demo_arguments(description: str | None) -> DemoRuns:
    """From the command line. description: what --help says first."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True, help="the folder that forclip demo wrote")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    return DemoRuns(given.demo, given.out)
