"""What a fresh interpreter loads: `forclip --help` must not wait for PyTorch, nor may search by vectors need it."""

import subprocess
import sys

import pytest


def loaded_by(module: str) -> set[str]:
    """Which heavy libraries a fresh interpreter has loaded after it imported a module."""
    code = f"import sys, {module}; print(*[m for m in ('torch', 'open_clip', 'numpy') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    return set(run.stdout.split())


def test_the_command_line_starts_without_heavy_libraries() -> None:
    assert loaded_by("forclip.cli") == set()


@pytest.mark.parametrize(
    "module", ["forclip.index.image_index", "forclip.evaluation.metrics", "forclip.search.combined"]
)
def test_search_and_metrics_load_no_pytorch(module: str) -> None:
    assert loaded_by(module) == {"numpy"}
