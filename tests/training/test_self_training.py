"""Guessed labels: right where scores say so, as many as expected, and never from what is hidden."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from forclip.training.self_training import guess_labels
from forclip.types import Bools
from tests.training.test_finetune import TRAIN, assert_same, finetuned, supervision

CLASSES, IMAGES = 4, 400


def world(frequency: float = 0.2, noise: float = 0.3, seed: int = 0) -> tuple[Tensor, Bools, Tensor]:
    """Vectors [1, I, 2, D] of images, what they show, and text vectors. The first vector is that of what is shown."""
    generator = np.random.default_rng(seed)
    texts = np.eye(CLASSES, 16, dtype=np.float32)
    labels = generator.random((IMAGES, CLASSES)) < frequency
    vectors = generator.normal(0, noise, (IMAGES, 2, 16)).astype(np.float32)
    vectors[:, 0] += labels @ texts
    return F.normalize(torch.from_numpy(vectors)[None], dim=-1), labels, torch.from_numpy(texts)


def some_verified(share: float = 0.2) -> Bools:
    verified = np.zeros((IMAGES, CLASSES), bool)
    verified[: int(share * IMAGES)] = True
    return verified


@pytest.mark.parametrize("frequency", [0.05, 0.3, 0.8])
def test_most_guesses_are_right_and_only_some_labels_are_guessed(frequency: float) -> None:
    vectors, labels, texts = world(frequency)
    known = some_verified()
    guessed, verified = guess_labels([vectors], labels, known, texts, texts, 0)
    assert (verified[known] & (guessed == labels)[known]).all(), "known labels stay"
    new = verified & ~known
    assert 0.5 < new[~known].mean() < 0.8
    for shown in (True, False):
        of_kind = new & (guessed == shown)
        assert (labels[of_kind] == shown).mean() > 0.8
        # About half of the expected positives, and 70 % of the expected negatives.
        share = of_kind.sum() / (~known & (labels == shown)).sum()
        assert share == pytest.approx(0.5 if shown else 0.7, abs=0.25)


def test_two_kinds_of_vectors_guess_better_than_one() -> None:
    vectors, labels, texts = world(noise=0.6)
    other = world(noise=0.6, seed=1)
    other_vectors = F.normalize(other[0] + torch.from_numpy((labels ^ other[1]) @ texts.numpy())[None, :, None], dim=-1)

    def right(given: list[Tensor]) -> float:
        guessed, verified = guess_labels(given, labels, some_verified(), texts, texts, 0)
        new = verified & guessed & ~some_verified()
        return float(labels[new].mean())

    assert right([vectors, other_vectors]) > right([vectors])


def test_hidden_labels_change_nothing() -> None:
    vectors, labels, texts = world()
    known = some_verified()
    for one, other in zip(
        guess_labels([vectors], labels, known, texts, texts, 0),
        guess_labels([vectors], labels ^ ~known, known, texts, texts, 0),
        strict=True,
    ):
        assert (one == other).all()


def test_a_class_that_no_labelled_image_shows_is_not_guessed() -> None:
    vectors, labels, texts = world()
    known = some_verified()
    labels[known[:, 0], 1] = False
    known[:, 2] = False  # nobody checked it
    _, verified = guess_labels([vectors], labels, known, texts, texts, 0)
    assert (verified & ~known).any(0).tolist() == [True, False, False, True]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_labels_to_learn_from_or_to_guess_nothing_changes(share: float) -> None:
    vectors, labels, texts = world()
    known = some_verified(share)
    guessed, verified = guess_labels([vectors], labels, known, texts, texts, 0)
    assert (verified == known).all()
    assert (guessed == (labels & known)).all()


def test_a_training_sees_guessed_labels_and_no_hidden_ones() -> None:
    given = supervision()
    verified = given.verified.copy()
    verified[::2] = False
    few = replace(given, verified=verified)
    guessing = replace(TRAIN, teacher="none", self_training=True)
    done = finetuned(few, config=guessing)
    assert done.choices.candidate.self_training
    assert len(done.history) == 6, "all ten images in batches of four, twice"
    assert_same(finetuned(replace(few, labels=few.labels ^ ~verified), config=guessing), done)
    alone = finetuned(few, config=replace(guessing, self_training=False))
    assert not torch.equal(alone.head.offsets, done.head.offsets)
    assert not finetuned(given, config=guessing).choices.candidate.self_training, "all images have labels"


def test_a_run_says_who_guessed_its_labels() -> None:
    given = supervision()
    verified = given.verified.copy()
    verified[::2] = False
    guessing = replace(TRAIN, teacher="none", self_training=True)
    assert finetuned(replace(given, verified=verified), config=guessing).choices.to_json()["guessed_by"] == "start"
    assert finetuned(given, config=guessing).choices.to_json()["guessed_by"] is None


def test_later_guesses_use_the_trained_heads_scores_too(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[int] = []

    def note(vectors: list[Tensor], *args: object) -> tuple[Bools, Bools]:
        kinds.append(len(vectors))
        return guess_labels(vectors, *args)  # type: ignore[arg-type]

    monkeypatch.setattr("forclip.training.train_heads.guess_labels", note)
    given = supervision()
    verified = given.verified.copy()
    verified[::2] = False
    finetuned(replace(given, verified=verified), config=replace(TRAIN, teacher="none", self_training=True))
    assert kinds == [1, 2, 2], "first guesses, second guesses, and those for the class vectors"
