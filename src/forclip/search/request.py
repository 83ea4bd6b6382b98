"""A search request and its rules, stated once for the command line, the service and Python."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from forclip.calibration.model import WANTED_PRECISION
from forclip.types import Floats


class SearchError(ValueError):
    """A request that cannot be answered. The message is for the user."""


@dataclass(frozen=True)
class Cutoff:
    """Where a list ends: at a lowest cosine, or where its expected precision (0..1) falls below the value."""

    kind: Literal["score", "precision"]
    value: float


@dataclass(frozen=True)
class ListOptions:
    """How a ranked list is made.

    depth: how many of the best images are needed at least. precision: the expected precision down to which the list is
    to be trusted, 0..1, or None where no confidence is needed.
    """

    where: str | None = None
    exact: bool = False
    depth: int = 50
    precision: float | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchRequest:
    """What to search for, and which part of the ranked list to return.

    Args:
        text, any_of: alternatives; an image needs to match one of them.
        like: a picture instead of `text`: a file, or a query vector [dim] or picture vectors [N, dim] of unit length.
        all_of: texts that an image must match, too.
        none_of: texts whose images are left out (see forclip.search.combined).
        k, offset: return at most k images, after the first `offset` ones.
        where: an SQL expression over the store's columns.
        exact: compare every vector instead of using the approximate index.
        min_score: lowest cosine of a result; for one text or picture.
        cutoff: where to end the list; for one text, or by score also for a picture. Implies `confidence`.
        confidence: also estimate how likely each result is right; for one text.
        right, wrong: image ids with the user's verdicts, which refine the query (see forclip.search.feedback); the
            wrong ones are left out of the list.
        exclude: image ids to leave out; for a picture.
        only: of the list of one text that names a labelled class, only false positives (`wrong`) or the images of
            the class beyond rank 50 (`missed`).

    Raises:
        SearchError: for options that do not go together, naming the offending value where there is one.
    """

    text: str | None = None
    like: Path | Floats | None = None
    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    k: int = 50
    offset: int = 0
    where: str | None = None
    exact: bool = False
    min_score: float = -1.0
    cutoff: Cutoff | None = None
    confidence: bool = False
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    only: Literal["wrong", "missed"] | None = None

    def __post_init__(self) -> None:
        if self.text is not None and self.like is not None:
            raise SearchError(f"give a text or a picture, not both: {self.text!r} and {self._like_label}")
        if not self.wanted:
            raise SearchError("nothing to search for: give a text, a picture, or texts for any_of or all_of")
        if self.is_combined and (self.cutoff is not None or self.min_score > -1):
            raise SearchError("a cut-off or a lowest score applies to one text, not to any_of, all_of or none_of")
        if self.is_combined and self.is_refined:
            raise SearchError("verdicts (right, wrong) apply to one text, not to any_of, all_of or none_of")
        both = sorted(set(self.right) & set(self.wrong))
        if both:
            raise SearchError(f"image {both[0]!r} is marked as right and as wrong")
        if self.cutoff is not None and self.cutoff.kind == "precision" and self.no_confidence_reason:
            raise SearchError(f"the cut-off must be a cosine: {self.no_confidence_reason}")
        if self.only is not None and (not self.is_one_text or self.cutoff is not None):
            raise SearchError(f"only={self.only!r} applies to the whole list of one text, without cut-off or verdicts")

    @property
    def wanted(self) -> tuple[str, ...]:
        """The wanted texts and pictures for display, alternatives first."""
        first = self.text if self.like is None else self._like_label
        return (*(() if first is None else (first,)), *self.any_of, *self.all_of)

    @property
    def is_combined(self) -> bool:
        """Whether the request needs more than one query vector."""
        return bool(len(self.wanted) > 1 or self.none_of)

    @property
    def is_refined(self) -> bool:
        """Whether verdicts refine the query."""
        return bool(self.right or self.wrong)

    @property
    def is_one_text(self) -> bool:
        """Whether one text alone decides the ranking. Only then confidence and labels apply."""
        return self.like is None and not self.is_combined and not self.is_refined

    @property
    def no_confidence_reason(self) -> str:
        """Why no calibration applies to this request; empty where one may."""
        if self.like is not None:
            return "confidence is estimated for a text, not for a picture"
        if self.is_refined:
            return "confidence is estimated for a text without verdicts"
        return "confidence is estimated for one text" if self.is_combined else ""

    @property
    def label(self) -> str:
        """The request in one line, such as "cat or dog not car"."""
        alternatives = " or ".join(self.wanted[: len(self.wanted) - len(self.all_of)])
        wanted = " and ".join(part for part in (alternatives, *self.all_of) if part)
        return wanted + "".join(f" not {text}" for text in self.none_of)

    @property
    def options(self) -> ListOptions:
        """How to make the list; deep enough that `k` images remain after those that are left out."""
        depth = self.offset + self.k + len(self.wrong) + len(self.exclude)
        precision = None
        if self.cutoff is not None and self.cutoff.kind == "precision":
            precision = self.cutoff.value
        elif self.confidence or self.cutoff is not None:
            precision = WANTED_PRECISION
        return ListOptions(self.where, self.exact, depth, precision)

    @property
    def _like_label(self) -> str:
        return f"like {self.like.name}" if isinstance(self.like, Path) else "like a picture"


def parse_cutoff(text: str) -> Cutoff:
    """Parse a cut-off: `auto` (expected precision 50 %), `80%` (expected precision) or `0.31` (cosine).

    Raises:
        ValueError: for any other text, naming it.
    """
    if text == "auto":
        return Cutoff("precision", WANTED_PRECISION)
    match = re.fullmatch(r"(-?\d*\.?\d+)(%?)", text.strip())
    value = float(match[1]) if match else np.inf
    if match and match[2] and 0 <= value <= 100:
        return Cutoff("precision", value / 100)
    if match and not match[2] and -1 <= value <= 1:
        return Cutoff("score", value)
    raise ValueError(
        f"the cut-off must be auto, a cosine such as 0.31, or an expected precision such as 80%, not {text!r}"
    )
