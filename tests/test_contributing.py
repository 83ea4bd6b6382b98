"""The file tree in CONTRIBUTING.md is the file tree."""

from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_source_file_is_listed() -> None:
    listed = (ROOT / "CONTRIBUTING.md").read_text()
    for file in (ROOT / "src").rglob("*.py"):
        if file.read_text().strip():
            assert f"{file.name}: " in listed, f"{file} is missing from CONTRIBUTING.md"
