"""Every benchmark says by which command it starts, and the docs name no other form."""

import re
from pathlib import Path

import pytest

from benchmarks.command import command_line

ROOT = Path(__file__).parents[2]
BENCHMARKS = {file.stem: file.read_text() for file in sorted((ROOT / "benchmarks").glob("*.py"))}
STARTED_BY_OTHERS = {"load_clients", "search_measure"}


@pytest.mark.parametrize("name", [name for name, text in BENCHMARKS.items() if "__main__" in text])
def test_a_benchmark_names_its_command(name: str) -> None:
    docstring = BENCHMARKS[name].split('"""')[1]
    assert f"python -m benchmarks.{name}" in docstring or name in STARTED_BY_OTHERS


def test_commands_in_the_docs_start() -> None:
    """As files, those that import `benchmarks` would not."""
    texts = {file: file.read_text() for pattern in ("*.md", "docs/**/*.md", "docs/results/*.json")
             for file in ROOT.glob(pattern)}  # fmt: skip
    for file, text in (texts | {ROOT / "benchmarks" / name: text for name, text in BENCHMARKS.items()}).items():
        assert "python benchmarks/" not in text, file
        assert set(re.findall(r"python -m benchmarks\.(\w+)", text)) <= BENCHMARKS.keys(), file


def test_a_run_records_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/checkout/benchmarks/search.py", "growth", "--out", "my file.json"])
    assert command_line() == "python -m benchmarks.search growth --out 'my file.json'"
