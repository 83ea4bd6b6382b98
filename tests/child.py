"""A function of a test module in a process of its own: one that is killed, or that has a small disk."""

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
    """Calls a function that can be imported, with arguments as text; what it printed comes back."""
    # pytest imports a test file by its bare name.
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
    """Files of this process can't grow beyond that many bytes: a write fails in the kernel, as on a full disk.

    Only ever in a child: the limit holds for standard output as well, if that is a file.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
