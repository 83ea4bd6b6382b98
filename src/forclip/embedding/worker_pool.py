"""What runs slices on workers: the interface of local processes and of Ray's actors."""

from dataclasses import dataclass
from typing import Protocol

from forclip.embedding.slices import EmbeddedSlice, Slice


@dataclass(frozen=True)
class Ready:
    """A worker has loaded its model."""

    worker: int


@dataclass(frozen=True)
class Advanced:
    """A worker has embedded some more images of its first slice."""

    worker: int
    images: int


@dataclass(frozen=True)
class Done:
    """A worker has embedded its first slice."""

    worker: int
    embedded: EmbeddedSlice


@dataclass(frozen=True)
class Failed:
    """A worker could not embed its first slice. It goes on with the next."""

    worker: int
    reason: str


@dataclass(frozen=True)
class Lost:
    """A worker was killed, or could not load its model. Its slices are not embedded."""

    worker: int
    reason: str


Event = Ready | Advanced | Done | Failed | Lost


class WorkerPool(Protocol):
    """Workers by number, each of which embeds the slices that it is given one after the other."""

    def add(self) -> int:
        """Start a worker and return its number. It is of use once it is `Ready`."""

    def remove(self, worker: int) -> None:
        """End a worker that has nothing to do."""

    def submit(self, worker: int, images: Slice) -> None:
        """Give a worker another slice."""

    def wait(self, seconds: float) -> list[Event]:
        """Wait until something happens, but no longer than this, and return what did."""

    def close(self) -> None:
        """End all workers at once, whatever they do."""
