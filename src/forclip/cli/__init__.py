"""The command line: each command opens something, calls one function and maps errors to messages."""

import signal
import sys
from io import TextIOWrapper

try:
    from forclip.cli import info, models, plan, publish, search, serve, store, train  # noqa: F401 (importing a module registers its commands)
    from forclip.cli.app import app
    from forclip.cpu import set_up_threads
except KeyboardInterrupt:
    print("forclip: interrupted", file=sys.stderr)
    sys.exit(130)

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line. File names are printed as they are, whatever their bytes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    set_up_threads()
    try:
        app(prog_name="forclip")
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C ends threads that still finish what they do
