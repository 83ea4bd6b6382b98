"""Turn the scores of one text into probabilities, a recommended cut-off and an expected number of images.

Cosines of different texts are not comparable: 0.3 may be a match for one text and the background for another. The
position of a score among all scores of the same text is comparable: z, its distance from the gallery's mean in standard
deviations. `forclip.calibration.fit` learns from base classes how probable a match is at each z. NumPy only.
"""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as validated

from forclip.types import Bools, Doubles

Scores = NDArray[np.floating]
BEND = 1.0  # the z at which the slope changes: most wrong images score below it, most right ones above
ABSENCE_RANK = 10  # expected precision up to this rank decides whether a text is absent from a gallery
MIN_SAMPLE = 50  # fewer scores of a text give no confidence
SCORE_SAMPLE = 2000  # images whose scores show how the scores of a text are distributed
WANTED_PRECISION = 0.5
TEXT_SPREAD = 0.5  # prior of a text's own intercept, as a standard deviation around the calibration's
FORMAT_VERSION = 1
_Slope = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Calibration:
    """logit of an image's probability = intercept + below * min(z, BEND) + above * max(z - BEND, 0) + raw * score.

    Slopes are at least 0, so a higher score of a text never has a lower probability. ceiling: the highest probability
    given, since higher ones were not observed. absent_below: a text with a lower expected precision at ABSENCE_RANK is
    probably absent. rate: the share of right pairs in the fitted data. classes, images: the size of the fitted data.
    held_out_errors: the expected calibration error on base classes that a fit did not see, by kind of pairs
    (forclip.evaluation.confidence). Raises ValueError for a value outside its range.
    """

    intercept: Annotated[float, Field(allow_inf_nan=False)]
    below: _Slope
    above: _Slope
    raw: _Slope
    ceiling: _Share
    absent_below: _Share
    rate: _Share
    classes: int
    images: Annotated[int, Field(ge=1)]
    held_out_errors: dict[str, float | None]


@dataclass(frozen=True)
class Confidence:
    """The confidence in one text's ranked list.

    probabilities: [k], of each of the best images, best first, never rising. expected_precision: [k], the expected
    share of right images up to each rank. cutoff: the length of the longest list with the wanted expected precision,
    0..k. expected_images: right images in the whole gallery. nothing_here: probably no image is right; only set for a
    gallery of at least half as many images as the calibration was fitted to.
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
    """Estimate the confidence in a text's ranked list. Valid for one text, not for an image or a combined query.

    top_scores: [k], of the best images, best first. sample_scores: [m], of all images searched or of a random sample;
    a few thousand are enough. Returns None for fewer than MIN_SAMPLE sample scores, or if all of them are equal.
    Raises ValueError for scores that are not finite or not best first, for more scores than gallery_size, and for a
    wanted_precision outside 0..1.
    """
    top, sample = np.asarray(top_scores, np.float64), np.asarray(sample_scores, np.float64)
    if not (np.isfinite(top).all() and np.isfinite(sample).all()):
        raise ValueError("a score is not finite")
    if (np.diff(top) > 0).any():
        raise ValueError("the top scores are not best first")
    if max(len(top), len(sample)) > gallery_size:
        raise ValueError(f"{len(top)} top and {len(sample)} sampled scores from a gallery of {gallery_size} images")
    if not 0 <= wanted_precision <= 1:
        raise ValueError(f"wanted_precision must be within 0..1, not {wanted_precision}")
    if len(sample) < MIN_SAMPLE or sample.std() == 0:
        return None
    probabilities = estimate_probabilities(calibration, top, sample)
    precision = np.cumsum(probabilities) / np.arange(1, len(top) + 1)
    precise_ranks = np.flatnonzero(precision >= wanted_precision)
    rest, num_rest = sample[sample < top[-1]] if len(top) else sample, gallery_size - len(top)
    expected_images = float(probabilities.sum())
    if len(rest) and num_rest:
        expected_images += num_rest * float(estimate_probabilities(calibration, rest, sample).mean())
    # The rank shrinks with the gallery: the tenth best of a few images compares with a higher rank of many. Below half
    # of the calibration's images the estimate is too noisy. In a larger gallery the best wrong images score higher, so
    # the alarm becomes rarer, not wrong more often.
    rank = min(ABSENCE_RANK, len(precision), math.ceil(ABSENCE_RANK * gallery_size / calibration.images))
    enough = rank > 0 and 2 * gallery_size >= calibration.images
    return Confidence(
        probabilities=probabilities,
        expected_precision=precision,
        cutoff=int(precise_ranks[-1]) + 1 if len(precise_ranks) else 0,
        expected_images=expected_images,
        nothing_here=enough and bool(precision[rank - 1] < calibration.absent_below),
    )


def estimate_probabilities(calibration: Calibration, scores: Doubles, sample: Doubles) -> Doubles:
    """Return the probabilities [k] of scores [k]. sample: [m], the same text's scores in the gallery, not all equal."""
    return np.minimum(_sigmoid(logits(calibration, scores, sample)), calibration.ceiling)


def logits(calibration: Calibration, scores: Doubles, sample: Doubles) -> Doubles:
    """Return the log-odds [k] of scores [k]. The ceiling does not apply, so they still order the best images."""
    z = (scores - sample.mean()) / sample.std()
    bent = calibration.below * np.minimum(z, BEND) + calibration.above * np.maximum(z - BEND, 0)
    log_odds: Doubles = calibration.intercept + calibration.raw * scores + bent
    return log_odds


def update_with_verdicts(calibration: Calibration, scores: Scores, right: Bools, sample_scores: Scores) -> Calibration:
    """Return the calibration of one text after a user's verdicts on some of its images.

    Moves the intercept to the maximum of the posterior, with a normal prior of deviation TEXT_SPREAD. scores, right:
    [n], of the images with a verdict. sample_scores: as in `estimate_confidence`, not all equal.
    """
    log_odds = logits(calibration, np.asarray(scores, np.float64), np.asarray(sample_scores, np.float64))
    # Bisection: the slope of the log posterior is at least 0 at `low`, at most 0 at `high`, and never rises.
    high = TEXT_SPREAD**2 * len(log_odds)
    low = -high
    for _ in range(60):
        middle = (low + high) / 2
        slope = float((right - _sigmoid(log_odds + middle)).sum()) - middle / TEXT_SPREAD**2
        low, high = (middle, high) if slope > 0 else (low, middle)
    return replace(calibration, intercept=calibration.intercept + (low + high) / 2)


def _sigmoid(log_odds: Doubles) -> Doubles:
    probabilities: Doubles = np.exp(-np.logaddexp(0, -log_odds))
    return probabilities


def write_calibration(file: Path, calibration: Calibration) -> None:
    """Write a calibration as JSON."""
    content = {"format_version": FORMAT_VERSION, **asdict(calibration)}
    file.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_calibration(file: Path) -> Calibration:
    """Read a calibration. Raises ValueError, naming the file, if it is damaged or of another format version."""
    try:
        content: dict[str, Any] = json.loads(file.read_text())
        version = content.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version!r}; this forclip reads version {FORMAT_VERSION}")
        return Calibration(**content)
    except ValidationError as error:
        first = error.errors()[0]
        reason = f"{first['loc'][0]}: {first['msg']}, not {first['input']!r}"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = str(error)
    raise ValueError(f"{file}: not readable as a calibration: {reason}")
