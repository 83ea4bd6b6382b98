"""Count and report the entries of label files that are left out."""

import shlex
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from forclip.progress import Notice
from forclip.types import SkippedEntry


class LeftOutWarning(Notice):
    """Entries of a label file are left out."""


def count_reasons(skipped: Iterable[SkippedEntry]) -> str:
    """Count entries by reason, most frequent first, such as "5 box is not finite, 2 unknown category_id"."""
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(s.reason for s in skipped).most_common())


def describe_left_out(source: Path | str, skipped: Sequence[SkippedEntry]) -> str:
    """Say in one line how many entries of a source are left out, or used in part, and why. Empty if there are none.

    source: starts the line.
    """
    groups: dict[str, list[SkippedEntry]] = {"left out": [], "used in part": []}
    for entry in skipped:
        groups["used in part" if entry.used_in_part else "left out"].append(entry)
    parts = []
    for what, entries in groups.items():
        if entries:
            noun = "entry" if len(entries) == 1 else "entries"
            parts.append(f"{len(entries):,} {noun} {what}: {count_reasons(entries)}")
    return f"{source}: {'; '.join(parts)}" if parts else ""


def and_left_out(skipped: Sequence[SkippedEntry]) -> str:
    """The end of an error about a source of which much is left out. Empty if nothing is."""
    return f"; left out: {count_reasons(skipped)}; the first: {skipped[0].entry}" if skipped else ""


def none_usable(source: Path, what: str, skipped: Sequence[SkippedEntry]) -> ValueError:
    """The error for a source of which nothing can be used. what: how many of what, such as "12 images"."""
    first = skipped[0]
    return ValueError(f"{source}: none of its {what} can be used: {count_reasons(skipped)}; the first: {first.value}")


def warn_left_out(source: Path, skipped: Sequence[SkippedEntry], images: Path | None = None) -> None:
    """Issue a LeftOutWarning if entries of a source are left out. images: its image folder, if that is elsewhere."""
    if skipped:
        options = shlex.join([str(source), *([] if images is None else ["--images", str(images)])])
        message = f"{describe_left_out(source, skipped)}; `forclip data check {options}` lists them"
        warnings.warn(message, LeftOutWarning, stacklevel=3)
