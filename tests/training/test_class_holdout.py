"""Folds of classes, choices made on held-out classes, and the calibration fitted to them."""

from typing import Any

import numpy as np
import pytest
import torch

from forclip.calibration.model import Calibration
from forclip.config import HeadConfig, TrainConfig
from forclip.evaluation.metrics import gain_with_bound
from forclip.models.summary_head import SummaryHead, noise_seeded_head
from forclip.text.prompts import encode_classes
from forclip.training import class_holdout
from forclip.training.class_holdout import best_alpha, calibrate, class_folds, class_precisions, score_images
from forclip.training.finetune import Finetuned, finetune
from forclip.training.supervision import Supervision
from forclip.training.weight_interpolation import interpolate
from tests.tiny import TinyBackbone, tiny_pool

NAN = float("nan")


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


def test_gain_and_bound_worked_by_hand() -> None:
    """Gains of 2, -2 and 6: their mean is 2, their deviation 4, the standard error 4 / sqrt(3)."""
    precisions = np.array([10, NAN, 20, 30, 7], np.float32)
    reference = np.array([8, 1, 22, 24, NAN], np.float32)
    assert gain_with_bound(precisions, reference) == pytest.approx((2.0, 2.0 - 4 / 3**0.5))


@pytest.mark.parametrize("gains", [[], [5.0], [NAN, 5.0], [NAN, NAN]])
def test_one_class_gives_no_gain(gains: list[float]) -> None:
    values = np.array(gains, np.float32)
    assert gain_with_bound(values, np.zeros_like(values)) == (0.0, 0.0)


def test_the_best_alpha_has_the_largest_gain_less_its_standard_error() -> None:
    """The last has the larger mean gain, 4 against 3, but a standard deviation of 8."""
    untuned = np.array([1, 1, 1, NAN], np.float32)
    precisions = {0.0: untuned, 0.5: untuned + np.array([2, 3, 4, 0]), 1.0: untuned + np.array([-4, 4, 12, 0])}
    assert best_alpha(precisions)[0] == 0.5


def test_the_untuned_head_is_kept_if_no_alpha_gains_more_than_a_standard_error() -> None:
    untuned = np.array([5, 5, 5], np.float32)
    assert best_alpha({0.0: untuned, 0.5: untuned - 1, 1.0: untuned + np.array([-4, 0, 5])})[0] == 0.0


def test_class_precisions_agree_with_a_naive_loop() -> None:
    random = np.random.default_rng(0)
    scores, labels, verified = random.random((130, 6)), random.random((130, 6)) < 0.6, random.random((130, 6)) < 0.9
    labels[:, 1], labels[:, 2], verified[:, 3] = False, True, False
    expected = []
    for c in range(6):
        images = [i for i in range(130) if verified[i, c]]
        relevant = sum(labels[i, c] for i in images)
        if relevant in (0, len(images)):
            expected.append(NAN)
            continue
        hits, total = 0, 0.0
        for rank, i in enumerate(sorted(images, key=lambda i: -scores[i, c])[:50], start=1):
            if labels[i, c]:
                hits += 1
                total += hits / rank
        expected.append(100 * total / min(50, relevant))
    np.testing.assert_allclose(class_precisions(scores, labels, verified), expected, rtol=1e-5)
    assert np.isnan(expected).tolist() == [False, True, True, True, False, False]


def test_unverified_images_do_not_count() -> None:
    scores = np.array([[0.9], [0.8], [0.7], [0.6]])
    labels, verified = np.array([[False], [True], [False], [True]]), np.array([[False], [True], [True], [True]])
    assert class_precisions(scores, labels, verified) == pytest.approx([100 * (1 + 2 / 3) / 2])
    labels[0] = True
    assert class_precisions(scores, labels, verified) == pytest.approx([100 * (1 + 2 / 3) / 2])


IMAGES, CLASSES = 80, 8
TOKENS = torch.randn(IMAGES, 9, 8, generator=torch.Generator().manual_seed(1)).half()


def supervision() -> Supervision:
    labels = np.random.default_rng(0).random((IMAGES, CLASSES)) < 0.2
    texts = encode_classes(TinyBackbone(), [f"thing {k}" for k in range(CLASSES)], ["a {}"])
    return Supervision(labels, np.ones_like(labels), texts, texts)


def head_of_seed(seed: int) -> SummaryHead:
    return noise_seeded_head(tiny_pool((3, 3)), 3, 1.0, seed)


@pytest.fixture
def fitted_scores(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The scores that each calibration is fitted to."""
    fitted: list[np.ndarray] = []

    def fit(scores: np.ndarray, *others: Any) -> None:
        fitted.append(scores)

    monkeypatch.setattr(class_holdout, "fit_calibration", fit)
    return fitted


def scores_of(head: SummaryHead, columns: list[int]) -> np.ndarray:
    return score_images(head, TOKENS, torch.arange(IMAGES), supervision().texts[columns]).numpy()


def test_each_class_is_scored_by_the_head_trained_without_it(fitted_scores: list[np.ndarray]) -> None:
    untuned, one, other = head_of_seed(0), head_of_seed(1), head_of_seed(2)
    halves = [np.arange(0, CLASSES, 2), np.arange(1, CLASSES, 2)]
    trials = [(halves[0], one), (halves[1], other)]
    calibrate(untuned, trials, 0.75, TOKENS, supervision(), 0)
    for held_out, tuned in trials:
        expected = scores_of(interpolate(untuned, tuned, 0.75), held_out.tolist())
        np.testing.assert_allclose(fitted_scores[0][:, held_out], expected, atol=1e-6)


def test_with_alpha_zero_the_untuned_head_scores_every_class(fitted_scores: list[np.ndarray]) -> None:
    calibrate(head_of_seed(0), [], 0.0, TOKENS, supervision(), 0)
    np.testing.assert_allclose(fitted_scores[0], scores_of(head_of_seed(0), list(range(CLASSES))), atol=1e-6)


def test_without_trials_there_is_no_calibration(fitted_scores: list[np.ndarray]) -> None:
    assert calibrate(head_of_seed(0), [], 0.5, TOKENS, supervision(), 0) is None
    assert not fitted_scores


def test_only_labelled_images_are_scored_up_to_a_maximum(
    fitted_scores: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    half = supervision()
    half.verified[::2] = False
    calibrate(head_of_seed(0), [], 0.0, TOKENS, half, 0)
    monkeypatch.setattr(class_holdout, "_CALIBRATION_IMAGES", (10, 25))
    calibrate(head_of_seed(0), [], 0.0, TOKENS, half, 0)
    assert [len(scores) for scores in fitted_scores] == [IMAGES // 2, 25]


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
