"""How sure an image is to show what a text asks for, and what follows for the list: probabilities, a cut-off, a count.

A cosine means nothing by itself: one text's 0.3 is a find, another's is what every image gets. What carries over from
text to text is where a score stands among the scores of the same text over the gallery: z, its distance from their mean
in standard deviations. forclip.calibration.fit learns from base classes what a z is worth. NumPy only.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forclip.types import Bools, Doubles

Scores = NDArray[np.floating]
BEND = 1.0  # the z at which the slope changes: most scores below it are of no interest, and most finds are above
FEW = 10  # the best images by which a text is called absent, in a gallery of at least as many as were learned from
MIN_SAMPLE = 50  # scores, below which nothing is said of a text
WANTED_PRECISION = 0.5
TEXT_SPREAD = 0.5  # how far texts differ in their intercepts, as is believed before any verdict: a standard deviation
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """logit of an image's probability = intercept + below * min(z, BEND) + above * max(z - BEND, 0) + raw * score.

    No slope is negative, so that for one text a higher score is never less probable. ceiling: the highest probability
    that is said, for no one has seen what comes beyond; absent_below: with a lower expected precision of its few best
    images a text probably has none; rate: the share of right pairs among those learned from; classes, images: that it
    was learned from; held_out_errors: by kind of pairs (forclip.evaluation.reliability), the ECE on base classes that
    the fit had not seen, as evidence.
    """

    intercept: float
    below: float
    above: float
    raw: float
    ceiling: float
    absent_below: float
    rate: float
    classes: int
    images: int
    held_out_errors: dict[str, float | None]

    def __post_init__(self) -> None:
        for name in ("intercept", "below", "above", "raw", "ceiling", "absent_below", "rate"):
            if not np.isfinite(getattr(self, name)):
                raise ValueError(f"a calibration's {name} must be finite, not {getattr(self, name)}")
        if self.images < 1:
            raise ValueError(f"a calibration's images must be at least 1, not {self.images}")
        for name in ("below", "above", "raw"):
            if getattr(self, name) < 0:
                raise ValueError(f"a calibration's {name} must not be negative, but is {getattr(self, name)}")
        for name in ("ceiling", "absent_below", "rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"a calibration's {name} must be within 0..1, not {getattr(self, name)}")


@dataclass(frozen=True)
class Confidence:
    """What is believed of one text's ranked list.

    probabilities: [k], that each of the best images shows it, best first, never rising; expected_precision: [k], the
    share of the images up to each rank that are expected to; cutoff: how many of the best to keep, the longest list
    whose expected precision is the wanted one, 0 where even the first is less sure and at most k; expected_images: in
    the whole gallery; nothing_here: probably no image shows it, said only of galleries of at least half as many images
    as were learned from.
    """

    probabilities: Doubles
    expected_precision: Doubles
    cutoff: int
    expected_images: float
    nothing_here: bool


def estimate_confidence(
    calibration: Calibration,
    top_scores: Scores,
    sample_scores: Scores,
    gallery_size: int,
    wanted_precision: float = WANTED_PRECISION,
) -> Confidence | None:
    """A text's scores in a gallery, judged. For a plain text and a model with this calibration; not for an image as
    query, or several texts in one.

    top_scores: [k], the best images', best first; sample_scores: [m], of images drawn at random from the gallery that
    is searched, or of all of them: some thousand are enough. Returns None where that is too few to say anything, or
    they are all the same. Raises ValueError for scores that are not finite or not best first, for a gallery smaller
    than either, and for a wanted_precision outside 0..1.
    """
    top, sample = np.asarray(top_scores, np.float64), np.asarray(sample_scores, np.float64)
    _refuse_misfits(top, sample, gallery_size, wanted_precision)
    if len(sample) < MIN_SAMPLE or sample.std() == 0:
        return None
    sure = probabilities(calibration, top, sample)
    precision = np.cumsum(sure) / np.arange(1, len(sure) + 1)
    enough = np.flatnonzero(precision >= wanted_precision)
    return Confidence(
        probabilities=sure,
        expected_precision=precision,
        cutoff=int(enough[-1]) + 1 if len(enough) else 0,
        expected_images=_expected_images(calibration, top, sample, gallery_size, float(sure.sum())),
        nothing_here=_nothing_here(calibration, precision, gallery_size),
    )


def probabilities(calibration: Calibration, scores: Doubles, sample: Doubles) -> Doubles:
    """scores: [k]; sample: [m], the same text's over the gallery, not all the same. Returns [k]."""
    found: Doubles = np.minimum(_sigmoid(logits(calibration, scores, sample)), calibration.ceiling)
    return found


def after_verdicts(calibration: Calibration, scores: Scores, right: Bools, sample_scores: Scores) -> Calibration:
    """The calibration for one text, once someone has looked at some of its images: as common, and as well known to the
    model, as they show it to be. Its intercept moves to where the verdicts are likeliest, held by a normal prior.

    scores: [n], of the images looked at; right: [n]; sample_scores: as in `judge`, not all the same.
    """
    sample = np.asarray(sample_scores, np.float64)
    at = logits(calibration, np.asarray(scores, np.float64), sample)
    # The slope of the log posterior falls all the way, from at least 0 to at most 0 between these.
    high = TEXT_SPREAD**2 * len(at)
    low = -high
    for _ in range(60):
        middle = (low + high) / 2
        slope = float((right - _sigmoid(at + middle)).sum()) - middle / TEXT_SPREAD**2
        low, high = (middle, high) if slope > 0 else (low, middle)
    return replace(calibration, intercept=calibration.intercept + (low + high) / 2)


def logits(calibration: Calibration, scores: Doubles, sample: Doubles) -> Doubles:
    """As `probabilities`, before they are probabilities: not cut at the ceiling, so that it still orders the best."""
    z = (scores - sample.mean()) / sample.std()
    bent = calibration.below * np.minimum(z, BEND) + calibration.above * np.maximum(z - BEND, 0)
    found: Doubles = calibration.intercept + calibration.raw * scores + bent
    return found


def _sigmoid(logits: Doubles) -> Doubles:
    found: Doubles = np.exp(-np.logaddexp(0, -logits))
    return found


def _nothing_here(calibration: Calibration, precision: Doubles, gallery_size: int) -> bool:
    """precision: [k], at each rank. Of a smaller gallery than was learned from, fewer images are looked at in
    proportion, for its tenth best is no tenth best of more; below half of it chance has too much of a say. Of a larger
    one FEW still: there the best of many wrong images look better, so that the alarm is rarer, not falser."""
    few = min(FEW, len(precision), math.ceil(FEW * gallery_size / calibration.images))
    if not few or 2 * gallery_size < calibration.images:
        return False
    return bool(precision[few - 1] < calibration.absent_below)


def _expected_images(
    calibration: Calibration, top: Doubles, sample: Doubles, gallery_size: int, among_top: float
) -> float:
    """The best are known; of the rest the sample speaks, by those of it that are not among the best."""
    rest = sample[sample < top[-1]] if len(top) else sample
    others = gallery_size - len(top)
    if not len(rest) or not others:
        return among_top
    return among_top + others * float(probabilities(calibration, rest, sample).mean())


def _refuse_misfits(top: Doubles, sample: Doubles, gallery_size: int, wanted_precision: float) -> None:
    if not (np.isfinite(top).all() and np.isfinite(sample).all()):
        raise ValueError("a score is not finite")
    if (np.diff(top) > 0).any():
        raise ValueError("the top scores are not best first")
    for what, count in (("top", len(top)), ("sampled", len(sample))):
        if count > gallery_size:
            raise ValueError(f"{count} {what} scores are more than the gallery's {gallery_size} images")
    if not 0 <= wanted_precision <= 1:
        raise ValueError(f"wanted_precision must be within 0..1, not {wanted_precision}")


def write_calibration(file: Path, calibration: Calibration) -> None:
    """As JSON."""
    content = {"format_version": FORMAT_VERSION, **asdict(calibration)}
    file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_calibration(file: Path) -> Calibration:
    """Raises ValueError, naming the file, where it is damaged or of another version."""
    try:
        content: dict[str, Any] = json.loads(file.read_text())
        version = content.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version!r}; this forclip reads version {FORMAT_VERSION}")
        return Calibration(**content)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not readable as a calibration: {error}") from None
