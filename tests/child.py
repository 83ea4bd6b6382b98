"""Run a function of a test module in a child process, such as one that is killed or that has a full disk."""

import inspect
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run_in_child(function: Callable[..., Any], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Call a function of a module in a child process, with text arguments. Returns the finished process."""
    # pytest imports a test file by its bare name, so derive the module from the file.
    module = ".".join(Path(inspect.getfile(function)).relative_to(ROOT).with_suffix("").parts)
    code = f"import sys; from {module} import {function.__name__} as f; f(*sys.argv[1:])"
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
        capture_output=True,
        text=True,
    )


def limit_file_size(limit: int) -> None:
    """Limit the size of every file that this process writes, in bytes. Larger writes fail as on a full disk.

    Use it in a child process only: the limit also applies to standard output if that is a file.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
