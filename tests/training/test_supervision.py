"""Training sees no novel class, and only the labels of the labelled fraction."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from forclip.data.images.views import PLAIN, View, Window
from forclip.embedding.embed import EncodedImages
from forclip.experiments.comparison import new_task
from forclip.text.prompt_options import PromptOptions
from forclip.text.prompts import encode_classes
from forclip.training.supervision import Supervision, all_synonyms, labelled_rows, supervise
from forclip.types import Annotations, Bools, ClassSplit
from tests.tiny import TinyBackbone

NAMES = ("cat", "Zebra", "dog", "unicorn", "cup")
SPLIT = ClassSplit(base=("cat", "dog", "cup"), novel=("Zebra", "unicorn"))
LABELS = np.array([[1, 0, 0, 1, 0], [0, 1, 1, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0]], bool)


class RecordingBackbone(TinyBackbone):
    """Records every text that it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        self.encoded += texts
        return super().encode_text(texts)


def annotations(labels: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = LABELS) -> Annotations:
    none = np.zeros(0, np.int64)
    ids = tuple(map(str, range(len(labels))))
    paths = tuple(Path(f"{i}.jpg") for i in ids)
    return Annotations(ids, paths, NAMES, labels, np.zeros((0, 4), np.float32), none, none)


def words(*names: str) -> Tensor:
    return encode_classes(TinyBackbone(), names, ["a {}"])


def supervision() -> Supervision:
    return supervise(TinyBackbone(), annotations(), SPLIT, PromptOptions(["a {}"], ["dog", "bird", "fish"]))


def test_novel_names_are_never_used() -> None:
    backbone = RecordingBackbone()
    listed = ["bird", "zebra", "ZEBRA", "Unicorn", "dog", "unicorn", "fish", "bird"]
    result = supervise(backbone, annotations(), SPLIT, PromptOptions(["a {}"], listed))
    assert {text.lower() for text in backbone.encoded} == {"a cat", "a dog", "a cup", "a bird", "a fish"}
    torch.testing.assert_close(result.texts, words("cat", "dog", "cup"))
    torch.testing.assert_close(result.vocabulary, words("cat", "dog", "cup", "bird", "fish"))
    assert (result.labels == LABELS[:, [0, 2, 4]]).all()
    assert result.verified.all()
    assert result.labelled.tolist() == [0, 1, 2, 3]


SYNONYMS = (("cat", "kitty"), ("Plains_zebra",), ("hound", "unicorn"), ("pony (horned)",), ("mug", "Hound"))


def with_synonyms() -> Annotations:
    return replace(annotations(), synonyms=SYNONYMS)


def test_synonyms_of_novel_classes_are_never_used() -> None:
    """In no case or spelling, and with or without LVIS's parentheses."""
    listed = ["plains zebra", "PLAINS_ZEBRA", "pony", "zebra (animal)", "zebra crossing", "pony (pet)", "kitty"]
    for synonyms in ("none", "mean"):
        backbone = RecordingBackbone()
        result = supervise(backbone, with_synonyms(), SPLIT, PromptOptions(["a {}"], listed, synonyms=synonyms))
        encoded = {text.lower() for text in backbone.encoded}
        assert {"a zebra crossing", "a pony (pet)", "a kitty"} <= encoded
        similar = [text for text in encoded if "zebra" in text or "pony" in text or "unicorn" in text]
        assert sorted(similar) == ["a pony (pet)", "a zebra crossing"]
        assert len(result.vocabulary) == (5 if synonyms == "mean" else 6)


def test_synonyms_change_no_text_unless_configured() -> None:
    plain = supervise(TinyBackbone(), annotations(), SPLIT, PromptOptions(["a {}"], ["bird", "kitty"]))
    result = supervise(TinyBackbone(), with_synonyms(), SPLIT, PromptOptions(["a {}"], ["bird", "kitty"]))
    assert torch.equal(result.texts, plain.texts)
    assert torch.equal(result.vocabulary, plain.vocabulary)


def test_base_classes_use_their_synonyms_except_those_of_a_novel_class() -> None:
    """The dog's synonym "unicorn" is novel. "kitty" and "HOUND" are synonyms, so they leave the vocabulary."""
    result = supervise(
        TinyBackbone(), with_synonyms(), SPLIT, PromptOptions(["a {}"], ["HOUND", "kitty", "bird"], synonyms="mean")
    )
    cat, dog, cup = (words(*names).mean(0) for names in (("cat", "kitty"), ("dog", "hound"), ("cup", "mug", "Hound")))
    expected = F.normalize(torch.stack([cat, dog, cup]), dim=-1)
    torch.testing.assert_close(result.texts, expected)
    torch.testing.assert_close(result.vocabulary, torch.cat([expected, words("bird")]))
    assert len(result.keep_classes(np.array([0, 2])).vocabulary) == 3  # the dog's word is removed too


def test_base_classes_are_searched_by_the_synonyms_they_are_trained_with() -> None:
    of_base = (("cat", "kitty"), ("hound",), ("mug", "Hound"))
    assert all_synonyms(with_synonyms(), SPLIT) == (*of_base, ("Plains_zebra",), ("pony (horned)",))
    assert all_synonyms(annotations(), SPLIT) == ((),) * 5


def test_only_prompts_of_base_classes_are_used() -> None:
    backbone = RecordingBackbone()
    overrides = {"dog": ("the dog of {}", "a hound"), "Zebra": ("stripes",), "cup": ("{}",)}
    result = supervise(backbone, annotations(), SPLIT, PromptOptions(["a {}"], ["bird"], overrides=overrides))
    assert set(backbone.encoded) == {"a cat", "the dog of dog", "a hound", "cup", "a bird"}
    assert torch.equal(result.texts, result.vocabulary[:3])


def test_base_classes_are_searched_as_trained_and_novel_ones_by_all_their_names() -> None:
    """All classes use their synonyms, except the novel zebra, which has its own prompt."""
    images = EncodedImages(torch.zeros(4, 9, 8, dtype=torch.float16), np.arange(4), (), 0.0)
    data = (with_synonyms(), images)
    overrides = {"Zebra": ("stripes",), "cup": ("the {}",)}
    task = new_task(
        "t", TinyBackbone(), data, data, SPLIT, PromptOptions(["a {}"], [], synonyms="mean", overrides=overrides)
    )
    assert torch.equal(task.texts[:3], task.supervision.texts)
    stripes, pony = TinyBackbone().encode_text(["stripes"])[0], words("unicorn", "pony (horned)").mean(0)
    torch.testing.assert_close(task.texts[3:], F.normalize(torch.stack([stripes, pony]), dim=-1))


def test_prompts_of_an_unknown_class_are_refused() -> None:
    with pytest.raises(ValueError, match="'bird'"):
        supervise(
            TinyBackbone(), annotations(), SPLIT, PromptOptions(["a {}"], ["bird"], overrides={"bird": ("a {}",)})
        )


def test_a_base_class_without_an_image_is_refused_or_left_out() -> None:
    unseen = LABELS.copy()
    unseen[:, 2] = False
    with pytest.raises(ValueError, match="'dog'"):
        supervise(TinyBackbone(), annotations(unseen), SPLIT, PromptOptions(["a {}"], []))
    result = supervise(
        TinyBackbone(), annotations(unseen), SPLIT, PromptOptions(["a {}"], []), allow_unlabelled_base=True
    )
    torch.testing.assert_close(result.texts, words("cat", "cup"))
    assert result.labels.shape == (4, 2)
    torch.testing.assert_close(result.vocabulary, words("cat", "dog", "cup"))  # its name may be used


def test_labels_that_tell_nothing_apart_are_known() -> None:
    """A class compares images if a verified label says yes and another says no."""
    sup, everything = supervision(), np.ones((4, 3), bool)
    assert sup.compares_images
    assert not replace(sup, labels=everything).compares_images
    assert not replace(sup, labels=~everything).compares_images
    assert not replace(sup, verified=sup.labels & sup.verified).compares_images
    assert not sup.keep_labelled_fraction(0.25, 0).compares_images


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(ValueError, match="no training image shows a base class, such as 'cat'"):
        supervise(TinyBackbone(), annotations(LABELS & False), SPLIT, PromptOptions(["a {}"]), True)


def test_removing_a_class_removes_its_word() -> None:
    kept = supervision().keep_classes(np.array([0, 2]))
    torch.testing.assert_close(kept.texts, words("cat", "cup"))
    torch.testing.assert_close(kept.vocabulary, words("cat", "cup", "bird", "fish"))
    assert (kept.labels == LABELS[:, [0, 4]]).all()
    assert kept.verified.shape == (4, 2)


def test_keeping_all_classes_changes_nothing() -> None:
    kept = supervision().keep_classes(np.arange(3))
    assert torch.equal(kept.texts, supervision().texts)
    assert torch.equal(kept.vocabulary, supervision().vocabulary)
    assert (kept.labels == supervision().labels).all()


def test_a_fraction_keeps_the_labels_of_some_images_and_their_classes() -> None:
    """The third image shows the most, a cat and a cup. "dog" remains a word of the vocabulary."""
    quarter = supervision().keep_labelled_fraction(0.25, seed=0)
    assert quarter.labelled.tolist() == [2]
    torch.testing.assert_close(quarter.texts, words("cat", "cup"))
    assert quarter.labels.shape == quarter.verified.shape == (4, 2)
    assert quarter.verified.tolist() == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]
    assert torch.equal(quarter.vocabulary, supervision().vocabulary)
    half = supervision().keep_labelled_fraction(0.5, seed=0)
    assert half.labelled.tolist() == [1, 2]
    torch.testing.assert_close(half.texts, words("cat", "dog", "cup"))


def test_a_fraction_of_one_keeps_everything() -> None:
    whole = supervision().keep_labelled_fraction(1.0, seed=0)
    assert (whole.labels == supervision().labels).all()
    assert whole.verified.all()
    assert torch.equal(whole.texts, supervision().texts)


def test_only_verified_labels_count() -> None:
    verified = np.ones_like(LABELS)
    verified[~LABELS[:, 2], 2] = False
    result = supervise(TinyBackbone(), replace(annotations(), verified=verified), SPLIT, PromptOptions(["a {}"], []))
    assert (result.verified == verified[:, [0, 2, 4]]).all()
    verified[:, 2] = False
    with pytest.raises(ValueError, match="'dog'"):
        supervise(TinyBackbone(), replace(annotations(), verified=verified), SPLIT, PromptOptions(["a {}"], []))


ANY_LABELS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20))
FRACTIONS = st.floats(0, 1, exclude_min=True)


@given(ANY_LABELS, FRACTIONS, FRACTIONS, st.integers(0, 10))
def test_rows_are_sorted_counted_and_nested(labels: Bools, one: float, other: float, seed: int) -> None:
    small, large = (labelled_rows(labels, fraction, seed).tolist() for fraction in sorted((one, other)))
    assert set(small) <= set(large) <= set(range(len(labels)))
    for rows, fraction in ((small, min(one, other)), (large, max(one, other))):
        assert rows == sorted(set(rows))
        assert len(rows) == math.ceil(fraction * len(labels)) >= 1


@given(ANY_LABELS, st.integers(0, 10))
def test_as_many_images_as_classes_show_every_class(labels: Bools, seed: int) -> None:
    images, classes = labels.shape
    rows = labelled_rows(labels, min(1.0, classes / images), seed)
    assert (labels[rows].any(0) == labels.any(0)).all()


def test_the_image_with_most_classes_comes_first() -> None:
    labels = np.zeros((50, 6), bool)
    labels[np.arange(6), np.arange(6)] = True
    labels[37, :4] = True
    labels[12, 4:] = True
    for seed in range(5):
        assert labelled_rows(labels, 0.02, seed).tolist() == [37]
        assert labelled_rows(labels, 0.04, seed).tolist() == [12, 37]


def test_the_seed_decides_ties() -> None:
    labels = np.ones((100, 3), bool)
    drawn = {tuple(labelled_rows(labels, 0.1, seed).tolist()) for seed in range(10)}
    assert len(drawn) == 10
    assert labelled_rows(labels, 0.1, 3).tolist() == labelled_rows(labels, 0.1, 3).tolist()


def test_labels_of_views_are_of_the_window_that_each_image_was_encoded_with(tmp_path: Path) -> None:
    """A view's window depends on the image's row among all, also those after an image that can't be read."""
    paths = tuple(tmp_path / f"{k}.png" for k in range(4))
    for path in paths[1:]:
        Image.new("RGB", (100, 80)).save(path)
    left_on_odd_rows = View("half", lambda row, size: Window((0, 0, 50, 80) if row % 2 else (50, 0, 100, 80)))
    cups = np.tile(np.array([0, 0, 1, 0, 1], bool), (4, 1))
    images = replace(
        annotations(cups | LABELS),
        paths=paths,
        boxes=np.tile(np.array([[5, 5, 20, 20]], np.float32), (4, 1)),
        box_images=np.arange(4),
        box_classes=np.full(4, 4),
    )
    encoded = EncodedImages(torch.zeros(2, 3, 9, 8).half(), np.array([1, 2, 3]), (), 0.0, (PLAIN, left_on_odd_rows))
    gallery = EncodedImages(torch.zeros(4, 9, 8).half(), np.arange(4), (), 0.0)
    task = new_task("t", TinyBackbone(), (images, encoded), (images, gallery), SPLIT, PromptOptions(["a {}"], []), True)
    labels, verified = task.supervision.of_views(2)
    assert labels[0, :, -1].all()
    assert labels[1, :, -1].tolist() == [True, False, True]
    assert verified[:, :, -1].all()
    kept = task.supervision.keep_classes(np.array([len(task.supervision.texts) - 1]))
    assert kept.of_views(2)[0].shape == (2, 3, 1)
    fraction = task.supervision.keep_labelled_fraction(0.3, 0)
    assert fraction.of_views(2)[1].any(2).sum(1).tolist() == [1, 1]
