"""Public names, and what a fresh interpreter loads."""

import inspect
import subprocess
import sys

import pytest

import forclip


def loaded_by(module: str) -> set[str]:
    """Heavy libraries that a fresh interpreter has loaded after importing a module."""
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


@pytest.mark.parametrize("name", forclip.__all__)
def test_every_public_name_imports_and_has_a_docstring(name: str) -> None:
    public = getattr(forclip, name)
    assert public.__module__.startswith("forclip.")
    text = inspect.getdoc(public)
    assert text
    assert not text.startswith(f"{name}(")  # the signature: a dataclass without its own docstring


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="unicorn"):
        _ = forclip.unicorn
