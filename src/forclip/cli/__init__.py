"""The command line: each command opens something, calls one function and maps errors to messages."""

import signal
import sys
from io import TextIOWrapper

_INTERRUPTED = 130  # exit code after Ctrl-C
try:
    from forclip.cli import info, models, plan, publish, search, serve, store, train  # noqa: F401 (importing a module registers its commands)
    from forclip.cli.app import app
    from forclip.cpu import set_up_threads
except KeyboardInterrupt:
    print("forclip: interrupted", file=sys.stderr)
    sys.exit(_INTERRUPTED)

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line. File names are printed as they are, whatever their bytes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        set_up_threads()
        app(prog_name="forclip")
    except KeyboardInterrupt:
        print("forclip: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            print("forclip: interrupted", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # another Ctrl-C ends threads that still finish what they do
