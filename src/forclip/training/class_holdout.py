"""Hold out base classes as stand-ins for novel ones: choose what is trained and how far, and fit the calibration.

Each trial trains a head without some of the base classes, which then measure how a head ranks unseen classes. Where
there are enough labelled images, full trials also leave out the images that they are measured on.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from forclip.training.candidates import CAREFUL_STEP, Candidate
from forclip.training.gains import Gain, Resampled, resample
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
# With so many labelled images, each full trial leaves out a quarter of them, and is measured on it. With fewer, that is
# too few to measure on, and the rest too few to train on: gains measured on 250 left-out images had an error of 4
# points, and on 1,000 one of 2 (docs/development/measurements.md).
FEWEST_TO_LEAVE_OUT = 4000
_LEFT_OUT_FOLDS, _FOLDS = 4, 2  # with and without left-out images, if the configuration sets no number

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Fold:
    """What a trial trains without.

    classes: columns of base classes; images: rows of labelled images whose labels it does not see, and which then
    measure it. None: it sees all, and is measured on images that it was trained on.
    """

    classes: Ints
    images: Ints | None = None


Trial = tuple[Fold, SummaryHead]  # and a head trained without it


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


def choose_finalists(
    train_head: TrainHead,
    candidates: Sequence[Candidate],
    images: "HeldOut",
    supervision: Supervision,
    config: TrainConfig,
) -> tuple[list[Candidate], dict[Candidate, Evidence]]:
    """Choose what to train by short trials of each candidate, all on the same folds.

    images: that heads are measured on, with the same supervision. Returns the candidates for full trials, the best one
    first, and what was measured; without trials, the first candidate and nothing.

    Short trials are too short for labels: scores are learned faster. So where full trials leave out images, which shows
    what labels alone do to other images, the best candidate without a teacher is a finalist, too. If a teacher is
    better in short trials, labels alone take careful steps.
    """
    folds = short_folds(len(supervision.texts), config)
    if not folds or not compares_candidates(candidates, config):
        return list(candidates[:1]), {}
    alphas = _SHORT_ALPHAS if config.interpolation is None else (config.interpolation,)
    evidence: dict[Candidate, Evidence] = {}
    for number, candidate in enumerate(candidates, start=1):
        trials = []
        for k, fold in enumerate(folds, start=1):
            description = f"candidate {number} of {len(candidates)}, trial {k} of {len(folds)}"
            head = train_head(candidate, _without(supervision, fold), description, None, SHORT_SHARE, SHORT_STEPS)
            trials.append((fold, head))
        evidence[candidate] = images.measure(trials, alphas)
    every = {(c, setting): m for c, measured in evidence.items() for setting, m in measured.items()}
    finalists = [best_choice(every)[0]]
    if leaves_out_images(len(images.labelled), len(images.tokens)) and finalists[0].teacher != "none":
        alone = labels_alone(candidates)
        if alone:
            best = best_choice({choice: m for choice, m in every.items() if choice[0] in alone})[0]
            finalists.append(best if config.step_size else replace(best, step_size=min(best.step_size, CAREFUL_STEP)))
    return broadcast((finalists, evidence))


def labels_alone(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that follow no teacher."""
    return [candidate for candidate in candidates if candidate.teacher == "none"]


def compares_candidates(candidates: Sequence[Candidate], config: TrainConfig) -> bool:
    """Whether there is something to choose."""
    return len(candidates) > 1 and config.base_weight > 0 and config.interpolation != 0


def choose_setting(
    train_head: TrainHead,
    finalists: Sequence[Candidate],
    images: "HeldOut",
    supervision: Supervision,
    config: TrainConfig,
) -> tuple[Candidate, Setting, dict[Candidate, Evidence], list[Trial]]:
    """Choose one of the finalists, alpha and plain CLIP's share on the held-out classes of full trials.

    images: as in `choose_finalists`. Returns also what was measured of each finalist, and the trials of the chosen one.
    Without trials, it is the first, alpha is the configured one or 0.5, and the share is the start's.
    """
    default = _DEFAULT_ALPHA if config.interpolation is None else config.interpolation
    folds = full_folds(len(supervision.texts), images.labelled, len(images.tokens), config)
    if config.interpolation is not None or config.base_weight == 0 or not folds:
        return finalists[0], Setting(default, float(images.start.pooled_share)), {}, []
    trials: dict[Candidate, list[Trial]] = {}
    for candidate in finalists:
        trials[candidate] = []
        for fold in folds:
            number = sum(map(len, trials.values()))
            description = f"trial {number + 1} of {len(finalists) * len(folds)}"
            head = train_head(candidate, _without(supervision, fold), description, number)
            trials[candidate].append((fold, head))
    evidence = broadcast({c: images.measure(of_candidate, ALPHAS[1:]) for c, of_candidate in trials.items()})
    kept_share = float(images.start.pooled_share) if len(images.tokens) == 1 else None
    chosen = best_finalist(evidence)
    return chosen, best_setting(evidence[chosen], kept_share), evidence, trials[chosen]


def _without(supervision: Supervision, fold: Fold) -> Supervision:
    kept = supervision.keep_classes(np.setdiff1d(np.arange(len(supervision.texts)), fold.classes))
    if fold.images is None:
        return kept
    return kept.keep_labels_of(np.setdiff1d(np.arange(len(supervision.labels)), fold.images))


class HeldOut:
    """Labelled training images that heads are measured on, and how the start ranks them.

    Built once: it holds what is the same for every trained head, from when the first one is measured. labelled: [L],
    rows of all labelled images; rows: of those that measure heads which saw them all.
    """

    def __init__(
        self,
        start: SummaryHead,
        tokens: Rows,
        supervision: Supervision,
        seed: int,
        choose_share: bool = True,
    ) -> None:
        """tokens: [P, I, T, W], the P parts of each training image.

        choose_share: whether to measure several shares of plain CLIP, on enough images. Otherwise all heads have the
        start's share.
        """
        self.start, self.tokens, self.supervision, self.seed = start, tokens, supervision, seed
        self.texts, self.labelled = supervision.texts, supervision.labelled
        rows = supervision.sample_labelled(MOST_MEASURED // len(tokens), seed)
        self.choose_share = choose_share and len(rows) >= FEWEST_MEASURED
        # The start's own share comes first: gains are measured from there.
        self.shares = tuple(dict.fromkeys((float(start.pooled_share), *(SHARES if self.choose_share else ()))))
        self.of_others: dict[bytes, HeldOut] = {}
        self._take(rows)

    def _take(self, rows: Ints) -> None:
        self.rows, self.labels, self.verified = rows, self.supervision.labels[rows], self.supervision.verified[rows]

    @cached_property
    def _pooled(self) -> Tensor:
        return pooled_outputs(self.start, self.tokens, self.rows)

    @cached_property
    def _of_start(self) -> dict[float, Floats]:
        # A share of 1 is plain CLIP, whatever was trained.
        return self._scores(self.start, (*self.shares, 1.0) if self.choose_share else self.shares)

    def measure(self, trials: Sequence[Trial], alphas: Sequence[float]) -> Evidence:
        """Measure the heads between the start and each trial's head. Each class is unseen in exactly one trial.

        A trial that left out images is measured on those. alphas: above 0. The first setting of the result is the start
        itself.
        """
        unseen, seen = dict[Setting, list[Floats]](), dict[Setting, list[float]]()
        for fold, tuned in trials:
            images = self if fold.images is None else self._of(fold.images)
            for setting, scores in images._scores_between(tuned, alphas).items():
                resampled = resample(scores, images.labels, images.verified, self.seed)
                unseen.setdefault(setting, []).append(resampled.precisions[:, fold.classes])
                is_seen = np.delete(resampled.precisions[0], fold.classes)
                seen.setdefault(setting, []).append(0.0 if np.isnan(is_seen).all() else float(np.nanmean(is_seen)))
        order = np.argsort(np.concatenate([fold.classes for fold, _ in trials]))
        of_all = {s: Resampled(np.concatenate(of_folds, 1)[:, order], self.seed) for s, of_folds in unseen.items()}
        first = next(iter(of_all))
        return {
            setting: Measured(values.gain_over(of_all[first]), float(np.mean(seen[setting]) - np.mean(seen[first])))
            for setting, values in of_all.items()
        }

    def _of(self, rows: Ints) -> "HeldOut":
        """The same for other images, with the same shares. It is kept for the next head that left these out."""
        key = rows.tobytes()
        if key not in self.of_others:
            other = copy.copy(self)
            for of_own_rows in ("_pooled", "_of_start"):
                other.__dict__.pop(of_own_rows, None)
            other._take(rows)
            self.of_others[key] = other
        return self.of_others[key]

    def _scores_between(self, tuned: SummaryHead, alphas: Sequence[float]) -> dict[Setting, Floats]:
        scores = {Setting(0.0, share): of_share for share, of_share in self._of_start.items()}
        for alpha in alphas:
            of_alpha = self._scores(interpolate(self.start, tuned, alpha).eval(), self.shares)
            scores |= {Setting(alpha, share): of_share for share, of_share in of_alpha.items()}
        return scores

    def _scores(self, head: SummaryHead, shares: Sequence[float]) -> dict[float, Floats]:
        return score_shares(head, self._pooled, self.tokens, self.rows, self.texts, shares)


def best_choice(measured: Mapping[Choice, Measured]) -> Choice:
    """Return the choice that is best for seen classes among those that are as good as the best for unseen ones.

    Unseen classes come first, because they stand for every later query. But gains of half a point between choices
    are within the error of this measurement, so there the labelled classes decide.
    """
    as_good = _as_good(measured)
    return max(as_good, key=lambda choice: as_good[choice].seen)


def best_finalist(evidence: Mapping[Candidate, Evidence]) -> Candidate:
    """Return the first finalist, unless another one is clearly better for unseen classes.

    Seen classes do not decide between them: labels alone are always better for those, and on photos, where they look
    as good for unseen classes, they lose novel ones.
    """
    best = {candidate: max(m.unseen.shrunk for m in found.values()) for candidate, found in evidence.items()}
    first, other = next(iter(best)), max(best, key=lambda candidate: best[candidate])
    return other if best[other] > best[first] + _AS_GOOD else first


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


def leaves_out_images(labelled: int, num_parts: int) -> bool:
    """Whether full trials leave out the images that measure them. With tiles, only few images are measured."""
    return num_parts == 1 and labelled >= FEWEST_TO_LEAVE_OUT


def short_folds(num_classes: int, config: TrainConfig) -> list[Fold]:
    """Return what each short trial of a candidate trains without, a part of the classes."""
    number = _FOLDS if config.held_back_folds is None else config.held_back_folds
    return [Fold(classes) for classes in class_folds(num_classes, number, config.seed)]


def full_folds(num_classes: int, labelled: Ints, num_parts: int, config: TrainConfig) -> list[Fold]:
    """Return what each full trial trains without: a part of the classes, and a part of the labelled images if enough.

    labelled: rows. At most a quarter of them is left out. Returns no folds as `class_folds` does.
    """
    if not leaves_out_images(len(labelled), num_parts):
        return short_folds(num_classes, config)
    number = min(_LEFT_OUT_FOLDS, num_classes // 2) if config.held_back_folds is None else config.held_back_folds
    folds = class_folds(num_classes, number, config.seed)
    order = np.random.default_rng([config.seed, 23]).permutation(labelled)
    parts = max(len(folds), _LEFT_OUT_FOLDS)
    return [Fold(classes, np.sort(order[k::parts][:MOST_MEASURED])) for k, classes in enumerate(folds)]


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
        trials = [(Fold(np.arange(num_classes)), start)]
    if not trials or not num_classes:
        return None
    fewest, most = _CALIBRATION_IMAGES
    count = min(max(fewest, _CALIBRATION_PAIRS // num_classes), most)
    rows = supervision.sample_labelled(count, seed)
    pooled = pooled_outputs(start, tokens, rows)
    scores: Floats = np.zeros((len(rows), num_classes), np.float32)
    for fold, tuned in trials:
        head, texts = interpolate(start, tuned, setting.alpha).eval(), supervision.texts[fold.classes]
        (scores[:, fold.classes],) = score_shares(head, pooled, tokens, rows, texts, [setting.share]).values()
    return broadcast(fit_calibration(scores, supervision.labels[rows], supervision.verified[rows], seed))
