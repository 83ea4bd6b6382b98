"""The site has every page, and the generated reference has every command and option."""

from pathlib import Path

import pytest
import typer.main
import yaml

import forclip
from forclip.cli import app

ROOT = Path(__file__).parents[1]


def pages(entry: object) -> set[str]:
    match entry:
        case str():
            return {entry}
        case list() | dict():
            return {p for one in (entry if isinstance(entry, list) else entry.values()) for p in pages(one)}
    return set()


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    written = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert pages(config["nav"]) == written | {"reference/commands.md", "reference/python.md"}


def test_the_reference_has_every_command_option_and_name() -> None:
    pytest.importorskip("mkdocs")
    from docs_site.reference import command_reference, python_reference

    text = command_reference()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name in commands:
        assert f"## forclip {name}" in text
    for option in ("--split", "--new", "--from", "--model"):
        assert option in text
    assert all(f"## {name}\n" in python_reference() for name in forclip.__all__)
