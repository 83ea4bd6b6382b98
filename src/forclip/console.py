"""Consoles that print file names, class names and messages as they are."""

from rich.console import Console
from rich.table import Table

_WIDEST = 10_000  # characters


def plain_console(stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console that reads nothing into a text: `[brackets]` and `:colons:` of a name stay.

    stderr: print to standard error; quiet: print nothing.
    """
    return Console(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)


def print_table(console: Console, table: Table) -> None:
    """Print a table as wide as its longest cells. A narrower terminal wraps its lines; no path is cut or broken."""
    width = console.width
    try:
        console.width = _WIDEST
        console.width = max(width, console.measure(table).maximum)
        console.print(table, crop=False)
    finally:
        console.width = width
