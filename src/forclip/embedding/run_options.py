"""Where and in which portions a job embeds images."""

from dataclasses import dataclass
from typing import Literal

from forclip.embedding.shard import Shard

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class RunOptions:
    """How a job is run. None for a number means a choice by the machine or the cluster.

    workers: that embed, 0 or 1 for this process; engine: what runs them, "local" for processes of this machine or
    "ray"; images_per_commit: that are stored at once, which is what a killed job loses at most; shard: the part of the
    source that this job takes; address, max_workers, cpus: of Ray: the cluster, the number of workers up to which it
    may grow, and the CPUs of each worker.

    Raises ValueError for an unknown engine, options of Ray without Ray, and numbers that are too small.
    """

    workers: int | None = None
    engine: Engine = "local"
    images_per_commit: int | None = None
    shard: Shard | None = None
    address: str | None = None
    max_workers: int | None = None
    cpus: int | None = None

    def __post_init__(self) -> None:
        checked_engine(self.engine)
        for option in ("address", "max_workers", "cpus"):
            if self.engine != "ray" and (value := getattr(self, option)) is not None:
                raise ValueError(f"{_flag(option)} {value} needs --engine ray")
        for option, least in (
            ("workers", 0),
            ("images_per_commit", 1),
            ("max_workers", self.workers or 1),
            ("cpus", 1),
        ):
            if (value := getattr(self, option)) is not None and value < least:
                raise ValueError(f"{_flag(option)} must be at least {least}, not {value}")


def _flag(option: str) -> str:
    return "--cpus-per-worker" if option == "cpus" else f"--{option.replace('_', '-')}"


def checked_engine(name: str) -> Engine:
    """Return a known engine, or raise ValueError."""
    match name:
        case "local" | "ray":
            return name
    raise ValueError(f"--engine must be local or ray, not {name!r}")


IN_THIS_PROCESS = RunOptions()
