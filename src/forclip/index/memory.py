"""How much memory a job may use."""

import os
import re
from pathlib import Path

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_LEAST = 10**6  # bytes; less is a number without its unit
_FALLBACK = 4 * 10**9  # bytes, where the system does not say
_DEFAULT_SHARE = 2  # of the memory that is free, one half


def available_memory() -> int:
    """Return the bytes of memory that are free on this machine, or in its container."""
    free = _FALLBACK
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    try:
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        return max(0, min(free, limit))
    except (OSError, ValueError):  # no container, or no limit
        return free


def default_memory() -> int:
    """Return the bytes that building a search index may use if nothing else is said."""
    return available_memory() // _DEFAULT_SHARE


def parse_memory(text: str) -> int:
    """Return the bytes that a text such as 4GB, 500M or 1.5 GiB stands for.

    Raises ValueError for another text, and for less than 1 MB.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    number, unit, binary = ("0", "", "") if match is None else match.groups()
    factor = _UNITS[unit.upper()]
    size = int(float(number) * (1024 ** round(len(str(factor)) / 3) if binary and unit else factor))
    if size < _LEAST:
        raise ValueError(f"memory is a size such as 4GB, not {text!r}")
    return size
