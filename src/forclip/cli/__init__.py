"""The command line: each command opens something, calls one function and maps errors to messages."""

from forclip.cli import models, search, store, train  # noqa: F401 (importing a module registers its commands)
from forclip.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line."""
    app(prog_name="forclip")
