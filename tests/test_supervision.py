"""What training is told: nothing of novel classes, and nothing of what was held back."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from forclip.evaluation.protocol import ClassSplit
from forclip.prompts import encode_classes
from forclip.supervision import Supervision, supervise
from forclip.types import Annotations
from tests.tiny import TinyBackbone

NAMES = ("cat", "Zebra", "dog", "unicorn", "cup")
SPLIT = ClassSplit(base=("cat", "dog", "cup"), novel=("Zebra", "unicorn"))
LABELS = np.array([[1, 0, 0, 1, 0], [0, 1, 1, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]], bool)


class Listening(TinyBackbone):
    """Notes every text that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.heard += texts
        return super().encode_text(texts)


def annotations(labels: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = LABELS) -> Annotations:
    none = np.zeros(0, np.int64)
    ids = tuple(map(str, range(len(labels))))
    paths = tuple(Path(f"{i}.jpg") for i in ids)
    return Annotations(ids, paths, NAMES, labels, np.zeros((0, 4), np.float32), none, none)


def words(*names: str) -> Tensor:
    return encode_classes(TinyBackbone(), names, ["a {}"])


def known() -> Supervision:
    return supervise(TinyBackbone(), annotations(), SPLIT, ["a {}"], ["dog", "bird", "fish"])


def test_novel_names_never_get_in() -> None:
    backbone = Listening()
    listed = ["bird", "zebra", "ZEBRA", "Unicorn", "dog", "unicorn", "fish", "bird"]
    found = supervise(backbone, annotations(), SPLIT, ["a {}"], listed)
    assert {text.lower() for text in backbone.heard} == {"a cat", "a dog", "a cup", "a bird", "a fish"}
    torch.testing.assert_close(found.texts, words("cat", "dog", "cup"))
    torch.testing.assert_close(found.vocabulary, words("cat", "dog", "cup", "bird", "fish"))
    assert (found.labels == LABELS[:, [0, 2, 4]]).all()
    assert found.verified.all()
    assert found.labelled.tolist() == [0, 1, 2, 3]


def test_a_base_class_in_no_image_is_named_or_left_out() -> None:
    unseen = LABELS.copy()
    unseen[:, 2] = False
    with pytest.raises(ValueError, match="base class 'dog' is in no training image"):
        supervise(TinyBackbone(), annotations(unseen), SPLIT, ["a {}"], [])
    found = supervise(TinyBackbone(), annotations(unseen), SPLIT, ["a {}"], [], allow_unlabelled_base=True)
    torch.testing.assert_close(found.texts, words("cat", "cup"))
    assert found.labels.shape == (4, 2)
    torch.testing.assert_close(found.vocabulary, words("cat", "dog", "cup"))  # its name is no secret


def test_a_held_back_class_takes_its_word_along() -> None:
    kept = known().keep_classes(np.array([0, 2]))
    torch.testing.assert_close(kept.texts, words("cat", "cup"))
    torch.testing.assert_close(kept.vocabulary, words("cat", "cup", "bird", "fish"))
    assert (kept.labels == LABELS[:, [0, 4]]).all()
    assert kept.verified.shape == (4, 2)


def test_keeping_all_classes_changes_nothing() -> None:
    kept = known().keep_classes(np.arange(3))
    assert torch.equal(kept.texts, known().texts)
    assert torch.equal(kept.vocabulary, known().vocabulary)
    assert (kept.labels == known().labels).all()


def test_a_fraction_of_the_labels() -> None:
    """The third image shows the most, a cat and a cup; dogs are unheard of then, but not as a word."""
    some = known().labelled_fraction(0.25, seed=0)
    assert some.labelled.tolist() == [2]
    torch.testing.assert_close(some.texts, words("cat", "cup"))
    assert some.labels.shape == some.verified.shape == (4, 2)
    assert some.verified.tolist() == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]
    assert torch.equal(some.vocabulary, known().vocabulary)
    more = known().labelled_fraction(0.5, seed=0)
    assert more.labelled.tolist() == [1, 2]
    torch.testing.assert_close(more.texts, words("cat", "dog", "cup"))


def test_the_whole_fraction_is_all() -> None:
    whole = known().labelled_fraction(1.0, seed=0)
    assert (whole.labels == known().labels).all()
    assert whole.verified.all()
    assert torch.equal(whole.texts, known().texts)


def test_only_verified_labels_are_known() -> None:
    verified = np.ones_like(LABELS)
    verified[~LABELS[:, 2], 2] = False
    found = supervise(TinyBackbone(), replace(annotations(), verified=verified), SPLIT, ["a {}"], [])
    assert (found.verified == verified[:, [0, 2, 4]]).all()
    verified[:, 2] = False
    with pytest.raises(ValueError, match="base class 'dog' is in no training image"):
        supervise(TinyBackbone(), replace(annotations(), verified=verified), SPLIT, ["a {}"], [])
