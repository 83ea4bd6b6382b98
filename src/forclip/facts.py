"""What a command says of a thing, one fact a line, and how it writes counts and sizes."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """A label and the line or lines that belong to it. internal: shown on request only."""

    label: str
    text: str | Sequence[str]
    internal: bool = False


def format_facts(facts: Sequence[Fact], verbose: bool) -> list[str]:
    """Return the lines to print: labels in a column of their own."""
    shown = [fact for fact in facts if verbose or not fact.internal]
    width = max((len(fact.label) for fact in shown), default=0) + 2
    lines = []
    for fact in shown:
        first, *others = [fact.text] if isinstance(fact.text, str) else fact.text or ["none"]
        lines += [f"{fact.label:{width}}{first}", *(f"{'':{width}}{line}" for line in others)]
    return lines


def count(number: int, singular: str, plural: str | None = None) -> str:
    """Write a number with its noun: `1 image`, `2,000 images`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def size_text(size: float) -> str:
    """Write bytes with three digits and a unit: `1.42 MB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e3:.0f} kB"
