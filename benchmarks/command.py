"""The command line of the running benchmark, as the results record it."""

import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """Return the command that repeats this run."""
    return shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
