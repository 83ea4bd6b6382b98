"""Hold out base classes as stand-ins for novel ones: choose what is trained and how far, and fit the calibration.

Each trial trains a head without some of the base classes, which then measure how a head ranks unseen classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
from torch import Tensor

from forclip.calibration.fit import fit_calibration
from forclip.calibration.model import Calibration
from forclip.config import TrainConfig
from forclip.distributed import broadcast
from forclip.embedding.row_shards import Rows
from forclip.models.summary_head import SummaryHead
from forclip.training.candidates import Candidate
from forclip.training.gains import Gain, class_precisions, resample
from forclip.training.score_images import FEWEST_MEASURED, MOST_MEASURED, SHARES, pooled_outputs, score_shares
from forclip.training.supervision import Supervision
from forclip.training.weight_interpolation import interpolate
from forclip.types import Floats, Ints

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHORT_ALPHAS = (0.5, 0.75, 1.0)  # of trials that only compare candidates
_DEFAULT_ALPHA = 0.5  # without classes to choose it on
_AS_GOOD = 0.5  # percent points of unseen classes that a choice may give up for seen ones
SHORT_SHARE, SHORT_STEPS = 0.25, 200  # of a trial that only compares candidates: its epochs, and its steps at most
_CALIBRATION_PAIRS = 1_000_000  # of an image and a class
_CALIBRATION_IMAGES = (1000, 5000)  # at least and at most, for any number of classes

Choice = TypeVar("Choice")
Trial = tuple[Ints, SummaryHead]  # columns of the base classes held out, and a head trained without them


class TrainHead(Protocol):
    """Train a copy of the start. Returns the head. number: of the trial, for its checkpoint; None for a short one.

    share_of_epochs, max_steps: how much of the training to do.
    """

    def __call__(
        self,
        candidate: Candidate,
        supervision: Supervision,
        description: str,
        number: int | None = None,
        share_of_epochs: float = 1.0,
        max_steps: int | None = None,
    ) -> SummaryHead: ...


@dataclass(frozen=True)
class Setting:
    """How far a trained head is followed: alpha, from the start to the trained head, and plain CLIP's share."""

    alpha: float
    share: float


@dataclass(frozen=True)
class Measured:
    """What a setting does to base classes against the start: unseen, held out of training; seen: part of it."""

    unseen: Gain
    seen: float


Evidence = dict[Setting, Measured]


def choose_candidate(
    train_head: TrainHead,
    candidates: Sequence[Candidate],
    images: "HeldOut",
    supervision: Supervision,
    config: TrainConfig,
) -> tuple[Candidate, dict[Candidate, Evidence]]:
    """Choose what to train by short trials of each candidate, all on the same folds.

    images: that heads are measured on, with the same supervision. Returns also what was measured; without trials, the
    first candidate and nothing.
    """
    folds = class_folds(len(supervision.texts), config.held_back_folds, config.seed)
    if not folds or not compares_candidates(candidates, config):
        return candidates[0], {}
    alphas = _SHORT_ALPHAS if config.interpolation is None else (config.interpolation,)
    evidence: dict[Candidate, Evidence] = {}
    for number, candidate in enumerate(candidates, start=1):
        trials = []
        for k, held_out in enumerate(folds, start=1):
            description = f"candidate {number} of {len(candidates)}, trial {k} of {len(folds)}"
            kept = _without(supervision, held_out)
            head = train_head(candidate, kept, description, None, SHORT_SHARE, SHORT_STEPS)
            trials.append((held_out, head))
        evidence[candidate] = images.measure(trials, alphas)
    all_choices = {(c, setting): m for c, measured in evidence.items() for setting, m in measured.items()}
    return broadcast((best_choice(all_choices)[0], evidence))


def compares_candidates(candidates: Sequence[Candidate], config: TrainConfig) -> bool:
    """Whether there is something to choose."""
    return len(candidates) > 1 and config.base_weight > 0 and config.interpolation != 0


def choose_setting(
    train_head: TrainHead,
    candidate: Candidate,
    images: "HeldOut",
    supervision: Supervision,
    config: TrainConfig,
) -> tuple[Setting, Evidence, list[Trial]]:
    """Choose alpha and plain CLIP's share on the held-out classes of full trials.

    images: as in `choose_candidate`. Returns also what was measured, and the trials. Without trials, alpha is the
    configured one or 0.5, and the share is the start's.
    """
    default = _DEFAULT_ALPHA if config.interpolation is None else config.interpolation
    folds = class_folds(len(supervision.texts), config.held_back_folds, config.seed)
    if config.interpolation is not None or config.base_weight == 0 or not folds:
        return Setting(default, float(images.start.pooled_share)), {}, []
    trials = []
    for k, held_out in enumerate(folds):
        kept = _without(supervision, held_out)
        trials.append((held_out, train_head(candidate, kept, f"trial {k + 1} of {len(folds)}", k)))
    evidence = broadcast(images.measure(trials, ALPHAS[1:]))
    kept_share = float(images.start.pooled_share) if len(images.tokens) == 1 else None
    return best_setting(evidence, kept_share), evidence, trials


def _without(supervision: Supervision, held_out: Ints) -> Supervision:
    return supervision.keep_classes(np.setdiff1d(np.arange(len(supervision.texts)), held_out))


class HeldOut:
    """Labelled training images that heads are measured on, and how the start ranks them.

    Built once: it holds what is the same for every trained head, from when the first one is measured.
    """

    def __init__(
        self, start: SummaryHead, tokens: Rows, supervision: Supervision, seed: int, choose_share: bool = True
    ) -> None:
        """tokens: [P, I, T, W], the P parts of each training image.

        choose_share: whether to measure several shares of plain CLIP, on enough images. Otherwise all heads have the
        start's share.
        """
        self.start, self.tokens, self.texts, self.seed = start, tokens, supervision.texts, seed
        self.rows = supervision.sample_labelled(MOST_MEASURED // len(tokens), seed)
        self.labels, self.verified = supervision.labels[self.rows], supervision.verified[self.rows]
        # The start's own share comes first: gains are measured from there.
        self.choose_share = choose_share and len(self.rows) >= FEWEST_MEASURED
        self.shares = tuple(dict.fromkeys((float(start.pooled_share), *(SHARES if self.choose_share else ()))))

    @cached_property
    def _pooled(self) -> Tensor:
        return pooled_outputs(self.start, self.tokens, self.rows)

    @cached_property
    def _of_start(self) -> dict[float, Floats]:
        # A share of 1 is plain CLIP, whatever was trained.
        return self._scores(self.start, (*self.shares, 1.0) if self.choose_share else self.shares)

    def measure(self, trials: Sequence[Trial], alphas: Sequence[float]) -> Evidence:
        """Measure the heads between the start and each trial's head. Each class is unseen in exactly one trial.

        alphas: above 0. The first setting of the result is the start itself.
        """
        unseen = {Setting(0.0, share): scores for share, scores in self._of_start.items()}
        seen: dict[Setting, list[float]] = {}
        for held_out, tuned in trials:
            is_seen = np.setdiff1d(np.arange(len(self.texts)), held_out)
            for alpha in (0.0, *alphas):
                scored = self._of_start
                if alpha > 0:
                    scored = self._scores(interpolate(self.start, tuned, alpha).eval(), self.shares)
                for share, scores in scored.items():
                    setting = Setting(alpha, share)
                    seen.setdefault(setting, []).append(self._mean_precision(scores, is_seen))
                    if alpha > 0:
                        unseen.setdefault(setting, np.zeros_like(scores))[:, held_out] = scores[:, held_out]
        resampled = {s: resample(scores, self.labels, self.verified, self.seed) for s, scores in unseen.items()}
        first = next(iter(resampled))
        return {
            setting: Measured(values.gain_over(resampled[first]), float(np.mean(seen[setting]) - np.mean(seen[first])))
            for setting, values in resampled.items()
        }

    def _scores(self, head: SummaryHead, shares: Sequence[float]) -> dict[float, Floats]:
        return score_shares(head, self._pooled, self.tokens, self.rows, self.texts, shares)

    def _mean_precision(self, scores: Floats, classes: Ints) -> float:
        precisions = class_precisions(scores[:, classes], self.labels[:, classes], self.verified[:, classes])
        return 0.0 if np.isnan(precisions).all() else float(np.nanmean(precisions))


def best_choice(measured: Mapping[Choice, Measured]) -> Choice:
    """Return the choice that is best for seen classes among those that are as good as the best for unseen ones.

    Unseen classes come first, because they stand for every later query. But gains of half a point between choices
    are within the error of this measurement, so there the labelled classes decide.
    """
    as_good = _as_good(measured)
    return max(as_good, key=lambda choice: as_good[choice].seen)


def best_setting(evidence: Evidence, kept_share: float | None) -> Setting:
    """Return the best choice; if one with this share of plain CLIP is as good as any, the best of those with it.

    kept_share: the start's; None with tiles. In one pass, a lower share is always better for seen classes: the head,
    and so what it learnt of them, counts for more. Novel classes lose by it, and the trials do not see that, because
    they measure on images that the head was trained on. With tiles, novel classes gain by it: the untrained head ranks
    tiles worse than plain CLIP does, so the start has a large share, and the trained head no longer needs it.
    """
    as_good = _as_good(evidence)
    return best_choice({s: m for s, m in as_good.items() if s.share == kept_share} or as_good)


def _as_good(measured: Mapping[Choice, Measured]) -> dict[Choice, Measured]:
    best = max(m.unseen.shrunk for m in measured.values())
    return {choice: m for choice, m in measured.items() if m.unseen.shrunk >= best - _AS_GOOD}


def class_folds(num_classes: int, num_folds: int, seed: int) -> list[Ints]:
    """Divide class columns into folds at random. Returns no folds for fewer than two classes a fold, or one fold."""
    if num_folds < 2 or num_classes < 2 * num_folds:
        return []
    order = np.random.default_rng([seed, 7]).permutation(num_classes)
    return [np.sort(order[k::num_folds]) for k in range(num_folds)]


def calibrate(
    start: SummaryHead, trials: Sequence[Trial], setting: Setting, tokens: Rows, supervision: Supervision, seed: int
) -> Calibration | None:
    """Fit a calibration to scores of base classes on labelled training images, from heads trained without the class.

    These are the trials' heads at the chosen setting; for alpha 0 the start, which is trained on no class. Texts are
    scored without class vectors, as novel classes are. tokens: [P, I, T, W] of the training images. Returns None
    without trials, or as `fit_calibration` does.
    """
    num_classes = len(supervision.texts)
    if setting.alpha == 0:
        trials = [(np.arange(num_classes), start)]
    if not trials or not num_classes:
        return None
    fewest, most = _CALIBRATION_IMAGES
    count = min(max(fewest, _CALIBRATION_PAIRS // num_classes), most)
    rows = supervision.sample_labelled(count, seed)
    pooled = pooled_outputs(start, tokens, rows)
    scores: Floats = np.zeros((len(rows), num_classes), np.float32)
    for held_out, tuned in trials:
        head, texts = interpolate(start, tuned, setting.alpha).eval(), supervision.texts[held_out]
        (scores[:, held_out],) = score_shares(head, pooled, tokens, rows, texts, [setting.share]).values()
    return broadcast(fit_calibration(scores, supervision.labels[rows], supervision.verified[rows], seed))
