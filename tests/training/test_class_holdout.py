"""Folds of classes, choices made on held-out classes, and the calibration fitted to them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from forclip.calibration.model import Calibration
from forclip.config import HeadConfig, TrainConfig
from forclip.models.summary_head import SummaryHead, noise_seeded_head
from forclip.text.prompts import encode_classes
from forclip.training import class_holdout
from forclip.training.candidates import Candidate
from forclip.training.class_holdout import (
    ALPHAS,
    Fold,
    HeldOut,
    Measured,
    Setting,
    best_choice,
    best_finalist,
    best_setting,
    calibrate,
    choose_finalists,
    choose_setting,
    class_folds,
    full_folds,
)
from forclip.training.finetune import Finetuned, finetune
from forclip.training.gains import Gain, class_precisions
from forclip.training.score_images import score_images
from forclip.training.supervision import Supervision
from forclip.training.weight_interpolation import interpolate
from tests.tiny import TinyBackbone, tiny_pool


@pytest.mark.parametrize(("num_classes", "num_folds"), [(4, 2), (7, 3), (20, 2), (103, 5)])
def test_every_class_is_in_one_fold(num_classes: int, num_folds: int) -> None:
    folds = class_folds(num_classes, num_folds, seed=1)
    assert len(folds) == num_folds
    assert sorted(np.concatenate(folds)) == list(range(num_classes))
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert all((np.diff(fold) > 0).all() for fold in folds)


def test_folds_depend_on_the_seed() -> None:
    one, same, other = (class_folds(30, 2, seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(one, same, strict=True))
    assert (one[0] != other[0]).any()
    assert list(one[0]) != list(range(0, 30, 2))  # not in file order


@pytest.mark.parametrize(("num_classes", "num_folds"), [(3, 2), (0, 2), (5, 3), (50, 1), (50, 0)])
def test_too_few_classes_or_folds_give_no_folds(num_classes: int, num_folds: int) -> None:
    assert class_folds(num_classes, num_folds, 0) == []


def measured(unseen: float, seen: float, deviation: float = 0.0) -> Measured:
    return Measured(Gain(unseen, deviation), seen)


def test_unseen_classes_come_first_and_seen_ones_decide_between_equals() -> None:
    choices = {
        "start": measured(0, 0),
        "best": measured(4, 1),
        "as good": measured(3.9, 5),
        "seen only": measured(1, 30),
    }
    assert best_choice(choices) == "as good"
    assert best_choice({"start": measured(0, 0), "forgets": measured(-6, 40)}) == "start"
    assert best_choice({"only": measured(-1, -1)}) == "only"


def test_an_uncertain_gain_counts_less() -> None:
    assert best_choice({"start": measured(0, 0), "sure": measured(4, 0, 0.1), "lucky": measured(6, 9, 8)}) == "sure"


def test_the_share_of_the_start_stays_unless_another_is_clearly_better() -> None:
    kept, lower = Setting(0.5, 0.75), Setting(1.0, 0.25)
    start = {Setting(0.0, 0.75): measured(0, 0)}

    def best(*others: tuple[Setting, Measured]) -> Setting:
        return best_setting(start | dict(others), 0.75)

    assert best((kept, measured(1.0, 3)), (lower, measured(1.4, 9))) == kept
    assert best((kept, measured(1.0, 3)), (lower, measured(1.6, 9))) == lower
    better_seen = Setting(1.0, 0.75), measured(0.95, 5)
    assert best(better_seen, (kept, measured(1.0, 3)), (lower, measured(1.4, 9))) == better_seen[0]


def test_another_finalist_has_to_be_clearly_better_for_unseen_classes() -> None:
    setting = Setting(1.0, 0.5)
    first, other = {setting: measured(1.0, 5)}, {setting: measured(1.4, 50)}
    assert best_finalist({KEEPS: first, FORGETS: other}) == KEEPS
    assert best_finalist({KEEPS: first, FORGETS: {setting: measured(1.6, 0)}}) == FORGETS
    assert best_finalist({FORGETS: other}) == FORGETS


IMAGES, CLASSES = 80, 8
HALVES = np.arange(0, CLASSES, 2), np.arange(1, CLASSES, 2)
TOKENS = torch.randn(IMAGES, 9, 8, generator=torch.Generator().manual_seed(1)).half()


def supervision() -> Supervision:
    labels = np.random.default_rng(0).random((IMAGES, CLASSES)) < 0.2
    texts = encode_classes(TinyBackbone(), [f"thing {k}" for k in range(CLASSES)], ["a {}"])
    return Supervision(labels, np.ones_like(labels), texts, texts)


def head_of_seed(seed: int) -> SummaryHead:
    return noise_seeded_head(tiny_pool((3, 3)), 3, 1.0, seed)


@pytest.mark.parametrize(("parts", "chosen"), [(1, Setting(0.5, 0.75)), (10, Setting(0.5, 0.5))])
def test_tiles_have_no_preferred_share(monkeypatch: pytest.MonkeyPatch, parts: int, chosen: Setting) -> None:
    gains = {Setting(0.0, 0.75): (0, 0), Setting(0.5, 0.75): (1.0, 3), Setting(0.5, 0.5): (1.2, 9)}
    evidence = {setting: measured(*gain) for setting, gain in gains.items()}
    monkeypatch.setattr(HeldOut, "measure", lambda *_: evidence)
    images = HeldOut(head_of_seed(0).with_share(0.75), TOKENS.expand(parts, -1, -1, -1), supervision(), 0)
    arguments = [FORGETS], images, supervision(), TrainConfig()
    assert choose_setting(lambda *_: head_of_seed(1), *arguments)[:2] == (FORGETS, chosen)


@pytest.fixture
def fitted_scores(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The scores that each calibration is fitted to."""
    fitted: list[np.ndarray] = []

    def fit(scores: np.ndarray, *others: Any) -> None:
        fitted.append(scores)

    monkeypatch.setattr(class_holdout, "fit_calibration", fit)
    return fitted


PARTS = torch.randn(3, IMAGES, 9, 8, generator=torch.Generator().manual_seed(2)).half()


def scores_of(head: SummaryHead, columns: list[int], parts: Tensor = TOKENS[None]) -> np.ndarray:
    """The best of all parts."""
    rows, texts = torch.arange(IMAGES), supervision().texts[columns]
    return torch.stack([score_images(head, part, rows, texts) for part in parts]).amax(0).numpy()


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("parts", [TOKENS[None], PARTS], ids=["whole", "with tiles"])
def test_each_class_is_scored_by_the_head_trained_without_it(
    fitted_scores: list[np.ndarray], parts: Tensor, share: float
) -> None:
    untuned, one, other = head_of_seed(0), head_of_seed(1), head_of_seed(2)
    trials = [(Fold(HALVES[0]), one), (Fold(HALVES[1]), other)]
    calibrate(untuned, trials, Setting(0.75, share), parts, supervision(), 0)
    plain = untuned.with_share(share).pooled
    for fold, tuned in trials:
        head, held_out = interpolate(untuned, tuned, 0.75), fold.classes
        mixed = SummaryHead(head.pool, head.offsets.detach(), head.bias.detach(), plain, share)
        np.testing.assert_allclose(fitted_scores[0][:, held_out], scores_of(mixed, held_out.tolist(), parts), atol=1e-5)


def test_with_alpha_zero_the_untuned_head_scores_every_class(fitted_scores: list[np.ndarray]) -> None:
    calibrate(head_of_seed(0), [], Setting(0.0, 0.0), TOKENS[None], supervision(), 0)
    np.testing.assert_allclose(fitted_scores[0], scores_of(head_of_seed(0), list(range(CLASSES))), atol=1e-6)


def test_without_trials_there_is_no_calibration(fitted_scores: list[np.ndarray]) -> None:
    assert calibrate(head_of_seed(0), [], Setting(0.5, 0.0), TOKENS[None], supervision(), 0) is None
    assert not fitted_scores


def test_only_labelled_images_are_scored_up_to_a_maximum(
    fitted_scores: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    half = supervision()
    half.verified[::2] = False
    calibrate(head_of_seed(0), [], Setting(0.0, 0.0), TOKENS[None], half, 0)
    monkeypatch.setattr(class_holdout, "_CALIBRATION_IMAGES", (10, 25))
    calibrate(head_of_seed(0), [], Setting(0.0, 0.0), TOKENS[None], half, 0)
    assert [len(scores) for scores in fitted_scores] == [IMAGES // 2, 25]


class Oracle(torch.nn.Module):
    """A head whose vectors score some classes by their label and all others at random. tokens: the image's number."""

    def __init__(self, right: Sequence[int], labels: np.ndarray, seed: int = 0) -> None:
        super().__init__()
        self.scores = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed))
        self.scores[:, right] = torch.from_numpy(labels[:, right]).float() + 0.1 * self.scores[:, right]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores come from oracles; halfway to a head that knows a class, it is known too."""

    def scores(head: Any, pooled: Any, tokens: Tensor, rows: np.ndarray, texts: Tensor, shares: Any) -> Any:
        return {share: (1 - 0.1 * share) * head.scores[rows].numpy() for share in shares}

    monkeypatch.setattr(class_holdout, "interpolate", lambda start, tuned, alpha: tuned if alpha > 0 else start)
    monkeypatch.setattr(class_holdout, "score_shares", scores)
    monkeypatch.setattr(class_holdout, "pooled_outputs", lambda start, tokens, rows: None)


class ScriptedTraining:
    """Heads that know the classes they were trained on; `keeps` also keeps those that were held out."""

    def __init__(self, given: Supervision) -> None:
        self.given, self.calls = given, list[tuple[Candidate, int | None, float, int | None]]()
        self.held_out: list[list[int]] = []

    def __call__(
        self,
        candidate: Candidate,
        supervision: Supervision,
        description: str,
        number: int | None = None,
        share_of_epochs: float = 1.0,
        max_steps: int | None = None,
    ) -> SummaryHead:
        self.calls.append((candidate, number, share_of_epochs, max_steps))
        seen = [int((self.given.texts @ text).argmax()) for text in supervision.texts]
        self.held_out.append(sorted(set(range(CLASSES)) - set(seen)))
        assert len(supervision.vocabulary) == len(seen), "a word of a held-out class stays"
        return cast(SummaryHead, self.head(candidate, supervision, seen))

    def head(self, candidate: Candidate, supervision: Supervision, seen: list[int]) -> Oracle:
        """Return what the training gives. seen: columns of the classes that it was trained on."""
        return Oracle(range(CLASSES) if candidate.teacher == "start" else seen, self.given.labels, seed=1)


def untrained(known: Sequence[int] = ()) -> SummaryHead:
    start = Oracle(list(known), supervision().labels)
    start.pooled_share = torch.tensor(0.25)
    return cast(SummaryHead, start)


def measuring(start: SummaryHead, choose_share: bool = True) -> HeldOut:
    return HeldOut(start, TOKENS[None], supervision(), TRIALS.seed, choose_share)


KEEPS = Candidate("start", 1.0, 0.0)
FORGETS = Candidate("none", 0.0, 0.0, step_size=0.08)
TRIALS = TrainConfig(held_back_folds=2)


def test_the_candidate_that_keeps_unseen_classes_is_chosen(scripted: None) -> None:
    training = ScriptedTraining(supervision())
    parts = (measuring(untrained()), supervision(), TRIALS)
    chosen, evidence = choose_finalists(training, [FORGETS, KEEPS], *parts)
    assert chosen == [KEEPS]
    assert set(evidence) == {FORGETS, KEEPS}
    assert all(next(iter(found)) == Setting(0.0, 0.25) for found in evidence.values()), "the start comes first"
    assert {(number, share < 1, most is None) for _, number, share, most in training.calls} == {(None, True, False)}
    folds = class_folds(CLASSES, 2, TRIALS.seed)
    assert training.held_out == [fold.tolist() for fold in folds] * 2, "candidates are compared on other folds"


def test_every_choice_leaves_training_out_if_unseen_classes_are_forgotten(scripted: None) -> None:
    """The start knows all classes; the trained heads know only what they saw."""
    training = ScriptedTraining(supervision())
    _, setting, evidence, trials = choose_setting(
        training, [FORGETS], measuring(untrained(range(CLASSES))), supervision(), TRIALS
    )
    assert setting.alpha == 0
    assert evidence[FORGETS][Setting(1.0, 0.25)].unseen.mean < -20
    assert [number for _, number, _, _ in training.calls] == [0, 1]
    assert sorted(np.concatenate([fold.classes for fold, _ in trials])) == list(range(CLASSES))


def test_training_is_followed_if_it_helps_unseen_classes(scripted: None) -> None:
    _, setting, evidence, _ = choose_setting(
        ScriptedTraining(supervision()), [KEEPS], measuring(untrained()), supervision(), TRIALS
    )
    assert setting.alpha > 0
    assert evidence[KEEPS][setting].unseen.mean > 20
    assert evidence[KEEPS][setting].seen > 20


def test_plain_clip_is_chosen_where_it_ranks_unseen_classes_best(
    scripted: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = supervision().labels.astype(np.float32)
    mixed = class_holdout.score_shares  # type: ignore[attr-defined]  # the fixture's

    def scores(head: Any, pooled: Any, tokens: Any, rows: np.ndarray, texts: Any, shares: Any) -> Any:
        found = mixed(head, pooled, tokens, rows, texts, shares)
        return {share: right[rows] if share == 1 else of_share for share, of_share in found.items()}

    monkeypatch.setattr(class_holdout, "score_shares", scores)
    training = ScriptedTraining(supervision())
    parts = (supervision(), TRIALS)
    _, setting, evidence, _ = choose_setting(training, [FORGETS], measuring(untrained()), *parts)
    assert setting == Setting(0.0, 1.0)
    assert [s for s in evidence[FORGETS] if s.share == 1] == [setting], "it is the same for every alpha"
    _, setting, evidence, _ = choose_setting(training, [FORGETS], measuring(untrained(), choose_share=False), *parts)
    assert {s.share for s in evidence[FORGETS]} == {0.25}, "the configured share stays"


@pytest.mark.parametrize("change", [{"held_back_folds": 1}, {"held_back_folds": 5}, {"base_weight": 0.0}])
def test_without_trials_the_first_candidate_is_trained_and_half_followed(change: dict[str, Any]) -> None:
    config = replace(TRIALS, **change)
    parts = (measuring(untrained()), supervision(), config)
    training = ScriptedTraining(supervision())
    assert choose_finalists(training, [KEEPS, FORGETS], *parts) == ([KEEPS], {})
    assert choose_setting(training, [KEEPS], *parts) == (KEEPS, Setting(0.5, 0.25), {}, [])
    assert not training.calls


@pytest.mark.parametrize("leaves_out", [False, True], ids=["all images", "left-out images"])
def test_the_measured_gain_is_that_of_each_class_in_the_trial_that_held_it_out(leaves_out: bool) -> None:
    """By hand: the precisions of two trials put together by columns."""
    start, one, other = head_of_seed(0), head_of_seed(1), head_of_seed(2)
    given = supervision()
    everything = np.arange(IMAGES)
    parts = (everything[:30], everything[30:70]) if leaves_out else (None, None)
    trials = [(Fold(classes, part), head) for classes, part, head in zip(HALVES, parts, (one, other), strict=True)]
    found = HeldOut(start, PARTS, given, TRIALS.seed).measure(trials, ALPHAS[1:])
    columns = list(range(CLASSES))

    def precisions(head: SummaryHead, rows: np.ndarray) -> np.ndarray:
        return class_precisions(scores_of(head, columns, PARTS)[rows], given.labels[rows], given.verified[rows])

    for alpha in ALPHAS:
        unseen, seen = [], []
        for fold, tuned in trials:
            rows = everything if fold.images is None else fold.images
            gains = precisions(interpolate(start, tuned, alpha), rows) - precisions(start, rows)
            unseen += gains[fold.classes].tolist()
            seen.append(np.delete(gains, fold.classes).mean())
        assert found[Setting(alpha, 0.0)].unseen.mean == pytest.approx(np.mean(unseen), abs=1e-3)
        assert found[Setting(alpha, 0.0)].seen == pytest.approx(np.mean(seen), abs=1e-3)


@pytest.fixture
def enough_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few labelled images are enough for trials that leave some out."""
    monkeypatch.setattr(class_holdout, "FEWEST_TO_LEAVE_OUT", IMAGES)


@pytest.mark.parametrize("folds", [None, 2, 4])
def test_full_trials_leave_out_a_quarter_of_the_images(enough_images: None, folds: int | None) -> None:
    labelled = np.arange(0, 2 * IMAGES, 2)
    found = full_folds(CLASSES, labelled, 1, TrainConfig(held_back_folds=folds))
    assert len(found) == (folds or 4)
    assert sorted(np.concatenate([fold.classes for fold in found])) == list(range(CLASSES))
    images = [image for fold in found if fold.images is not None for image in fold.images.tolist()]
    assert len(set(images)) == len(images) == len(found) * IMAGES // 4
    assert set(images) <= set(labelled.tolist())


def test_no_images_are_left_out_of_few_or_with_tiles(enough_images: None) -> None:
    for labelled, parts in ((IMAGES - 1, 1), (IMAGES, 5)):
        folds = full_folds(CLASSES, np.arange(labelled), parts, TrainConfig())
        assert len(folds) == 2
        assert all(fold.images is None for fold in folds)


class Memory(ScriptedTraining):
    """Trainings whose heads rank the images that they saw right, and others right only without a teacher.

    So on the images of its training, each candidate looks alike.
    """

    def head(self, candidate: Candidate, supervision: Supervision, seen: list[int]) -> Oracle:
        head = Oracle(range(CLASSES) if candidate.teacher == "none" else [], self.given.labels, seed=1)
        head.scores[supervision.labelled] = Oracle(range(CLASSES), self.given.labels).scores[supervision.labelled]
        return head


def test_a_finalist_is_chosen_on_images_that_it_did_not_see(scripted: None, enough_images: None) -> None:
    training, given = Memory(supervision()), supervision()
    arguments = measuring(untrained()), given, TrainConfig()
    finalists, _ = choose_finalists(training, [KEEPS, FORGETS], *arguments)
    assert finalists == [KEEPS, replace(FORGETS, step_size=0.04)], "short trials see no difference"
    training.calls.clear()
    candidate, _, evidence, trials = choose_setting(training, finalists, *arguments)
    assert [number for _, number, _, _ in training.calls] == list(range(8)), "each trial has a checkpoint of its own"
    assert set(evidence) == set(finalists)
    assert candidate == finalists[1]
    assert max(m.unseen.mean for m in evidence[KEEPS].values()) < 10 < evidence[candidate][Setting(1, 0.25)].unseen.mean
    assert len(trials) == 4


def test_labels_alone_are_a_finalist_only_beside_a_teacher_and_take_configured_steps(
    scripted: None, enough_images: None
) -> None:
    given = supervision()
    one = choose_finalists(Memory(given), [FORGETS, KEEPS], measuring(untrained()), given, TrainConfig())[0]
    assert one == [FORGETS]
    set_by_user = TrainConfig(step_size=0.2)
    big = [replace(candidate, step_size=0.2) for candidate in (KEEPS, FORGETS)]
    assert choose_finalists(Memory(given), big, measuring(untrained()), given, set_by_user)[0] == big


def finetuned(**changes: Any) -> Finetuned:
    config = TrainConfig(epochs=1, batch_size=20, teacher="none", held_back_folds=2, **changes)
    head = HeadConfig(num_query_tokens=3, alignment="off")
    return finetune(TinyBackbone(), TOKENS[None], None, supervision(), head, config)


def test_finetuning_calibrates_on_its_trials() -> None:
    result = finetuned()
    assert isinstance(result.calibration, Calibration)
    assert (result.calibration.classes, result.calibration.images) == (CLASSES, IMAGES)
    assert result.calibration == finetuned().calibration
    assert finetuned(interpolation=0.5).calibration is None  # a configured alpha needs no trials


def test_class_vectors_make_no_difference_to_the_calibration() -> None:
    """Novel classes are searched without them."""
    one, other = (finetuned(class_vectors=strength).calibration for strength in (0.0, 0.75))
    assert one is not None
    assert one == other
