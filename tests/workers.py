"""Run a function of a test module in several workers, as torchrun starts them, on this machine."""

import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.child import ROOT


def run_in_workers(
    function: Callable[..., Any], workers: int, *arguments: str | Path, timeout: float = 600
) -> list[subprocess.CompletedProcess[str]]:
    """Call a function of a module in so many joined workers, with text arguments. Returns the finished processes."""
    module = ".".join(Path(inspect.getfile(function)).relative_to(ROOT).with_suffix("").parts)
    code = f"""import sys
from forclip.distributed import joined
from {module} import {function.__name__} as f
with joined():
    f(*sys.argv[1:])
"""
    return run_workers([sys.executable, "-c", code, *map(str, arguments)], workers, timeout)


def run_workers(command: list[str], workers: int, timeout: float = 600) -> list[subprocess.CompletedProcess[str]]:
    """Run a command in so many workers. Returns the finished processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(workers), "LOCAL_WORLD_SIZE": str(workers), "MASTER_ADDR": "127.0.0.1"}
    common |= {
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([f"{ROOT}/src", str(ROOT)]),
    }
    started = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | common | {"RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(workers)
    ]
    finished = []
    try:
        for process in started:
            out, err = process.communicate(timeout=timeout)
            finished.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    finally:
        for process in started:
            process.kill()
    return finished
