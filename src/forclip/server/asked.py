"""Where and how far to look."""

from dataclasses import dataclass, replace

KEPT_DEPTH = 1200  # longer lists are too long to keep many of
_STEP = 60  # images on a page


@dataclass(frozen=True)
class Asked:
    """depth: how many of the best are needed at least."""

    where: str | None
    exact: bool
    depth: int

    @property
    def in_pages(self) -> "Asked":
        """Pages of one list are parts of it: what is searched is rounded up."""
        return replace(self, depth=-(-self.depth // _STEP) * _STEP)
