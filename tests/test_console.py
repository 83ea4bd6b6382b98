"""Consoles print names as they are."""

import ast
import io
from pathlib import Path

from rich.table import Table

import forclip
from forclip.console import plain_console, print_table

HOSTILE = "photos [red] :smile: [/] /x/" + 60 * "long name "


def test_a_name_is_printed_as_it_is() -> None:
    console = plain_console()
    console.file = io.StringIO()
    console.print(HOSTILE, soft_wrap=True)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    print_table(console, table)
    assert console.file.getvalue().count(HOSTILE) == 4
    assert console.width < len(HOSTILE)


def test_every_console_of_the_package_is_a_plain_one() -> None:
    """A console of rich reads `[brackets]` of file names as markup."""
    package = Path(forclip.__file__).parent
    callers = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console"
    }
    assert callers == {"console.py"}
