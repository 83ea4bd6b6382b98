"""The command line: each command opens something, calls one function and maps errors to messages."""

import sys
from io import TextIOWrapper

from forclip.cli import info, models, plan, publish, search, serve, store, train  # noqa: F401 (importing a module registers its commands)
from forclip.cli.app import app
from forclip.cpu import set_up_threads

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line. File names are printed as they are, whatever their bytes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    set_up_threads()
    app(prog_name="forclip")
