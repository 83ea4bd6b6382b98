"""Estimate the precision of a list from the images of it that a person reviewed.

Images that are chosen, such as the least certain ones, say nothing about the others. Their verdicts count for these
images alone, and the precision of the rest is estimated from images that were drawn at random from the rest.
"""

from bisect import bisect_left
from dataclasses import dataclass

from scipy.stats import hypergeom

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Reviewed:
    """Numbers of images that a person reviewed. skipped: without a verdict."""

    right: int = 0
    wrong: int = 0
    skipped: int = 0

    @property
    def judged(self) -> int:
        """Images with a verdict."""
        return self.right + self.wrong

    @property
    def images(self) -> int:
        """All images."""
        return self.judged + self.skipped

    def __add__(self, other: "Reviewed") -> "Reviewed":
        return Reviewed(self.right + other.right, self.wrong + other.wrong, self.skipped + other.skipped)


@dataclass(frozen=True)
class PrecisionEstimate:
    """The share of right images in a list, 0..1; None if nothing is known. low, high: its interval."""

    precision: float | None
    low: float
    high: float


def estimate_precision(images: int, chosen: Reviewed, drawn: Reviewed) -> PrecisionEstimate:
    """Estimate the precision of a list.

    The estimate has no bias, whatever the reviewer chose. Its interval is exact, so it covers the precision at least as
    often as CONFIDENCE says, for a number of images that was decided before they were reviewed. Skipped images have no
    part in the estimate; the interval counts them as wrong at its lower end and as right at its upper end.

    Args:
        images: in the list.
        chosen: reviewed images that were chosen in any way, and all those whose verdict was known before.
        drawn: reviewed images that were drawn at random, without replacement, from all but the chosen ones.
    """
    if images == 0:
        return PrecisionEstimate(None, 0.0, 1.0)
    rest = images - chosen.images
    fewest, _ = count_interval(drawn.right, drawn.images, rest)
    _, most = count_interval(drawn.right + drawn.skipped, drawn.images, rest)
    low, high = (chosen.right + fewest) / images, (chosen.right + chosen.skipped + most) / images
    in_rest = rest * drawn.right / drawn.judged if drawn.judged else None
    if rest == 0:
        in_rest = 0.0
    judged = images - chosen.skipped
    if in_rest is None or judged == 0:
        return PrecisionEstimate(None, low, high)
    return PrecisionEstimate((chosen.right + in_rest) / judged, low, high)


def count_interval(right: int, drawn: int, population: int) -> tuple[int, int]:
    """The smallest and the largest number of right images in a population that a random draw from it allows.

    This is the Clopper-Pearson interval of a finite population: it inverts two one-sided hypergeometric tests. Both
    numbers are equal once the whole population is drawn.

    Args:
        right: right images among the drawn ones.
        drawn: images that were drawn without replacement from the population.
    """
    if drawn == population:
        return right, right
    tail = (1 - CONFIDENCE) / 2
    counts = range(right, population - (drawn - right) + 1)
    lowest = bisect_left(counts, True, key=lambda count: bool(hypergeom.sf(right - 1, population, count, drawn) > tail))
    beyond = bisect_left(counts, True, key=lambda count: bool(hypergeom.cdf(right, population, count, drawn) <= tail))
    return counts[lowest], counts[beyond - 1]
