"""Gains in average precision between two rankings of the same images, with their uncertainty."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forclip.evaluation.metrics import AP_DEPTH, average_precision_at
from forclip.types import Bools, Floats

_RESAMPLES = 20  # of images: each ranks all classes again
_CLASS_RESAMPLES = 25  # of classes, for each of these
# How far gains between choices usually are from 0, in percent points, on the development sets.
_USUAL_GAIN = 2.0


@dataclass(frozen=True)
class Gain:
    """A gain in mean AP over classes, in percent points. deviation: its standard deviation over resamples."""

    mean: float
    deviation: float

    @property
    def shrunk(self) -> float:
        """The mean, pulled towards 0 as far as it is uncertain: its posterior mean under a normal prior around 0.

        The prior is as wide as gains usually are, and wider for a large gain, which shows that gains are large here.
        """
        prior = _USUAL_GAIN**2 + self.mean**2
        return self.mean * prior / (prior + self.deviation**2)


@dataclass(frozen=True)
class Resampled:
    """AP of each class in percent, [R, C]: on all images, then on resamples of them. NaN where it is not defined."""

    precisions: Floats
    seed: int

    def gain_over(self, reference: "Resampled") -> Gain:
        """Return the gain over other scores of the same images and classes (a paired bootstrap over both).

        It is 0 for fewer than two classes that can be compared.
        """
        difference = self.precisions - reference.precisions
        usable = ~np.isnan(difference[0])
        if usable.sum() < 2:
            return Gain(0.0, 0.0)
        difference = difference[:, usable]
        drawn = np.random.default_rng([self.seed, 3]).integers(
            difference.shape[1], size=(_CLASS_RESAMPLES, usable.sum())
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a resample without any of the drawn classes
            means = np.nanmean(difference[1:, drawn], axis=2)
        return Gain(float(difference[0].mean()), float(np.nanstd(means)))


def resample(scores: NDArray[np.floating], labels: Bools, verified: Bools, seed: int) -> Resampled:
    """Compute AP@50 of each class over its verified images, and over resamples of the images. [I, C] each.

    With one seed, all scores of the same images are resampled alike.
    """
    rng = np.random.default_rng([seed, 2])
    draws = [np.arange(len(scores)), *(np.sort(rng.integers(len(scores), size=len(scores))) for _ in range(_RESAMPLES))]
    return Resampled(np.stack([class_precisions(scores[d], labels[d], verified[d]) for d in draws]), seed)


def class_precisions(scores: NDArray[np.floating], labels: Bools, verified: Bools) -> Floats:
    """Return AP@50 of each class over its verified images, in percent. [I, C] each; returns [C].

    NaN for a class that is in none or all of its images.
    """
    precisions = np.full(scores.shape[1], np.nan, np.float32)
    for c in range(scores.shape[1]):
        rows = verified[:, c]
        if labels[rows, c].any() and not labels[rows, c].all():
            precisions[c] = 100 * average_precision_at(scores[rows, c], labels[rows, c], AP_DEPTH)
    return precisions
