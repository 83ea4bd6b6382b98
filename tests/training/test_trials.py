"""What a score is worth is learned from classes that the head was not trained with."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from forclip.calibration.model import Calibration
from forclip.config import HeadConfig, TrainConfig
from forclip.models.summary_head import SummaryHead, noise_seeded_head
from forclip.text.prompts import encode_classes
from forclip.training import class_holdout as trials
from forclip.training.class_holdout import Trial, calibrate, score_images
from forclip.training.finetune import Finetuned, TrainingImages, finetune
from forclip.training.supervision import Supervision
from forclip.training.weight_interpolation import interpolate
from tests.tiny import TinyBackbone, tiny_pool

IMAGES, CLASSES = 80, 8
TOKENS = torch.randn(IMAGES, 9, 8, generator=torch.Generator().manual_seed(1)).half()


def known() -> Supervision:
    labels = np.random.default_rng(0).random((IMAGES, CLASSES)) < 0.2
    texts = encode_classes(TinyBackbone(), [f"thing {k}" for k in range(CLASSES)], ["a {}"])
    return Supervision(labels, np.ones_like(labels), texts, texts)


def head(seed: int) -> SummaryHead:
    return noise_seeded_head(tiny_pool((3, 3)), 3, 1.0, seed)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The scores that a calibration is fitted to."""
    given: list[np.ndarray] = []

    def fit(scores: np.ndarray, *others: Any) -> None:
        given.append(scores)

    monkeypatch.setattr(trials, "fit_calibration", fit)
    return given


def scores_of(one: SummaryHead, columns: list[int]) -> np.ndarray:
    return score_images(one, TOKENS, torch.arange(IMAGES), known().texts[columns]).numpy()


def test_each_class_is_scored_by_the_head_that_missed_it(seen: list[np.ndarray]) -> None:
    untuned, one, other = head(0), head(1), head(2)
    halves = [np.arange(0, CLASSES, 2), np.arange(1, CLASSES, 2)]
    tried = [Trial(halves[0], one), Trial(halves[1], other)]
    calibrate(untuned, tried, 0.75, TOKENS, known(), 0)
    for trial in tried:
        expected = scores_of(interpolate(untuned, trial.tuned, 0.75), trial.held.tolist())
        np.testing.assert_allclose(seen[0][:, trial.held], expected, atol=1e-6)


def test_a_head_that_stays_untuned_has_seen_no_class(seen: list[np.ndarray]) -> None:
    calibrate(head(0), [], 0.0, TOKENS, known(), 0)
    np.testing.assert_allclose(seen[0], scores_of(head(0), list(range(CLASSES))), atol=1e-6)


def test_without_held_back_classes_nothing_is_learned(seen: list[np.ndarray]) -> None:
    assert calibrate(head(0), [], 0.5, TOKENS, known(), 0) is None
    assert not seen


def test_only_labelled_images_are_asked_and_not_too_many(
    seen: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervision = known()
    supervision.verified[::2] = False
    calibrate(head(0), [], 0.0, TOKENS, supervision, 0)
    monkeypatch.setattr(trials, "_MOST_IMAGES", 25)
    calibrate(head(0), [], 0.0, TOKENS, supervision, 0)
    assert [len(scores) for scores in seen] == [IMAGES // 2, 25]


def finetuned(interpolation: float | None, seed: int = 0) -> Finetuned:
    config = TrainConfig(
        epochs=1, batch_size=20, teacher="none", held_back_folds=2, interpolation=interpolation, seed=seed
    )
    images = TrainingImages(TOKENS[None])
    return finetune(TinyBackbone(), images, known(), HeadConfig(num_query_tokens=3, alignment="off"), config)


def test_finetuning_learns_it_from_its_trials() -> None:
    done = finetuned(None)
    assert isinstance(done.calibration, Calibration)
    assert (done.calibration.classes, done.calibration.images) == (CLASSES, IMAGES)
    assert done.calibration == finetuned(None).calibration
    assert finetuned(0.5).calibration is None  # told how far to go, it holds nothing back


def test_class_vectors_make_no_difference_to_it() -> None:
    """A novel text is asked without them."""
    config = TrainConfig(epochs=1, batch_size=20, teacher="none", held_back_folds=2)
    head_config = HeadConfig(num_query_tokens=3, alignment="off")
    one, other = (
        finetune(
            TinyBackbone(), TrainingImages(TOKENS[None]), known(), head_config, replace(config, class_vectors=share)
        )
        for share in (0.0, 0.75)
    )
    assert one.calibration == other.calibration
