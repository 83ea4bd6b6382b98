"""The cores that this process may use, and OpenMP's settings, made before a library that uses OpenMP is loaded."""

import math
import os
import sys
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU time in a period, or `max`


def usable_cores() -> int:
    """Return how many cores this process may use: those of the machine, its affinity, and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


def set_up_threads(threads: int | None = None) -> None:
    """Set OpenMP's environment for this process and those that it starts, unless the user has set it.

    Threads that wait sleep, and do not spin: on a busy machine, spinning takes the time of what is waited for. threads:
    of PyTorch, FAISS and scikit-learn; None leaves them at the number of cores. Must be called before PyTorch is
    loaded; after that, only its own number of threads still changes.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
    elif usable_cores() < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))  # OpenMP knows no quota
