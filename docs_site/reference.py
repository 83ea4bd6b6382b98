"""MkDocs hook: write the reference of the commands from `--help`, and of the Python names from `forclip.__all__`."""

from collections.abc import Iterator
from typing import Any

import typer.main
from mkdocs.structure.files import File, Files

import forclip
from forclip.cli import app


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    files.append(File.generated(config, "reference/commands.md", content=command_reference()))
    files.append(File.generated(config, "reference/python.md", content=python_reference()))
    return files


def command_reference() -> str:
    """One section per command with its help, arguments and options."""
    lines = ["# Commands", "", "Generated from `forclip COMMAND --help`.", ""]
    for name, command, context in _commands(typer.main.get_command(app), None, "forclip"):
        usage = f"{name} {' '.join(command.collect_usage_pieces(context))}"
        lines += [f"## {name}", "", f"    {usage}", "", command.help or "", ""]
        records = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
        if records:
            lines += ["| option | meaning |", "|---|---|"]
            lines += [f"| `{_cell(option)}` | {_cell(text)} |" for option, text in records]
            lines.append("")
    return "\n".join(lines)


def python_reference() -> str:
    """The public names, which mkdocstrings fills in."""
    lines = ["# Python", "", "Paths are `str` or `Path`. Everything here is imported from `forclip`.", ""]
    for name in forclip.__all__:
        lines += [f"## {name}", "", f"::: {getattr(forclip, name).__module__}.{name}", ""]
    return "\n".join(lines)


def _commands(command: Any, parent: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """The commands below one, by their full name, with their click context."""
    context = command.context_class(command, info_name=name, parent=parent)
    if not hasattr(command, "list_commands"):
        yield name, command, context
        return
    for child in command.list_commands(context):
        found = command.get_command(context, child)
        if found is not None and not found.hidden:
            yield from _commands(found, context, f"{name} {child}")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
